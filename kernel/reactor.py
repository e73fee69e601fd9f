"""Descriptors, timers, results of threads and ends of processes: everything the loop waits for but the sockets' own messages."""

import heapq
import itertools
import logging
import os
import select
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")

Act = Callable[[], object]

THREADS = 2
"""Threads for slow work: one long text must not hold up the next, and there are few cores."""


class Timer:
    """An entry of the timer heap."""

    __slots__ = ("act",)

    def __init__(self, act: Act) -> None:
        self.act: Act | None = act

    def cancel(self) -> None:
        """Let it not happen."""
        self.act = None


class Reactor:
    """Waits with epoll, and calls what was registered. Everything runs in the thread that calls `turn`, but the work of `offload`."""

    def __init__(self) -> None:
        self.now = time.monotonic()
        self._epoll = select.epoll()
        self._acts: dict[int, Act] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._threads = ThreadPoolExecutor(THREADS, "kernos-worker")
        self._results: deque[Act] = deque()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.watch(self._wake, self._take_results)

    def turn(self, *, wait: bool) -> None:
        """Call what is ready; with `wait`, first wait until something is."""
        ready = self._epoll.poll(self._patience() if wait else 0)
        self.now = time.monotonic()
        for fd, _ in ready:
            if fd in self._acts:  # an act before may have closed it
                guarded(self._acts[fd])
        while self._timers and self._timers[0][0] <= self.now:
            act = heapq.heappop(self._timers)[2].act
            if act is not None:
                guarded(act)

    def wake(self) -> None:
        """End a wait; safe in a thread and in a signal handler."""
        os.eventfd_write(self._wake, 1)

    def watch(self, fd: int, act: Act) -> None:
        """Call `act` whenever a descriptor can be read."""
        self._acts[fd] = act
        self._epoll.register(fd, select.EPOLLIN)

    def watch_process(self, os_pid: int, act: Act) -> None:
        """Call `act` once, when a process has ended. A pidfd cannot be fooled by a pid that is used again."""
        try:
            fd = os.pidfd_open(os_pid)
        except ProcessLookupError:
            self.at(self.now, act)
            return
        except OSError as error:  # no descriptors left: its end will go unnoticed until something is sent to it
            log.warning("process %d cannot be watched: %s", os_pid, error)
            return

        def ended() -> None:
            self._epoll.unregister(fd)
            del self._acts[fd]
            os.close(fd)
            act()

        self.watch(fd, ended)

    def at(self, when: float, act: Act) -> Timer:
        """Call `act` when the clock has reached `when`."""
        timer = Timer(act)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    def offload(self, work: Callable[[], T], then: Callable[[T | Exception], object]) -> None:
        """Do slow work on a thread, then hand its result or its error back here."""

        def run() -> None:
            try:
                result: T | Exception = work()
            except Exception as error:
                result = error
            self.post(lambda: then(result))

        self._threads.submit(run)

    def post(self, act: Act) -> None:
        """Call `act` in the loop, after what was posted before; safe in any thread."""
        self._results.append(act)
        self.wake()

    def close(self) -> None:
        """Free what is held; work not yet begun is left."""
        self._threads.shutdown(cancel_futures=True)
        self._epoll.close()
        os.close(self._wake)

    def _patience(self) -> float:
        """Seconds until the next timer; -1, which is for ever, if there is none."""
        while self._timers and self._timers[0][2].act is None:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else -1

    def _take_results(self) -> None:
        os.eventfd_read(self._wake)
        while self._results:
            guarded(self._results.popleft())


def guarded(act: Act) -> None:
    """Call something whose failure must not end the kernel: it is a defect, and the log has it."""
    try:
        act()
    except Exception:
        log.exception("a defect; the kernel goes on")
