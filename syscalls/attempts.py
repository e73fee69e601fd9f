"""When a call is made again: what both clients do about a kernel that died or is being stopped. No sockets.

A call that was in flight is made again by itself: one that mutates with the idempotency key that it carries from the start, so that it is
applied once whatever became of the first; others simply so. It is not made again if its effect lies outside the kernel (`Row.outside`), if
its caller wants it so (`retry=False`), when its deadline has passed, when no kernel came back for `RECONNECT_S`, or when it was in flight
at the death of so many kernels that it may be the cause.
"""

import secrets
from time import monotonic
from typing import Any, Final

from .call import Call
from .errors import KernelRestartedError, KernosError, StoppingError
from .requests import Request, make_request, row_of, timeout_of

RECONNECT_S: Final = 30.0
"""How long a kernel that went away is waited for: one starts in about a second, but an administrator may have to start it."""

DEATHS: Final = 4
"""How many kernels may die under one call before it is believed to be why."""

STEADY_S: Final = 10.0
"""A call that was in flight for so long is not what its kernel died of."""

FIRST_PAUSE_S: Final = 0.02
"""Pause before a kernel is looked for again; it doubles each time."""

LONGEST_PAUSE_S: Final = 0.5
"""So many programs may wait for one kernel."""

LOST: Final = (KernelRestartedError, StoppingError)
"""What says that a kernel went away under a call."""


class Attempts:
    """A call, from when its caller makes it until it has an outcome."""

    __slots__ = ("_call", "_deaths", "_failing", "_made", "_pid", "_retry", "_stream", "_timeout", "_until", "key", "row")

    def __init__(self, call: Call[Any], pid: int, *, stream: bool, timeout: float | None, key: str | None, retry: bool) -> None:
        self.row = row_of(call)
        self.key = key if key is not None or not self.row.mutates else secrets.token_urlsafe(12)
        self._call = call
        self._pid = pid
        self._stream = stream
        self._timeout = timeout_of(self.row, timeout)
        self._retry = retry
        self._made = monotonic()
        self._until = None if self._timeout is None else self._made + self._timeout
        self._failing: float | None = None
        self._deaths = 0

    @property
    def connect_until(self) -> float:
        """Until when a kernel may be waited for, by `monotonic`."""
        if not self._retry:
            return float("-inf")
        latest = (monotonic() if self._failing is None else self._failing) + RECONNECT_S
        return latest if self._until is None else min(latest, self._until)

    def request(self, id_: int) -> Request:
        """The next attempt, with what is left of the time."""
        timeout = self._timeout
        if self._failing is not None and self._until is not None:
            timeout = max(0.001, self._until - monotonic())
        self._made = monotonic()
        return make_request(self._call, id_, self._pid, self._stream, timeout, self.key)

    def again(self, error: KernosError) -> float:
        """Seconds to wait before the next attempt; raises the error if there is none."""
        now = monotonic()
        if self._failing is None or now - self._made > STEADY_S:
            self._failing, self._deaths = now, 0
        self._deaths += isinstance(error, KernelRestartedError)
        if not self._retry or self.row.outside or self._deaths >= DEATHS or now > self.connect_until:
            raise error
        return 0.0 if isinstance(error, KernelRestartedError) else LONGEST_PAUSE_S


def pause_after(tries: int) -> float:
    """Seconds before a kernel is looked for again."""
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(tries, 10))
