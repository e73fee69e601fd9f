"""A few threads that read, so that the kernel's loop never waits for the disk. They see what was committed when their query began.

A change is acknowledged when it is committed: whoever was told of it reads it.
"""

import logging
import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

from kernos.syscalls.errors import BusyError, StoppingError

from ..limits import READERS, READS
from .connection import Connection
from .database import Database
from .failures import damaged, typed
from .writer import Job, Post

log = logging.getLogger(__name__)

T = TypeVar("T")


class Readers:
    """Takes queries; each has a consistent view, however many statements it makes."""

    def __init__(self, database: Database, post: Post) -> None:
        self._database = database
        self._post = post
        self._queue: SimpleQueue[tuple[Job[Any], Callable[[Any], object]] | None] = SimpleQueue()
        self._closed = False
        names = [f"kernos-reader-{number}" for number in range(READERS)]
        self._threads = [threading.Thread(target=self._work, args=(database.reader(),), name=name, daemon=True) for name in names]
        for thread in self._threads:
            thread.start()

    def submit(self, query: Job[T], then: Callable[[T | Exception], object]) -> None:
        """Run a query and hand its result or its error to `then`, through `post`; `BusyError` if too many wait."""
        if self._closed:
            raise StoppingError("The kernel is being stopped and reads nothing more.", retry_after=5.0)
        if self._queue.qsize() >= READS:
            raise BusyError(f"{READS} queries wait for the disk. Try again when it has caught up.", retry_after=0.5)
        self._queue.put((query, then))

    def close(self) -> None:
        """Finish what was submitted, and end the threads and their connections."""
        self._closed = True
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self, connection: Connection) -> None:
        while (waiting := self._queue.get()) is not None:
            query, then = waiting
            try:
                outcome = _view(connection, query)
            except Exception as error:
                outcome = typed(error) or error
                if outcome is not error:
                    log.error("a query failed: %s (%s)", outcome, error)  # noqa: TRY400  (the cause is the disk)
                if damaged(error):
                    connection.close()
                    connection = self._database.reader()
            self._post(partial(then, outcome))
        connection.close()


def _view(connection: Connection, query: Job[T]) -> T:
    connection.execute("BEGIN")
    try:
        return query(connection)
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
