"""Is there more, or less, news than usual? A test of one day's count against the days before, with a stated rate of false alarms.

Counts of news vary more than chance alone would have it (a Poisson count would vary by its mean), so the count of a day is taken to be
negative binomial with the mean of the days before and their variance, or that of a Poisson count if it is larger; the doubt about a mean
known from few days is added. An alarm is a count that a usual day reaches with a chance of less than one in `QUIET_DAYS`, at either end.
"""

import math
from collections.abc import Sequence
from typing import Final

from scipy.special import betainc

QUIET_DAYS: Final = 1_000
"""Days of a usual series per false alarm at each end."""

DAYS: Final = 28
"""Days before that make up what is usual."""

LEAST_DAYS: Final = 7
"""Days that have to be known."""


def chance_of_more(count: int, before: Sequence[int]) -> float:
    """The chance that a usual day has this many or more; 1 as long as too few days are known."""
    if len(before) < LEAST_DAYS or count <= 0:
        return 1.0
    size, chance = _usual(before)
    return float(betainc(count, size, 1 - chance))


def chance_of_less(count: int, before: Sequence[int]) -> float:
    """The chance that a usual day has this many or fewer."""
    if len(before) < LEAST_DAYS:
        return 1.0
    size, chance = _usual(before)
    return float(betainc(size, count + 1, chance))


def unusual(chance: float) -> bool:
    """Whether a chance is so small that it is told."""
    return chance < 1 / QUIET_DAYS


def _usual(before: Sequence[int]) -> tuple[float, float]:
    """The parameters of the negative binomial, as (size, chance)."""
    last = before[-DAYS:]
    mean = (sum(last) + 0.5) / len(last)
    scatter = sum((count - mean) ** 2 for count in last) / (len(last) - 1)
    variance = max(scatter, mean * (1 + 1 / math.sqrt(len(last)))) * (1 + 1 / len(last))
    return mean**2 / (variance - mean), mean / variance
