"""Work beside the steps: one thread, jobs in the order they were given, results taken in by the thread that gave them."""

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable

from .messages import Copied, Failed

Report = Copied | Failed
Finish = Callable[[Exception | None, float], Report]


class Background:
    """The thread. It starts with the first job and dies with the process, whatever is left to do."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[Callable[[], None], Finish | None]] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[Finish, Exception | None, float]] = queue.SimpleQueue()
        self._signal = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread: threading.Thread | None = None

    def __del__(self) -> None:
        if self._thread is None:  # else the thread may still write to it, and the process ends soon
            os.close(self._signal)

    def fileno(self) -> int:
        """Readable when `collect` has something to give."""
        return self._signal

    def submit(self, work: Callable[[], None], finish: Finish | None = None) -> None:
        """Run `work` on the thread; `finish` then makes a report of its error and its seconds, within `collect`."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="pages", daemon=True)
            self._thread.start()
        self._jobs.put((work, finish))

    def collect(self) -> list[Report]:
        """The reports of all jobs done since the last call. Never waits."""
        if self._thread is None:
            return []
        with contextlib.suppress(BlockingIOError):  # cleared first: what is done from now on signals anew
            os.eventfd_read(self._signal)
        reports = []
        with contextlib.suppress(queue.Empty):
            while True:
                finish, error, seconds = self._done.get_nowait()
                reports.append(finish(error, seconds))
        return reports

    def _run(self) -> None:
        while True:
            work, finish = self._jobs.get()
            began, error = time.perf_counter(), None
            try:
                work()
            except Exception as failure:  # it belongs to the one who asked
                error = failure
            if finish is not None:
                self._done.put((finish, error, time.perf_counter() - began))
                os.eventfd_write(self._signal, 1)
