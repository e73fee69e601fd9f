"""How long the agents of an app stay away between two turns, for a tool or a message: learned, to keep their KV as long. Pure.

A conversation is kept for the time within which most agents came back lately (as in Continuum, 2025, with a quantile of what was seen in
place of a model). An agent that ended without coming back counts as away for ever: where few come back, little is kept.
"""

from collections import deque

from ..limits import KEEP_FIRST_S, KEEP_LEAST_S, KEEP_MARGIN, KEEP_MOST_S, KEEP_QUANTILE, PAUSES


class Gaps:
    """What was seen of one app."""

    def __init__(self) -> None:
        self._seen: deque[float] = deque(maxlen=PAUSES)

    def came_back(self, seconds: float) -> None:
        """An agent has begun its next turn."""
        self._seen.append(seconds)

    def stayed_away(self) -> None:
        """An agent has ended."""
        self._seen.append(float("inf"))

    @property
    def time_to_live(self) -> float:
        """Seconds to keep a conversation whose turn has just ended."""
        if not self._seen:
            return KEEP_FIRST_S
        gap = sorted(self._seen)[int(KEEP_QUANTILE * (len(self._seen) - 1))]
        return KEEP_LEAST_S if gap > KEEP_MOST_S else min(max(KEEP_MARGIN * gap, KEEP_LEAST_S), KEEP_MOST_S)
