"""How much of a busy device goes to those who are less urgent than what it computes. Pure.

A token bucket of seconds. It fills at the share; what they take while nobody more urgent is there, which they may at any time, comes out of
it as well. So an encoder that has something to do now and then has the device at once, one that always has something gets its share and no
more, however often the others pause, and nobody starves, whatever becomes of those it waits for: the bucket fills by the clock.
"""

from typing import Final

_GRAIN: Final = 1e-6
"""Seconds that are none: else who comes back after what `wait` said could find a rounding error left, too short for a clock to pass."""


class Share:
    """Seconds of a device that may be taken: `part` of each, and up to `most` of those not taken before."""

    def __init__(self, part: float, most: float, owed: float, now: float) -> None:
        self.part, self.most, self.owed = part, most, owed
        self._saved, self._at = most, now

    def wait(self, now: float) -> float:
        """Seconds until a piece may begin; 0: now."""
        self._settle(now)
        return 0.0 if self._saved > -_GRAIN else -self._saved / self.part

    def take(self, seconds: float, now: float, *, free: bool = False) -> None:
        """A piece has taken so long; `free`: of a device that nobody more urgent wanted. That makes no larger debt than `owed`."""
        self._settle(now)
        self._saved = max(self._saved - seconds, min(self._saved, -self.owed)) if free else self._saved - seconds

    def _settle(self, now: float) -> None:
        self._saved = min(self.most, self._saved + self.part * (now - self._at))
        self._at = now
