"""The one thread that writes. Jobs that wait together are committed together, with one wait for the disk, and answered after that.

Each job runs in a savepoint: what it raises undoes it alone. Where the disk is full or cannot be read, every job of the group gets the
same typed error, nothing of them is kept, and the next group is tried anew. Where a commit fails otherwise nobody knows what is on the
disk, and nothing is written any more (see `failures.lasting`).
"""

import logging
import threading
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar

from kernos.syscalls.errors import BusyError, KernosError, StoppingError, StorageError

from ..limits import LOG_PAGES, LOG_PAGES_MOST, WRITE_GROUP, WRITES
from .connection import Connection, driver
from .database import Database
from .failures import damaged, lasting, typed

log = logging.getLogger(__name__)

T = TypeVar("T")

Job = Callable[[Connection], T]
"""Something to do with a connection, in a transaction that others make and end."""

Post = Callable[[Callable[[], object]], object]
"""How a result gets back to who asked: it runs a call in the kernel's loop, and may be called in any thread."""

_RETRY_S: Final = 0.05
"""How soon the log is looked at again after a reader stood in the way of emptying it."""


class Writer:
    """Takes jobs; made with the database, whose writing connection is its own from then on."""

    def __init__(self, database: Database, post: Post) -> None:
        self._database = database
        self._post = post
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._refusal: KernosError | None = None
        self._erasing = False
        self._thread = threading.Thread(target=self._work, name="kernos-writer", daemon=True)
        self._thread.start()

    def submit(self, job: Job[T], then: Callable[[T | Exception], object], *, erases: bool = False) -> None:
        """Do a job and hand its result or its error to `then`, through `post`; a result means that it is durable.

        `erases` says that it deletes text: the log, which still holds it, is emptied soon after. Raises `BusyError` if too many jobs wait
        and `StorageError` if nothing is written any more.
        """
        if self._refusal is not None:
            raise self._refusal
        if self._queue.qsize() >= WRITES:
            raise BusyError(f"{WRITES} changes wait for the disk. Try again when it has caught up.", retry_after=0.5)
        self._queue.put(_Waiting(job, then, erases))

    def close(self) -> None:
        """Finish what was submitted, and end the thread; the database stays open."""
        self._refusal = self._refusal or StoppingError("The kernel is being stopped and writes nothing more.", retry_after=5.0)
        self._queue.put(None)
        self._thread.join()

    # --- the thread ---------------------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        going = True
        while going:
            group, going = self._gather()
            if group:
                self._carry_out(group)
            if not self._database.failed:
                self._tidy()

    def _gather(self) -> "tuple[list[_Waiting], bool]":
        """The jobs that wait, at least one unless the log must be looked at; and whether there will be more."""
        group: list[_Waiting] = []
        try:
            waiting = self._queue.get(timeout=_RETRY_S if self._erasing else None)
            while waiting is not None:
                group.append(waiting)
                if len(group) == WRITE_GROUP:
                    return group, True
                waiting = self._queue.get_nowait()
        except Empty:
            return group, True
        return group, False

    def _carry_out(self, group: "list[_Waiting]") -> None:
        try:
            outcomes = self._run_all(group)
        except Exception as error:
            outcomes = [self._undone(error)] * len(group)
        for waiting, outcome in zip(group, outcomes, strict=True):
            self._post(partial(waiting.then, outcome))

    def _run_all(self, group: "list[_Waiting]") -> list[Any]:
        if self._refusal is not None and self._database.failed:
            raise self._refusal
        connection = self._database.connection
        connection.execute("BEGIN IMMEDIATE")
        before = connection.total_changes
        outcomes = [self._run(connection, waiting.job) for waiting in group]
        if connection.total_changes == before:
            connection.execute("ROLLBACK")  # nothing to make durable: no wait for the disk
            return outcomes
        try:
            self._database.commit()
        except (OSError, driver.Error) as error:
            if lasting(error):
                raise self._stopped(error) from error
            raise
        self._erasing = self._erasing or any(waiting.erases for waiting in group)
        return outcomes

    def _run(self, connection: Connection, job: Job[Any]) -> Any:
        connection.execute("SAVEPOINT job")
        try:
            result = job(connection)
        except Exception as error:
            if isinstance(error, driver.Error) and typed(error) is not None:
                raise  # the disk, not the job: SQLite may have ended the transaction already
            connection.execute("ROLLBACK TO job")
            result = error
        connection.execute("RELEASE job")
        return result

    def _undone(self, error: Exception) -> Exception:
        """Make sure that nothing of a group is kept; what to tell those who wait for it."""
        try:
            if self._database.connection.in_transaction:
                self._database.connection.execute("ROLLBACK")
            if damaged(error):
                self._database.reconnect()
        except driver.Error as worse:
            return self._stopped(worse)
        known = error if isinstance(error, KernosError) else typed(error)
        if known is None:
            log.error("a defect: a group of changes failed", exc_info=error)
            return error
        log.error("nothing was written: %s (%s)", known, error)
        return known

    def _stopped(self, error: Exception) -> KernosError:
        """Write nothing from now on; what to tell everybody."""
        self._database.failed = True
        self._refusal = StorageError(
            "The disk failed to make a change durable, so that nobody knows what it holds: this change may be there after a restart or "
            "not. The kernel writes nothing more until it is restarted.",
            reason=str(error),
        )
        log.critical("the database cannot be made durable (%s): nothing is written any more; restart the kernel", error)
        return self._refusal

    # --- the log ------------------------------------------------------------------------------------------------------------------

    def _tidy(self) -> None:
        """Empty the log if it holds what was erased; copy it when there is time, or when it has grown long."""
        try:
            if self._erasing:
                self._erasing = not self._database.checkpoint(truncate=True)
                return
            pages, copied = self._database.log_pages()
            if pages > copied and pages >= (LOG_PAGES if self._queue.empty() else LOG_PAGES_MOST):
                self._database.checkpoint()
        except (OSError, driver.Error) as error:
            if lasting(error):
                self._stopped(error)
            else:
                log.warning("the log of the database was not copied (%s); it is tried again after the next change", error)
                self._erasing = False


class _Waiting:
    """A job, whom to tell, and whether it erases."""

    __slots__ = ("erases", "job", "then")

    def __init__(self, job: Job[Any], then: Callable[[Any], object], erases: bool) -> None:
        self.job = job
        self.then = then
        self.erases = erases
