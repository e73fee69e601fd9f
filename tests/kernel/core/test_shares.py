"""How much of a device those get who are less urgent: an encoder beside a decoder, on a simulated clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernos.kernel.core.shares import Share
from tests.kernel.fakes import examples

PART, MOST, OWED = 0.25, 0.4, 0.3


@pytest.fixture
def share() -> Share:
    return Share(PART, MOST, OWED, 100.0)


def run(share: Share, began: float, until: float, piece: float, step: float) -> float:
    """Pieces and steps by turns, a piece where it may begin, from a time to another: the seconds that pieces took."""
    now, taken = began, 0.0
    while now < until:
        if not share.wait(now):
            now += piece
            share.take(piece, now)
            taken += piece
        now += step
    return taken


@pytest.mark.parametrize("piece", [0.005, 0.03, 0.4])
@pytest.mark.parametrize("step", [0.01, 0.06, 0.2])
def test_who_always_has_something_gets_the_share_and_what_was_saved(share: Share, piece: float, step: float) -> None:
    taken = run(share, 100.0, 160.0, piece, step)
    assert taken <= MOST + PART * 60 + piece
    assert taken >= min(PART, piece / (piece + step)) * 60 - piece


@pytest.mark.parametrize("seconds", [0.1, 10.0])
def test_an_idle_device_is_paid_for_as_far_as_the_bound(share: Share, seconds: float) -> None:
    share.take(seconds, 100.0, free=True)
    assert share.wait(100.0) == pytest.approx(max(0.0, min(OWED, seconds - MOST)) / PART)


def test_a_debt_is_not_forgiven_for_an_idle_device(share: Share) -> None:
    share.take(MOST + 2.0, 100.0)
    share.take(1.0, 100.0, free=True)
    assert share.wait(100.0) == pytest.approx(2.0 / PART)


def test_who_floods_whenever_it_may_has_nothing_saved_when_the_others_come_back(share: Share) -> None:
    """Answers for half a second in each second: beside them the encoder gets its share of the whole second, less what it had alone."""
    taken = 0.0
    for second in range(60):
        share.take(0.5, 100.5 + second, free=True)
        taken += run(share, 100.5 + second, 101.0 + second, 0.03, 0.03)
    assert taken <= MOST + 0.03 * 60 / 2


def test_who_has_something_now_and_then_does_not_wait(share: Share) -> None:
    """A call of a tenth of a second every second is less than the share, however it falls into pieces."""
    for second in range(60):
        for piece in range(4):
            now = 100.0 + second + piece * 0.03
            assert share.wait(now) == 0
            share.take(0.025, now + 0.025)


def test_the_wait_is_over_when_it_says(share: Share) -> None:
    share.take(MOST + 1.0, 100.0)
    share.take(0.0, 101.5)
    wait = share.wait(101.5)
    assert wait == pytest.approx(1.0 / PART - 1.5)
    assert share.wait(101.5 + wait / 2) == pytest.approx(wait / 2)
    assert share.wait(101.5 + wait) == 0


def test_no_more_is_saved_than_the_bound(share: Share) -> None:
    assert share.wait(100_000.0) == 0
    share.take(MOST + 0.1, 100_000.0)
    assert share.wait(100_000.0) == pytest.approx(0.1 / PART)


@examples(100)
@given(
    part=st.floats(0.01, 1.0),
    most=st.floats(0.0, 5.0),
    owed=st.floats(0.0, 5.0),
    moves=st.lists(st.tuples(st.floats(0.0, 10.0), st.floats(0.001, 3.0), st.booleans()), max_size=60),
)
def test_never_more_than_saved_and_share_and_one_piece_and_nobody_waits_for_ever(
    part: float, most: float, owed: float, moves: list[tuple[float, float, bool]]
) -> None:
    share, now, taken = Share(part, most, owed, 0.0), 0.0, 0.0
    for pause, piece, free in moves:
        now += pause
        if free:
            now += piece
            share.take(piece, now, free=True)
        elif not share.wait(now):
            assert taken <= most + part * now + 1e-5, "began though it was used up"
            now += piece
            share.take(piece, now)
            taken += piece
        assert share.wait(now) <= max(3.0, owed) / part + 1e-6
