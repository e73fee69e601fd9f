"""Guesses: where they come from, how many are worth it, and that they change nothing of what is said."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernos.kernel.devices.lookup import Lookup
from kernos.kernel.devices.messages import Extend, Sampling
from kernos.kernel.devices.pace import Pace
from tests.devices.conftest import SteadyPace

TOKENS = st.lists(st.integers(0, 3), max_size=60)


@given(TOKENS, st.integers(1, 8))
def test_a_guess_is_what_followed_the_last_tokens_before(tokens: list[int], count: int) -> None:
    guess = Lookup(tokens).guess(count)
    ends = [end for end in range(2, len(tokens)) if tokens[end - 2 : end] == tokens[-2:]]
    assert bool(guess) == bool(ends)
    assert len(guess) <= count
    assert not guess or any(guess == tokens[end : end + count] for end in ends)


def test_the_longer_match_counts_and_of_equals_the_later() -> None:
    assert Lookup([1, 2, 3, 7, 9, 2, 3, 8, 1, 2, 3]).guess(1) == [7]
    assert Lookup([1, 2, 3, 7, 1, 2, 3, 8, 1, 2, 3]).guess(2) == [8, 1]


@given(TOKENS, TOKENS)
def test_it_is_the_same_however_the_tokens_came(first: list[int], second: list[int]) -> None:
    lookup = Lookup(first)
    for token in second:
        lookup.extend([token])
    assert lookup.guess(5) == Lookup(first + second).guess(5)


def test_it_learns_how_likely_it_is_right_also_from_guesses_that_nobody_used() -> None:
    lookup = Lookup([1, 2, 3, 4] * 4)
    for token in [1, 2, 3, 4] * 5:
        assert lookup.guess(3)[0] == token
        lookup.extend([token])
    assert lookup.likely > 0.9
    for number in range(20):
        lookup.guess(3)
        lookup.extend([100 + number, 1, 2, 3])
    assert lookup.likely < 0.2


def paced(*seconds: float) -> Pace:
    """A device on which a step of one token takes the first of these, and so on."""
    pace = Pace()
    for tokens, taken in enumerate(seconds, 1):
        pace.learn(tokens, 0, taken)
    return pace


def test_as_many_are_computed_as_are_worth_their_time() -> None:
    flat, steep = paced(*[0.01] * 8), paced(*(0.01 * tokens for tokens in range(1, 9)))
    assert Pace().guesses(1, 0.9, 7) == 0, "nothing is known of the device"
    assert flat.guesses(1, 0.1, 7) == 7
    assert steep.guesses(1, 0.9, 7) == 0
    rising = paced(*(0.01 + 0.002 * tokens for tokens in range(8)))
    assert [rising.guesses(1, likely, 7) for likely in (0.1, 0.5, 0.95)] == [0, 1, 7]
    assert rising.guesses(4, 0.5, 1) == 0, "what one row gains, all four wait for"


@given(st.lists(st.floats(1e-4, 1.0), min_size=1, max_size=8), st.integers(1, 8), st.floats(0, 1), st.integers(0, 7))
def test_never_more_than_asked_for(seconds: list[float], rows: int, likely: float, most: int) -> None:
    assert 0 <= paced(*seconds).guesses(rows, likely, most) <= most


class Guessing(SteadyPace):
    """Everything that can be guessed is computed."""

    def guesses(self, rows: int, likely: float, most: int) -> int:
        return most


@pytest.fixture
def guessing(bench: Any) -> Iterator[Any]:
    engine = bench.driver._engines["it"]
    engine._pace = Guessing()
    yield bench
    engine._pace = SteadyPace()


def counted(bench: Any, seq: int) -> int:
    """Steps until nothing is left to do; what the row holds is told after each."""
    steps = 0
    while bench.driver.busy:
        (output,) = bench.step().outputs
        assert output.held == bench.driver._engines["it"]._sequences[seq].held if not output.finish else True
        steps += 1
    return steps


def test_the_same_is_said_in_fewer_steps(guessing: Any, prompts: list[list[int]], greedy: list[list[int]]) -> None:
    steps = []
    for number in range(4):
        seq = guessing.begin(prompts[number], 64)
        steps.append(counted(guessing, seq))
        assert guessing.tokens[seq] == greedy[number]
    assert sum(steps) < 4 * 64, steps


def test_a_draw_is_the_same_with_guesses(bench: Any, guessing: Any, prompts: list[list[int]]) -> None:
    warm = Sampling(temperature=0.3, seed=5, ignore_eos=True)
    engine = bench.driver._engines["it"]
    found = guessing.run(prompts[1], 40, sampling=warm)
    engine._pace = SteadyPace()
    assert bench.run(prompts[1], 40, sampling=warm) == found


def test_wrong_guesses_leave_nothing(
    guessing: Any, prompts: list[list[int]], greedy: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lookup, "guess", lambda self, count: [11, 12, 13][:count])
    seqs = [guessing.begin(prompts[number], 24) for number in range(2)]
    guessing.drain()
    assert [guessing.tokens[seq] for seq in seqs] == [greedy[0][:24], greedy[1][:24]]


def test_no_guess_goes_beyond_a_lease(guessing: Any, prompts: list[list[int]], greedy: list[list[int]]) -> None:
    seq = guessing.begin(prompts[0], 40, lease=2)
    given = 2
    for more in (1, 3, 2, 9, 30):
        guessing.drain()
        assert guessing.tokens[seq] == greedy[0][:given]
        guessing.driver.extend(Extend(seq, more))
        given += more
    guessing.drain()
    assert guessing.tokens[seq] == greedy[0][:40]
    assert guessing.finish[seq] == "length"


def test_a_turn_ends_at_the_end_of_sequence_token_among_guesses(
    guessing: Any, prompts: list[list[int]], greedy: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was guessed after it is not sent."""
    engine = guessing.driver._engines["it"]
    ahead = greedy[0]

    def knowing(lookup: Lookup, count: int) -> list[int]:
        done = len(lookup._tokens) - len(prompts[0])
        return ahead[done : done + count]

    monkeypatch.setattr(Lookup, "guess", knowing)
    monkeypatch.setattr(engine, "_eos", frozenset({ahead[6]}))
    end = ahead.index(ahead[6])
    seq = guessing.begin(prompts[0], 40, sampling=Sampling(), keep=True)
    counted(guessing, seq)
    assert guessing.tokens[seq] == ahead[:end]
    assert guessing.finish[seq] == "stop"
    assert engine._sequences[seq].held == len(prompts[0]) + end
    assert engine._model._kv.rows[engine._model._kv.find(seq)].length == len(prompts[0]) + end
