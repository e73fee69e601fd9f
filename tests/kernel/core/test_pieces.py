"""Who an encoder serves next, on a simulated clock: an encoder of a constant speed, and agents that keep it busy."""

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernos.kernel.core.pieces import Job, Pieces
from kernos.kernel.limits import PIECE_LEAST, PIECE_MOST, PIECE_S, STARVE_S
from tests.kernel.fakes import examples

SPEED = 4_000.0
"""Tokens per second."""
REALTIME, INTERACTIVE, NORMAL = range(3)


class Encoder:
    """The encoder, its clock, and what it did."""

    def __init__(self, speed: float = SPEED) -> None:
        self.pieces, self.speed, self.now = Pieces(), speed, 100.0
        self.ends: dict[int, float] = {}
        self.lengths: dict[int, list[int]] = {}
        self.longest = 0.0
        """Seconds of a piece."""

    def send(self, pid: int, rank: int, lengths: list[int], weight: float = 1.0) -> int:
        id_ = len(self.lengths) + 1
        self.lengths[id_] = lengths
        self.pieces.add(Job(id_, pid, rank, weight, lengths), self.now)
        return id_

    def step(self) -> int:
        """Compute the next piece; of which batch it was, 0: nothing waits."""
        taken = self.pieces.take(self.now)
        if taken is None:
            return 0
        id_, numbers = taken
        lengths = [self.lengths[id_][number] for number in numbers]
        seconds = len(lengths) * max(lengths) / self.speed
        self.longest = max(self.longest, seconds)
        self.now += seconds
        self.pieces.learn(lengths, seconds)
        if id_ not in self.pieces.jobs:
            self.ends[id_] = self.now
        return id_


@pytest.fixture
def encoder() -> Encoder:
    return Encoder()


def test_a_question_waits_for_one_piece_of_a_large_batch(encoder: Encoder) -> None:
    encoder.send(1, NORMAL, [200] * 256)
    for _ in range(3):
        encoder.step()
    asked, question = encoder.now, encoder.send(2, INTERACTIVE, [12])
    encoder.step()
    assert encoder.ends[question] - asked <= PIECE_S


def test_a_flood_does_not_hold_up_an_equal(encoder: Encoder) -> None:
    """An agent that asks now and then waits for the piece under way and for its own, however many batches others have sent."""
    for _ in range(50):
        encoder.send(1, NORMAL, [20] * 32)
    encoder.step()
    for _ in range(20):
        began, mine = encoder.now, encoder.send(2, NORMAL, [20] * 4)
        while mine not in encoder.ends:
            encoder.step()
        assert encoder.ends[mine] - began <= 2 * encoder.longest
        encoder.step()


def test_agents_share_by_weight_whatever_the_size_of_their_batches(encoder: Encoder) -> None:
    served: Counter[int] = Counter()
    sizes, weights = {1: 2, 2: 64, 3: 16}, {1: 1.0, 2: 1.0, 3: 2.0}
    owner = {encoder.send(pid, NORMAL, [16] * size, weights[pid]): pid for pid, size in sizes.items() for _ in range(2)}
    until = encoder.now + 60
    while encoder.now < until:
        began = encoder.now
        id_ = encoder.step()
        served[owner[id_]] += round((encoder.now - began) * SPEED)
        if id_ in encoder.ends:
            pid = owner[id_]
            owner[encoder.send(pid, NORMAL, [16] * sizes[pid], weights[pid])] = pid
    shares = {pid: served[pid] / weights[pid] for pid in sizes}
    assert max(shares.values()) - min(shares.values()) <= 4 * PIECE_LEAST


def test_a_class_waits_for_the_more_urgent_but_does_not_starve(encoder: Encoder) -> None:
    late = encoder.send(1, NORMAL, [16])
    began = encoder.now
    while late not in encoder.ends:
        encoder.send(2, REALTIME, [16] * 8)
        encoder.step()
    assert STARVE_S <= encoder.ends[late] - began <= STARVE_S + 1


