"""The page pool against a model that keeps whole token lists, and `check()` after every step."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from kernos.kernel.core.pages import PagePool, Table
from tests.kernel.fakes import examples

PAGE = 4


class Model:
    """What is in each slot, as a device would have it: the tokens up to and with the page."""

    def __init__(self, size: int) -> None:
        self.pool = PagePool(size, PAGE)
        self.content: dict[int, tuple[str, tuple[int, ...]]] = {}
        self.tables: list[tuple[str, list[int], Table]] = []

    def begin(self, scope: str, tokens: list[int]) -> None:
        table = self.pool.match(scope, tokens)
        assert table.tokens < len(tokens) or not tokens
        self.read(scope, tokens, table)
        self.tables.append((scope, tokens, table))

    def read(self, scope: str, tokens: Sequence[int], table: Table) -> None:
        """Every page of a table holds just what the turn would have computed."""
        for place, slot in enumerate(table.slots):
            end = min((place + 1) * PAGE, table.tokens)
            assert self.content[slot] == (scope, tuple(tokens[:end])) or (
                self.content[slot][0] == scope and self.content[slot][1][:end] == tuple(tokens[:end])
            )

    def save(self, at: int) -> None:
        scope, tokens, table = self.tables[at % len(self.tables)]
        first = table.tokens // PAGE
        fresh = self.pool.extend(table, len(tokens))
        if fresh is None:
            return
        for place, slot in enumerate(fresh, first):
            self.content[slot] = (scope, tuple(tokens[: (place + 1) * PAGE]))
        self.pool.publish(scope, table, tokens)

    def grow(self, at: int, more: list[int]) -> None:
        scope, tokens, table = self.tables[at % len(self.tables)]
        self.tables[at % len(self.tables)] = (scope, tokens + more, table)

    def end(self, at: int) -> None:
        _, _, table = self.tables.pop(at % len(self.tables))
        self.pool.release(table)

    def check(self) -> None:
        self.pool.check()
        assert self.pool.held == len({slot for _, _, table in self.tables for slot in table.slots})
        for scope, tokens, table in self.tables:
            self.read(scope, tokens, table)


tokens = st.lists(st.integers(0, 1), max_size=14)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.sampled_from("ab"), tokens),
        st.tuples(st.just("grow"), st.integers(0, 9), tokens),
        st.tuples(st.just("save"), st.integers(0, 9)),
        st.tuples(st.just("end"), st.integers(0, 9)),
    ),
    max_size=40,
)


@examples(300)
@given(st.integers(1, 12), steps)
def test_every_page_holds_what_its_turn_would_compute(size: int, history: list[tuple[str, ...]]) -> None:
    model = Model(size)
    for name, *arguments in history:
        if name == "begin" or model.tables:
            getattr(model, name)(*arguments)
        model.check()


def saved(pool: PagePool, scope: str, tokens: list[int]) -> Table:
    table = pool.match(scope, tokens)
    assert pool.extend(table, len(tokens)) is not None
    pool.publish(scope, table, tokens)
    return table


def test_a_common_beginning_is_held_once() -> None:
    pool = PagePool(100, PAGE)
    common = list(range(40))
    first = saved(pool, "x", common)
    forks = [saved(pool, "x", [*common, 100 + i]) for i in range(32)]
    assert all(fork.slots[:10] == first.slots[:10] for fork in forks)
    assert pool.held == 10 + 32


def test_scopes_never_meet() -> None:
    pool = PagePool(100, PAGE)
    saved(pool, "user:anna", list(range(40)))
    assert pool.match("user:ben", list(range(40))).slots == []


def test_the_last_token_is_left_to_compute() -> None:
    pool = PagePool(100, PAGE)
    saved(pool, "x", list(range(8)))
    assert pool.match("x", list(range(8))).tokens == 4
    assert pool.match("x", list(range(9))).tokens == 8


def test_the_least_recently_used_goes_first_and_a_prefix_from_its_end() -> None:
    pool = PagePool(4, PAGE)
    pool.release(saved(pool, "x", list(range(8))))
    pool.release(saved(pool, "y", list(range(8))))
    pool.release(pool.match("x", list(range(9))))
    saved(pool, "z", [1, 2, 3])
    assert pool.match("x", list(range(9))).tokens == 8
    assert pool.match("y", list(range(9))).tokens == 4


def test_too_few_pages_change_nothing() -> None:
    pool = PagePool(2, PAGE)
    table = pool.match("x", [1])
    assert pool.extend(table, 9) is None
    assert (table.slots, pool.held) == ([], 0)
    pool.check()
