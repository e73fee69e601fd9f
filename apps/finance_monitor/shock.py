"""Is more of the news bad than usual? A one-sided CUSUM over single items, with a stated rate of false alarms.

Each item is bad or not. What share is bad usually is learned from the items themselves, some way behind the newest, so that a shock does
not pass for the usual while it is being looked for. The score adds up the log-likelihood ratio of "the odds of bad news are four times the
usual" against "as usual" and never falls below zero (Page 1954); at the threshold an alarm is raised. The threshold is the least at which a
quiet stream gives one alarm in `QUIET_ITEMS` items on average, computed on a Markov chain of the score (Brook and Evans 1972). That holds
for each series by itself and for items that do not depend on each other: whoever watches ten series has ten times the false alarms, and one
story told by ten papers counts as ten, so duplicates have to go first.
"""

import math
from functools import cache
from typing import Final

import msgspec
import numpy as np

QUIET_ITEMS: Final = 3_000
"""Items of a quiet stream per false alarm. What is usual is only known from a sample, which costs a factor of up to three: so one in a
thousand holds with it, as measured (`evaluate.py`)."""

ODDS: Final = 4.0
"""The rise in the odds of bad news that is looked for. From 12 % it is one to 35 %; a larger rise is found sooner."""

WARM_UP: Final = 60
"""Items before the first alarm can be raised; before, nobody knows what is usual."""

LAG: Final = 30
"""Items that an item waits for before it counts as usual."""

MEMORY: Final = 1_000
"""Items after which the usual share follows a slow change."""

LEAST, MOST = 0.02, 0.6
"""Where the usual share is looked for: with less than two in a hundred a single bad item would nearly be an alarm."""

_STEPS: Final = 150
"""States of the chain. With four times as many the rates differ by less than a fifth."""


class Shock(msgspec.Struct):
    """The state of the test for one series. It can be written down and goes on from there."""

    bad: float = 0.0
    seen: float = 0.0
    """Items that make up what is usual, and how many of them were bad; both fade with `MEMORY`."""
    waiting: list[bool] = []
    score: float = 0.0
    raised: bool = False
    """From an alarm until the score has fallen by half: it is not raised anew, and nothing is learned. Waiting for zero was tried: after a
    false alarm that took so long that 4 % of the shocks came meanwhile and were not told."""

    def add(self, bad: bool) -> bool:
        """Take the next item; whether it raises an alarm."""
        if not self.raised:
            self._learn(bad)
        if self.seen + len(self.waiting) < WARM_UP:
            return False
        threshold = threshold_for(round(self.usual, 2))
        self.score = min(threshold, max(0.0, self.score + gains(self.usual)[bad]))
        if self.raised:
            self.raised = self.score > threshold / 2
            return False
        self.raised = self.score >= threshold
        return self.raised

    @property
    def usual(self) -> float:
        """The share of bad items that is usual: as counted, with ten items at the 12 % of ordinary news before anything is known."""
        return min(MOST, max(LEAST, (self.bad + 1.2) / (self.seen + 10)))

    def _learn(self, bad: bool) -> None:
        self.waiting.append(bad)
        if len(self.waiting) > LAG:
            fade = 1 - 1 / MEMORY
            self.bad = self.bad * fade + self.waiting.pop(0)
            self.seen = self.seen * fade + 1


@cache
def threshold_for(usual: float) -> float:
    """The least score at which a quiet stream gives at most one alarm in `QUIET_ITEMS` items on average."""
    low, high = 2.0, 9.0
    while high - low > 0.05:
        middle = (low + high) / 2
        low, high = (low, middle) if items_to_alarm(max(usual, LEAST), middle) >= QUIET_ITEMS else (middle, high)
    return high


def items_to_alarm(share: float, threshold: float) -> float:
    """Items until an alarm, on average, where `share` of them is bad and that is the usual."""
    better, worse = gains(share)
    states = np.arange(_STEPS) * (threshold / _STEPS)
    move = np.zeros((_STEPS, _STEPS))
    for gain, chance in ((worse, share), (better, 1 - share)):
        reached = np.rint((states + gain) / (threshold / _STEPS)).astype(int)
        inside = reached < _STEPS  # what is beyond has raised the alarm
        np.add.at(move, (np.flatnonzero(inside), np.maximum(0, reached[inside])), chance)
    return float(np.linalg.solve(np.eye(_STEPS) - move, np.ones(_STEPS))[0])


def gains(usual: float) -> tuple[float, float]:
    """What an item that is not bad, and one that is, adds to the score: log-likelihood ratios."""
    odds = usual / (1 - usual) * ODDS
    shocked = odds / (1 + odds)
    return math.log((1 - shocked) / (1 - usual)), math.log(shocked / usual)
