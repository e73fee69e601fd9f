"""Agents as they outlive the kernel: their rows in the database, and what principals have used.

What somebody was told is durable. A spawn is answered when its row is, so that a program can go on as its agent whatever became of the
kernel; so is an end. A disk that refuses a change of a row makes it no less done, as one must be able to kill on a full disk: it is tried
again. Counters and token buckets follow behind, as nobody is told of each; the first change after a rest is written at once, and then at
most every `COUNT_S`.

After a restart an agent goes on if its program does. Others wait for `ORPHAN_S`: a successor of the same principal can call as them.
"""

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from kernos.syscalls.errors import KernosError
from kernos.syscalls.process import Priority

from .core import scheduler
from .core.processes import Life, Process, Rights
from .host import Client
from .limits import COUNT_S, COUNTED, ORPHAN_S
from .memory import mail, records
from .memory.connection import Connection
from .memory.writer import Job

if TYPE_CHECKING:
    from .system import System

log = logging.getLogger(__name__)

_NOBODY, _LAST = "", "last"
"""The fact that holds the last pid given: pids are not used again, also not by the next kernel."""

_TOKENS = "tokens_per_minute"

_RETRY_S = 10.0
"""When what the disk refused is tried again."""


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """A row of the process table as it is kept; `born` is in seconds since the Unix epoch, the rest as in `Process` and `Account`."""

    name: str
    user: str | None
    parent: int
    priority: Priority
    born: float
    os_pid: int
    start_time: int
    rights: tuple[Rights, ...] = ()
    labels: dict[str, str] = {}
    life: Life = Life.ALIVE
    calls: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    code: int | None = None
    reason: str = ""
    weight: float = 1.0
    service: float = 0.0


class Bucket(msgspec.Struct, frozen=True, array_like=True):
    """A token bucket as it is kept; see `Quotas.bucket`. `time` is in seconds since the Unix epoch."""

    rate: int
    level: int
    time: float


