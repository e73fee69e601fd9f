"""How much of prompts a step takes, so that it stays short whatever the device, how much is guessed, and how often a step is given up.

What a prompt token costs beside rows that decode differs by more than ten times: in bfloat16 with instructions for it 48 of them make a
step of 8 rows 1.4 times as long, in float32 without 3.3 times. So it is learned from the steps themselves.
"""

from typing import Final

_BESIDE: Final = (1.0, 0.1)
"""A step that computes prompts beside rows may take so many times longer than one without, or so many seconds: what those rows notice. Half
as much was tried where prompt tokens are dear: prompts then took so long that few rows decoded together, and all were served later. The
seconds are for short steps: ten tokens a second are more than anybody reads. With steps of 10 ms and the first alone, 32 turns that came
together took half as long again, as the first had been answered when the last had been read; with 50 ms a tenth longer than with 100."""
_BEHIND: Final = (0.25, 0.0125)
"""The same for prompts less urgent than some of those rows. It is also what texts wait for that are embedded beside them."""
_ALONE: Final = (4.0, 0.3)
"""A step that computes prompts only may take so many times one that decodes, or so many seconds: shorter ones would read the weights too
often."""

LEAST: Final = 16
"""Prompt tokens of a step at the least, and until anything is known: fewer would hardly get anywhere."""
LEAST_BEHIND: Final = 8
"""The same for prompts less urgent than rows beside them. Where prompt tokens are dear, 16 made a step two thirds longer."""
MOST: Final = 512
"""At the most. Each step reads all weights: 128, 192, 256, 400 and 800 tokens reached 97, 100, 104, 109 and 115 % of the throughput while
others used the memory, too, and the same while they did not."""
START: Final = 192
"""In a step of prompts only, until anything is known: on a slow processor, half a second."""
_GRAIN: Final = 8

_WASTE: Final = 0.1
"""Share of the time that may be lost in steps that are given up for more urgent newcomers; so nobody starves, however many come."""
_WASTE_MOST: Final = 1.0
"""Seconds that may be saved up of it."""

_DOWN, _UP = 0.3, 0.03
"""How fast estimates follow: quickly down and slowly up, as whatever else runs on the machine only ever makes a step longer."""


class Pace:
    """Learns from steps, and says how many prompt tokens the next may take."""

    def __init__(self) -> None:
        self._decoding: dict[int, float] = {}
        """Seconds of a step without prompts, by its tokens."""
        self._token = 0.0
        """Seconds of a prompt token in a step; 0: not known."""
        self._credit = 0.0
        """Seconds that steps to be given up may take together."""

    def learn(self, rows: int, tokens: int, seconds: float) -> None:
        """A step of so many decoding rows, or tokens of them where there are guesses, and prompt tokens took so long."""
        self._credit = min(_WASTE_MOST, self._credit + _WASTE * seconds)
        if not tokens:
            self._decoding[rows] = _follow(self._decoding.get(rows, 0.0), seconds)
        elif self._decoding and tokens >= LEAST:
            self._token = _follow(self._token, max(seconds - self._step(rows), 0.0) / tokens)

    def beside(self, rows: int, *, behind: bool = False) -> int:
        """Prompt tokens beside so many rows; `behind`: of prompts that are less urgent than some of them."""
        limit, least = (_BEHIND, LEAST_BEHIND) if behind else (_BESIDE, LEAST)
        return self._fitting(limit, rows, LEAST, least)

    def alone(self) -> int:
        """Prompt tokens in a step without decoding rows."""
        return self._fitting(_ALONE, max(self._decoding, default=0), START)

    def guesses(self, rows: int, likely: float, most: int) -> int:
        """How many guesses to compute for one of so many rows, each right that likely if those before it are: what gives most in a second.

        The time of a number of tokens that was never computed is that of the nearest one: so it is tried.
        """

        def rate(count: int) -> float:
            return (rows + sum(likely**number for number in range(1, count + 1))) / self._step(rows + count)

        return max(range(most + 1), key=rate) if self._decoding else 0

    def can_waste(self, seconds: float) -> bool:
        """Whether a step that has taken so long already may be given up."""
        return seconds <= self._credit

    def waste(self, seconds: float) -> None:
        """A step was given up after so long."""
        self._credit -= seconds

    def _fitting(self, limit: tuple[float, float], rows: int, unknown: int, least: int = LEAST) -> int:
        """Prompt tokens whose time is within a limit for so many rows."""
        (times, seconds), step = limit, self._step(rows)
        if not step or not self._token:
            return unknown
        return min(MOST, max(least, int(max(times * step, seconds) / self._token) // _GRAIN * _GRAIN))

    def _step(self, rows: int) -> float:
        """Seconds of a step without prompts of about so many rows, or tokens of them; 0: not known."""
        known = min(self._decoding, key=lambda known: abs(known - rows), default=None)
        return 0.0 if known is None else self._decoding[known]


def _follow(estimate: float, seen: float) -> float:
    return estimate + (_DOWN if seen < estimate else _UP) * (seen - estimate) if estimate else seen
