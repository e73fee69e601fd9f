"""Restart intensity: whether something that crashed may be started again. One rule for device servers and for apps.

Source: Erlang/OTP supervisors ("more than MaxR restarts within MaxT seconds ends the supervisor").
"""

from collections import deque

from ..limits import RESTART_WINDOW_S, RESTARTS


class RestartIntensity:
    """At most `most` restarts within `window_s` seconds."""

    def __init__(self, most: int = RESTARTS, window_s: float = RESTART_WINDOW_S) -> None:
        self.most = most
        self.window_s = window_s
        self.total = 0
        self._times: deque[float] = deque()

    def may_restart(self, now: float) -> bool:
        """Count a crash, and say whether to start again."""
        while self._times and now - self._times[0] > self.window_s:
            self._times.popleft()
        self._times.append(now)
        self.total += 1
        return len(self._times) <= self.most

    def forgive(self) -> None:
        """Forget the crashes, when an administrator starts the thing again."""
        self._times.clear()
