"""Between the calls and the database: jobs and queries that are carried out on other threads and answered in the loop.

The loop never waits for the disk. `change` runs a writing job for a call: its reply leaves when the change is durable, and where the call
carries an idempotency key the reply is stored in the same transaction, so that the call made again, also of the next kernel, is answered
from there and not carried out. `query` answers a call from what was committed; `fetch` hands that to a continuation instead. `write` and
`read` are for the kernel itself.
"""

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from kernos.syscalls.errors import KernosError, LimitError
from kernos.syscalls.process import LimitName
from kernos.syscalls.wire import encode

from .core.quotas import Payers
from .limits import TIDY_S
from .memory import records, uploads
from .memory.connection import Connection
from .memory.database import Database
from .memory.readers import Readers
from .memory.writer import Job, Post, Writer
from .tickets import LATER, Later, Ticket

if TYPE_CHECKING:
    from .system import System

log = logging.getLogger(__name__)

T = TypeVar("T")

Then = Callable[[T | Exception], object]
Charge = tuple[Payers, Mapping[LimitName, int]]
"""Who is to hold how much."""

_NOTHING: Final[Charge] = ((), {})


def _log_failure(outcome: object) -> None:
    if isinstance(outcome, Exception):
        log.warning("something in the background failed (%s); it is tried again later", outcome)


class Disk(Protocol):
    """Carries out jobs and queries elsewhere, each kind in order, and hands results over in the loop."""

    def write(self, job: Job[T], then: Then[T], *, erases: bool = False) -> None:
        """Do a job durably; `erases`: it deletes text. Raises if too many wait, or nothing is written any more."""
        ...

    def read(self, query: Job[T], then: Then[T]) -> None:
        """Run a query on what is committed; raises if too many wait."""
        ...

    def close(self) -> None:
        """Finish what was begun."""
        ...


class DatabaseDisk:
    """The real `Disk`: a thread that writes and a few that read."""

    def __init__(self, database: Database, post: Post) -> None:
        self.database = database
        self._writer = Writer(database, post)
        self._readers = Readers(database, post)

    def write(self, job: Job[T], then: Then[T], *, erases: bool = False) -> None:
        """See `Disk`."""
        self._writer.submit(job, then, erases=erases)

    def read(self, query: Job[T], then: Then[T]) -> None:
        """See `Disk`."""
        self._readers.submit(query, then)

    def close(self) -> None:
        """Finish what was submitted, then close the database: the readers first, so that its log can be emptied."""
        self._readers.close()
        self._writer.close()
        self.database.close()


class Storage:
    """What the kernel does with its database."""

    def __init__(self, system: "System", disk: Disk) -> None:
        self.system = system
        self.pending = 0
        """Jobs and queries under way."""
        self._disk = disk

    @property
    def clock(self) -> float:
        """Seconds since the Unix epoch, as what is stored outlives the kernel's own clock."""
        return self.system.host.clock

    def keep_tidy(self) -> None:
        """Forget, now and every `TIDY_S`, what nobody can ask for any more."""
        now = self.clock

        def tidy(connection: Connection) -> None:
            records.prune(connection, now)
            uploads.expire(connection, now - TIDY_S)

        self.write(tidy, _log_failure, erases=True)
        self.system.host.at(self.system.host.now + TIDY_S, self.keep_tidy)

    def close(self) -> None:
        """Finish what is under way; nobody is told of it any more."""
        self._disk.close()

    # --- for the kernel itself ----------------------------------------------------------------------------------------------------

    def write(self, job: Job[T], then: Then[T], *, erases: bool = False) -> None:
        """Do a job durably, then hand its result or its error over."""
        self._disk.write(job, self._counted(then), erases=erases)
        self.pending += 1

    def read(self, query: Job[T], then: Then[T]) -> None:
        """Run a query, then hand its result or its error over."""
        self._disk.read(query, self._counted(then))
        self.pending += 1

    def tell(self, act: Callable[[], T], then: Then[T] = _log_failure) -> None:
        """Do something in a thread that reads; here, if too much waits for them or the kernel is being stopped. Never refuses."""
        try:
            self.read(lambda _: act(), then)
        except KernosError:
            then(act())

    def _counted(self, then: Then[T]) -> Then[T]:
        def come(outcome: T | Exception) -> None:
            self.pending -= 1
            try:
                then(outcome)
            finally:
                self.system.stop_if_drained()

        return come

    # --- for calls ----------------------------------------------------------------------------------------------------------------

    def query(self, ticket: Ticket, query: Job[T], view: Callable[[T], Any]) -> Later:
        """Answer a call with what a query finds."""
        return self.fetch(ticket, lambda connection: encode(view(query(connection))), ticket.answer)

    def fetch(self, ticket: Ticket, query: Job[T], then: Callable[[T], object]) -> Later:
        """Go on with what a query finds, unless the call was carried out before: then it gets that reply. Errors end the call."""
        request, now = ticket.request, self.clock

        def run(connection: Connection) -> tuple[bytes, None] | tuple[None, T]:
            before = records.reply_to(connection, request, now) if request is not None else None
            return (None, query(connection)) if before is None else (before, None)

        def found(outcome: Any) -> None:
            before, result = outcome
            if before is None:
                then(result)
            else:
                ticket.answer(before)

        self.read(run, ticket.then(found))
        return LATER

    def change(
        self,
        ticket: Ticket,
        job: Job[T],
        view: Callable[[T], Any],
        *,
        charge: Charge = _NOTHING,
        after: Callable[[T], object] | None = None,
        made: Callable[[T], int] | None = None,
        erases: bool = False,
    ) -> Later:
        """Answer a call by a change. `view` makes the reply of what the job returns, in the writer's thread.

        `charge` is taken before and given back if nothing comes of it. `after` gets what the job returned once it is durable, in the
        loop and before the reply leaves, also if the call has ended meanwhile; not if this is a call that was carried out before. `made`
        is for calls whose reply is a context that they have made: its key. It is not stored once more, see `records.once`.
        """
        refusal = self._take(charge)
        request, done = ticket.request, list[T]()
        if refusal is not None and request is None:
            raise refusal

        def run(connection: Connection) -> bytes:
            if refusal is not None:
                raise refusal  # only now: there may be a stored reply, of the very call that used the limit up
            result = job(connection)
            reply = encode(view(result))
            done.append(result)
            return reply

        def come(outcome: bytes | Exception) -> None:
            kept = bool(done) and not isinstance(outcome, Exception)
            try:
                if kept and after is not None:
                    after(done[0])
                if not kept and refusal is None:
                    self._give_back(charge)
            finally:
                ticket.then(ticket.answer)(outcome)

        which = None if made is None else lambda: made(done[0])
        try:
            self.write(run if request is None else records.once(request, run, self.clock, which), come, erases=erases)
        except Exception:
            if refusal is None:
                self._give_back(charge)
            raise
        return LATER

    def settle(self, ticket: Ticket, value: Any) -> Any:
        """Answer a call that has been carried out, when all that was written before is durable. If the disk refuses, it is no less done."""
        try:
            self.write(lambda _: None, lambda _: ticket.reply(value))
        except KernosError:
            return value
        return LATER

    def _take(self, charge: Charge) -> LimitError | None:
        payers, amounts = charge
        try:
            self.system.quotas.take(payers, amounts, self.system.host.now)
        except LimitError as error:
            return error
        return None

    def _give_back(self, charge: Charge) -> None:
        payers, amounts = charge
        if any(amounts.values()):  # books that hold nothing may have been closed meanwhile
            self.system.quotas.give(payers, amounts)
