"""The page pool against a device that keeps whole token lists in its slots, and `check()` after every step."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernos.kernel.core.pages import Move, PagePool, Table
from kernos.kernel.core.prefixes import Chain, PageHash
from kernos.kernel.devices.messages import Tier
from tests.kernel.fakes import examples

PAGE = 4
Sizes = tuple[int, int, int]


def pool_of(device: int, host: int = 0, disk: int = 0) -> PagePool:
    return PagePool({"device": device, "host": host, "disk": disk}, PAGE)


def names(scope: str, tokens: Sequence[int], count: int | None = None) -> list[PageHash]:
    return Chain(scope, PAGE).of(tokens, len(tokens) if count is None else count)


class Turn:
    def __init__(self, scope: str, tokens: list[int]) -> None:
        self.scope, self.tokens, self.table = scope, tokens, Table()


class Model:
    """Turns that leave and come back, and a device that does what it is ordered to."""

    def __init__(self, sizes: Sizes) -> None:
        self.pool = pool_of(*sizes)
        self.content: dict[tuple[Tier, int], tuple[str, tuple[int, ...]]] = {}
        self.turns: list[Turn] = []
        self.beside: list[Move] = []
        self.clock = 0

    def carry_out(self, moves: list[Move]) -> None:
        for move in moves:
            if "disk" in (move.source, move.target):
                self.beside.append(move)
            else:
                self.copy(move)

    def copy(self, move: Move) -> None:
        for source, target in move.pairs:
            self.content[move.target, target] = self.content[move.source, source]

    def begin(self, scope: str, tokens: list[int]) -> None:
        turn = Turn(scope, tokens)
        self.turns.append(turn)
        turn.table = self.pool.match(names(scope, tokens, max(0, len(tokens) - 1)))
        assert turn.table.tokens < len(tokens) or not tokens
        self.park(turn)

    def park(self, turn: Turn) -> None:
        self.clock += 1
        turn.table.due = (0, 0, self.clock)

    def save(self, at: int) -> None:
        """A turn ran, has more tokens, and leaves its slot."""
        turn = self.turns[at % len(self.turns)]
        self.pool.release(turn.table)
        table = turn.table = self.pool.match(names(turn.scope, turn.tokens))
        extension = self.pool.extend(table, len(turn.tokens))
        if extension is not None:
            slots, moves = extension
            self.carry_out(moves)
            for place, slot in enumerate(slots, len(table.pages) - len(slots)):
                self.content["device", slot] = (turn.scope, tuple(turn.tokens[: (place + 1) * PAGE]))
            self.pool.publish(table, names(turn.scope, turn.tokens))
        self.park(turn)

    def grow(self, at: int, more: list[int]) -> None:
        turn = self.turns[at % len(self.turns)]
        turn.tokens = turn.tokens + more

    def bring(self, at: int) -> None:
        """A turn gets a slot, if its pages are not on their way: then all that it still holds is on the device."""
        turn = self.turns[at % len(self.turns)]
        turn.table.due = None
        if not self.pool.away(turn.table):
            self.carry_out(self.pool.lift(turn.table))
            assert all(page.tier == "device" for page in turn.table.pages)
            self.read(turn)
            self.pool.release(turn.table)
        else:
            self.park(turn)

    def fetch(self, at: int, must: bool) -> None:
        self.carry_out(self.pool.fetch(self.turns[at % len(self.turns)].table, must=must))

    def sink(self, low: int, spared: int) -> None:
        self.carry_out(self.pool.sink(low, [turn.table for turn in self.turns[:spared]]))

    def arrive(self, at: int, well: bool) -> None:
        if self.beside:
            move = self.beside.pop(at % len(self.beside))
            if well:
                self.copy(move)
                self.pool.moved(move)
            else:
                self.pool.failed(move)

    def end(self, at: int) -> None:
        self.pool.release(self.turns.pop(at % len(self.turns)).table)

    def read(self, turn: Turn) -> None:
        """Every page of a table holds just what the turn would have computed."""
        for place, page in enumerate(turn.table.pages):
            end = min((place + 1) * PAGE, turn.table.tokens)
            scope, tokens = self.content[page.tier, page.slot]
            assert scope == turn.scope
            assert tokens[:end] == tuple(turn.tokens[:end])

    def check(self) -> None:
        self.pool.check()
        for turn in self.turns:
            self.read(turn)


number = st.integers(0, 9)
tokens = st.lists(st.integers(0, 1), max_size=14)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.sampled_from("ab"), tokens),
        st.tuples(st.just("grow"), number, tokens),
        st.tuples(st.sampled_from(["save", "save", "bring", "end"]), number),
        st.tuples(st.just("fetch"), number, st.booleans()),
        st.tuples(st.just("sink"), st.integers(0, 4), st.integers(0, 2)),
        st.tuples(st.just("arrive"), number, st.sampled_from([True, True, False])),
    ),
    max_size=60,
)


@examples(300)
@given(st.tuples(st.integers(0, 8), st.integers(0, 5), st.integers(0, 5)), steps)
def test_every_page_holds_what_its_turn_would_compute(sizes: Sizes, history: list[tuple[str, ...]]) -> None:
    model = Model(sizes)
    for name, *arguments in history:
        if name in ("begin", "sink", "arrive") or model.turns:
            getattr(model, name)(*arguments)
        model.check()
    while model.turns:
        model.end(0)
    while model.beside:
        model.arrive(0, True)
    assert model.pool.held("device") == model.pool.held("host") == model.pool.held("disk") == 0, (
        "pages that nobody holds and nobody can take"
    )


def saved(pool: PagePool, scope: str, tokens: list[int], due: int = 1) -> Table:
    table = pool.match(names(scope, tokens))
    assert pool.extend(table, len(tokens)) is not None
    pool.publish(table, names(scope, tokens))
    table.due = (0, 0, due)
    return table


def test_a_common_beginning_is_held_once() -> None:
    pool = pool_of(100)
    common = list(range(40))
    first = saved(pool, "x", common)
    forks = [saved(pool, "x", [*common, 100 + i]) for i in range(32)]
    assert all(fork.pages[:10] == first.pages[:10] for fork in forks)
    assert pool.held("device") == 10 + 32


def test_scopes_never_meet() -> None:
    pool = pool_of(100)
    saved(pool, "user:anna", list(range(40)))
    assert pool.match(names("user:ben", list(range(40)))).pages == []


def test_the_least_recently_used_goes_first_and_a_prefix_from_its_end() -> None:
    pool = pool_of(4)
    pool.release(saved(pool, "x", list(range(8))))
    pool.release(saved(pool, "y", list(range(8))))
    pool.release(pool.match(names("x", list(range(8)))))
    saved(pool, "z", [1, 2, 3])
    assert pool.match(names("x", list(range(8)))).tokens == 8
    assert pool.match(names("y", list(range(8)))).tokens == 4


def test_too_few_pages_change_nothing() -> None:
    pool = pool_of(2)
    table = pool.match([])
    assert pool.extend(table, 9) is None
    assert (table.pages, pool.held("device")) == ([], 0)
    pool.check()


def test_whoever_is_due_last_goes_down_first() -> None:
    pool = pool_of(4, 4)
    soon, late = saved(pool, "x", list(range(8)), due=1), saved(pool, "y", list(range(8)), due=2)
    saved(pool, "z", [1, 2], due=3)
    assert [page.tier for page in soon.pages] == ["device", "device"]
    assert [page.tier for page in late.pages] == ["device", "host"]


def test_what_is_cached_gives_way_to_what_will_come_back() -> None:
    pool = pool_of(2, 1)
    pool.release(saved(pool, "x", list(range(4))))
    turn = saved(pool, "y", list(range(4)))
    saved(pool, "z", list(range(8)), due=0)
    assert [page.tier for page in turn.pages] == ["host"]
    assert pool.match(names("x", list(range(4)))).pages == []


def test_pages_that_find_no_place_are_dropped_with_what_follows_them() -> None:
    pool = pool_of(3)
    turn = saved(pool, "y", list(range(12)))
    saved(pool, "z", [1], due=0)
    assert (turn.tokens, len(turn.pages)) == (8, 2)


def test_the_host_is_kept_free_by_writing_ahead() -> None:
    pool = pool_of(1, 4, 8)
    tables = [saved(pool, f"{i}", [i, i, i, i], due=i) for i in range(5)]
    (move,) = pool.sink(2)
    assert (move.source, move.target) == ("host", "disk")
    assert [page.holders[0].due for page in move.pages] == [(0, 0, 3), (0, 0, 2)], "the one on the device came last of all"
    assert pool.sink(2) == [], "those are on their way"
    pool.moved(move)
    assert len(pool.free["host"]) == 2
    assert [page.tier for page in tables[3].pages] == ["disk"]
    (back,) = pool.fetch(tables[3], must=False)
    pool.moved(back)
    tables[3].due = None
    assert [(move.source, move.target) for move in pool.lift(tables[3])] == [("device", "host"), ("host", "device")]
    pool.check()


@pytest.mark.parametrize("source", ["disk", "host"])
def test_a_failed_move_loses_only_what_it_was_to_read(source: str) -> None:
    pool = pool_of(1, 2, 2)
    first, _ = saved(pool, "a", [1, 2, 3, 4], due=2), saved(pool, "b", [1, 2, 3, 4], due=1)
    (down,) = pool.sink(2)
    if source == "host":
        pool.failed(down)
        assert [page.tier for page in first.pages] == ["host"]
    else:
        pool.moved(down)
        pool.failed(pool.fetch(first, must=True)[0])
        assert first.pages == []
    pool.check()
