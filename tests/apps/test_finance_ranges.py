"""The two tests behind the alerts of the finance monitor: their stated rates, and what they find."""

import os
import random

import msgspec
import numpy as np
import pytest

from kernos.apps.finance_monitor.shock import LAG, QUIET_ITEMS, WARM_UP, Shock, gains, items_to_alarm, threshold_for
from kernos.apps.finance_monitor.volume import LEAST_DAYS, QUIET_DAYS, chance_of_less, chance_of_more, unusual

STREAMS = 400 if os.environ.get("KERNOS_PROVE") else 40


@pytest.mark.parametrize("share", [0.05, 0.12, 0.3])
def test_a_threshold_is_the_least_that_keeps_the_rate(share: float) -> None:
    assert items_to_alarm(share, threshold_for(share)) >= QUIET_ITEMS
    assert items_to_alarm(share, threshold_for(share) - 0.5) < QUIET_ITEMS


def test_the_chain_agrees_with_drawn_streams() -> None:
    """A low threshold, so that alarms come often enough to be counted."""
    chance, lengths = random.Random(1), []
    better, worse = gains(0.12)
    for _ in range(STREAMS * 5):
        score, length = 0.0, 0
        while score < 3.0:
            score = max(0.0, score + (worse if chance.random() < 0.12 else better))
            length += 1
        lengths.append(length)
    assert np.mean(lengths) == pytest.approx(items_to_alarm(0.12, 3.0), rel=0.2)


def drawn(share: float, items: int, chance: random.Random) -> list[bool]:
    return [chance.random() < share for _ in range(items)]


def test_a_quiet_stream_raises_less_than_one_alarm_in_a_thousand_items() -> None:
    chance = random.Random(2)
    alarms = 0
    for _ in range(STREAMS):
        shock = Shock()
        alarms += sum(shock.add(bad) for bad in drawn(0.12, 1_000, chance))
    assert alarms <= STREAMS


def test_a_shock_is_found_within_thirty_items() -> None:
    chance = random.Random(3)
    found = 0
    for _ in range(STREAMS):
        shock = Shock()
        for bad in drawn(0.12, 300, chance):
            shock.add(bad)
        found += any(shock.add(bad) for bad in drawn(0.65, 30, chance))
    assert found >= 0.95 * STREAMS


def test_an_alarm_is_raised_once_and_again_after_it_was_over() -> None:
    shock = Shock()
    raised = [shock.add(bad) for bad in [False] * 300 + [True] * 40 + [False] * 100 + [True] * 40]
    assert [at for at, alarm in enumerate(raised) if alarm] == [pytest.approx(304, abs=4), pytest.approx(444, abs=4)]


def test_a_shock_does_not_pass_for_the_usual() -> None:
    shock = Shock()
    for _ in range(300):
        shock.add(False)
    before = shock.usual
    for _ in range(LAG + 50):
        shock.add(True)
    assert shock.usual == before


def test_nothing_is_raised_before_the_usual_is_known() -> None:
    shock = Shock()
    assert not any(shock.add(True) for _ in range(WARM_UP - 1))


def test_a_test_goes_on_from_what_was_written_down() -> None:
    chance = random.Random(4)
    stream = drawn(0.12, 200, chance) + drawn(0.65, 60, chance)
    whole, parts = Shock(), Shock()
    for bad in stream:
        alarm = whole.add(bad)
        parts = msgspec.msgpack.decode(msgspec.msgpack.encode(parts), type=Shock)
        assert parts.add(bad) == alarm
    assert parts == whole


@pytest.mark.parametrize("mean", [0.5, 3, 12, 80])
def test_usual_days_raise_few_alarms(mean: float) -> None:
    numbers = np.random.default_rng(5)
    days = [int(count) for count in numbers.poisson(mean, STREAMS * 10)]
    told = [
        unusual(chance(days[at], days[max(0, at - 28) : at])) for at in range(28, len(days)) for chance in (chance_of_more, chance_of_less)
    ]
    assert sum(told) <= max(2, 3 * len(told) / QUIET_DAYS)


def test_a_day_of_three_times_the_news_is_told_and_one_without_any() -> None:
    days = [12, 9, 14, 10, 11, 13, 8, 12, 10, 9]
    assert unusual(chance_of_more(36, days))
    assert unusual(chance_of_less(0, days))
    assert not unusual(chance_of_more(16, days))
    assert not unusual(chance_of_less(6, days))


def test_a_few_days_tell_nothing() -> None:
    assert not unusual(chance_of_more(1_000, [1] * (LEAST_DAYS - 1)))
    assert not unusual(chance_of_less(0, [1_000] * (LEAST_DAYS - 1)))