class Agents:
    """Between the process table and the database."""

    def __init__(self, system: "System") -> None:
        self.system = system
        self.orphans: set[int] = set()
        """Agents of a kernel before this one whose programs are gone, or unknown."""
        self.mailed: set[int] = set()
        """Agents that were sent mail: their boxes are emptied when they end."""
        self._changed: dict[int, Process] = {}
        self._counted: dict[int, Process] = {}
        self._due = False
        self._next = float("-inf")
        """When the next writing may be."""

    def rank(self, agent: Process) -> int:
        """How urgent is what an agent asks for now: its class, or `batch` while one of its payers asks for tokens faster than its rate.

        Whoever keeps to his rate goes first then, whatever his class, so that a flood moves nobody but the app it comes from.
        """
        ahead = self.system.quotas.ahead(agent.payers, self.system.host.now)
        return scheduler.RANK["batch" if ahead else agent.priority]

    # --- taking over --------------------------------------------------------------------------------------------------------------

    def load(self, connection: Connection) -> None:
        """Take over what the last kernel kept."""
        host, table = self.system.host, self.system.processes
        rows = []
        for principal, name, value in records.facts(connection, "process"):
            if name == _LAST:
                table.last_pid = int(value)
            else:
                rows.append((int(name), principal, msgspec.msgpack.decode(value, type=Row)))
        for pid, principal, row in sorted(rows, key=lambda found: found[0]):
            self._take_over(pid, principal, row)
        self.mailed = {int(name.removeprefix("agent/")) for name, _ in mail.boxes(connection) if name.startswith("agent/")}
        for principal, name, value in records.facts(connection, "usage"):
            if name == _TOKENS:
                bucket = msgspec.msgpack.decode(value, type=Bucket)
                age = max(0.0, host.clock - bucket.time)
                self.system.quotas.restore(principal, bucket.rate, bucket.level, host.now, age)
        if self.orphans:
            host.at(host.now + ORPHAN_S, self._end_orphans)

    def _take_over(self, pid: int, principal: str, row: Row) -> None:
        host, quotas = self.system.host, self.system.quotas
        process = Process(
            pid,
            row.name,
            principal,
            row.user,
            row.parent,
            row.priority,
            host.now - max(0.0, host.clock - row.born),
            row.os_pid,
            row.start_time,
            "",
            row.rights,
            row.labels,
            row.life,
            row.calls,
            row.prompt_tokens,
            row.generated_tokens,
            row.code,
            row.reason,
        )
        process.tell(host.now, "taken over from the kernel before")
        self.system.processes.add(process)
        if row.life is Life.EXITED:
            return
        quotas.hold(process.payers, {"processes": 1}, host.now)
        self.system.scheduler.restore(pid, row.weight, row.service)
        if row.life is Life.STOPPED:
            self.system.scheduler.handle(scheduler.Held(pid), host.now)
        if not host.watch_program(row.os_pid, row.start_time):
            self.orphans.add(pid)

    def adopt(self, process: Process, client: Client) -> None:
        """A client calls as an agent of the kernel before, which stands by its key from now on; one without a program also lives there."""
        process.badge = client.badge
        if process.pid in self.orphans:
            self.orphans.discard(process.pid)
            process.os_pid, process.start_time = client.os_pid, client.start_time
            process.tell(self.system.host.now, f"adopted by process {client.os_pid}")
            self.changed(process)

    def _end_orphans(self) -> None:
        for pid in sorted(self.orphans):
            process = self.system.processes.rows.get(pid)
            if process is not None:
                self.system.end_agent(process, -1, "its program did not come back after a restart of the kernel")
        self.orphans.clear()

    # --- writing down -------------------------------------------------------------------------------------------------------------

    def first_row(self, process: Process) -> Job[None]:
        """The job that writes a new agent down."""
        row = self._row(process)

        def job(connection: Connection) -> None:
            records.remember(connection, "process", process.principal, str(process.pid), row)
            records.remember(connection, "process", _NOBODY, _LAST, str(process.pid).encode())

        return job

    def begin(self, process: Process) -> None:
        """The row of a new agent is durable: it lives, unless its program has ended meanwhile."""
        self.system.processes.add(process)
        process.tell(self.system.host.now, f"spawned as {process.name} by {process.principal}")
        if process.os_pid and not self.system.host.watch_program(process.os_pid, process.start_time):
            self.system.end_agent(process, -1, "its program has ended")

    def tainted(self, process: Process) -> None:
        """What an agent carries is written down at once: its program may live on when the kernel does not."""
        row = self._row(process)

        def done(outcome: Exception | None) -> None:
            if isinstance(outcome, Exception):
                self.changed(process)

        def job(connection: Connection) -> None:
            records.remember(connection, "process", process.principal, str(process.pid), row)

        try:
            self.system.storage.write(job, done)
        except KernosError as error:
            done(error)

    def changed(self, process: Process) -> None:
        """A row is to be written down anew, or removed if it was collected."""
        self._changed[process.pid] = process
        self._schedule()

    def count(self, process: Process) -> None:
        """The counters of an agent have moved."""
        self._counted[process.pid] = process
        self._schedule()

    def flush(self) -> None:
        """Write down what has changed; all changed rows, and as many counters as are quick."""
        self._due, self._next = False, self.system.host.now + COUNT_S
        poured = self.system.quotas.poured
        payers = {poured.pop() for _ in range(min(COUNTED, len(poured)))}
        rows = self._changed | {pid: self._counted.pop(pid) for pid in list(self._counted)[:COUNTED]}
        self._changed = {}
        emptied = [pid for pid in self.mailed.intersection(rows) if rows[pid].code is not None]

        def done(outcome: Exception | None) -> None:
            if isinstance(outcome, Exception):
                log.warning("the process table was not written down (%s); it is tried again", outcome)
                self._next = self.system.host.now + _RETRY_S
                self._changed = rows | self._changed
                poured.update(payers)
            else:
                self.mailed.difference_update(emptied)
            if self._changed or self._counted or poured:
                self._schedule()

        if rows or payers:
            try:
                self.system.storage.write(self._job(rows.values(), emptied, payers), done, erases=bool(emptied))
            except KernosError as error:
                done(error)

    def _schedule(self) -> None:
        if not self._due:
            self._due = True
            self.system.host.at(max(self.system.host.now, self._next), self.flush)

    def _job(self, processes: Iterable[Process], emptied: Iterable[int], payers: Iterable[str]) -> Job[None]:
        """Snapshots of rows and buckets, and how to write them."""
        host, clock = self.system.host, self.system.host.clock
        rows = [(process.principal, str(process.pid), None if process.life is Life.GONE else self._row(process)) for process in processes]
        buckets = [(payer, self.system.quotas.bucket(payer, host.now)) for payer in payers]

        def job(connection: Connection) -> None:
            for principal, name, row in rows:
                _write(connection, "process", principal, name, row)
            for pid in emptied:
                mail.clear(connection, f"agent/{pid}")
            for payer, bucket in buckets:
                value = None if bucket is None else msgspec.msgpack.encode(Bucket(*bucket, clock))
                _write(connection, "usage", payer, _TOKENS, value)

        return job

    def _row(self, process: Process) -> bytes:
        host = self.system.host
        account = self.system.scheduler.accounts.get(process.pid)
        return msgspec.msgpack.encode(
            Row(
                process.name,
                process.user,
                process.parent,
                process.priority,
                host.clock - (host.now - process.born),
                process.os_pid,
                process.start_time,
                process.rights,
                process.labels,
                process.life,
                process.calls,
                process.prompt_tokens,
                process.generated_tokens,
                process.code,
                process.reason,
                account.weight if account is not None else 1.0,
                account.service if account is not None else 0.0,
            )
        )


def _write(connection: Connection, kind: records.FactKind, principal: str, name: str, value: Any) -> None:
    if value is None:
        records.forget(connection, kind, principal, name)
    else:
        records.remember(connection, kind, principal, name, value)