def test_who_was_idle_has_saved_nothing_up(encoder: Encoder) -> None:
    for _ in range(100):
        encoder.send(1, NORMAL, [16] * 8)
    for _ in range(50):
        encoder.step()
    batches = {encoder.send(2, NORMAL, [16] * 8) for _ in range(20)}
    first = [encoder.step() for _ in range(20)]
    assert 9 <= sum(id_ in batches for id_ in first) <= 11


@pytest.mark.parametrize("speed", [500.0, 4_000.0, 100_000.0])
def test_a_piece_takes_as_long_on_a_fast_device_as_on_a_slow_one(speed: float) -> None:
    encoder = Encoder(speed)
    encoder.send(1, NORMAL, [16] * 4_000)
    bound = max(PIECE_S, PIECE_LEAST / speed)
    while encoder.step() and encoder.pieces.jobs:
        assert encoder.longest <= bound * 1.01, "of all but the last, which takes a small rest along"
    assert bound / 2 <= encoder.longest <= 1.5 * bound * 1.01


def test_a_small_rest_goes_along(encoder: Encoder) -> None:
    lengths = [PIECE_LEAST // 8] * 11
    encoder.send(1, NORMAL, lengths)
    assert encoder.pieces.take(encoder.now) == (1, list(range(11))), "eleven eighths of a piece"
    encoder.send(2, NORMAL, [*lengths, *lengths[:2]])
    assert encoder.pieces.take(encoder.now) == (2, list(range(8))), "thirteen, of which five are more than half a piece"
    assert encoder.pieces.take(encoder.now) == (2, list(range(8, 13)))


def test_the_pace_is_learned_from_texts_that_fill_no_piece() -> None:
    encoder = Encoder(speed=100_000.0)
    encoder.send(1, NORMAL, [60] * 4_000)
    encoder.step()
    assert encoder.longest < PIECE_LEAST / 100_000, "two texts, and a third would have been too much"
    encoder.step()
    assert encoder.longest > PIECE_S / 2


def test_a_withdrawn_batch_gets_no_more_pieces(encoder: Encoder) -> None:
    gone, stays = encoder.send(1, NORMAL, [100] * 9), encoder.send(2, NORMAL, [100])
    assert encoder.step() == gone
    encoder.pieces.remove(gone)
    assert [encoder.step(), encoder.step()] == [stays, 0]


@examples(60)
@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(0, 3), st.lists(st.integers(1, 512), min_size=1, max_size=40)), max_size=20),
    st.floats(100, 1e6),
)
def test_every_text_is_computed_once_in_pieces_that_are_short_enough(sent: list[tuple[int, int, list[int]]], speed: float) -> None:
    encoder = Encoder(speed)
    for pid, rank, lengths in sent:
        encoder.send(pid, rank, lengths)
    done: dict[int, list[int]] = {id_: [] for id_ in encoder.lengths}
    take: Callable[[float], tuple[int, list[int]] | None] = encoder.pieces.take
    while (taken := take(encoder.now)) is not None:
        id_, numbers = taken
        done[id_] += numbers
        lengths = [encoder.lengths[id_][number] for number in numbers]
        most = max(PIECE_LEAST, min(PIECE_MOST, PIECE_S * speed * 1.01))
        longest = most if id_ in encoder.pieces.jobs else min(PIECE_MOST, 1.5 * most)  # a small rest goes along
        assert len(numbers) == 1 or len(numbers) * max(lengths) <= longest
        encoder.now += len(lengths) * max(lengths) / speed
        encoder.pieces.learn(lengths, len(lengths) * max(lengths) / speed)
    assert {id_: sorted(numbers) for id_, numbers in done.items()} == {
        id_: list(range(len(lengths))) for id_, lengths in encoder.lengths.items()
    }
    assert not encoder.pieces.jobs
