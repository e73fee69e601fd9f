"""The audit log as the rest of the kernel sees it: what is noted is written a moment later, and a call never waits for it.

Entries gather for a few milliseconds and are written together on another thread; a few times a second they are made durable and the
database is told how far the log goes (see `ledger.py`). So a `kill -9` loses at most the decisions of those milliseconds, and a loss of
power those since the database was told. While the log cannot be written, calls that change something are refused, but for those of the
control socket: who could not be watched shall not act.
"""

import errno
import hmac
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from kernos.syscalls.audit import Entry
from kernos.syscalls.errors import DeniedError, KernosError, NotYoursError, StorageError, StorageFullError
from kernos.syscalls.table import Row

from ..limits import AUDIT_ANCHOR_S, AUDIT_FILE_BYTES, AUDIT_FILES, AUDIT_GROUP_S, AUDIT_RETRY_S, AUDIT_WAITING
from ..memory import records
from ..memory.connection import Connection
from .ledger import Anchor, Ledger, take_up

if TYPE_CHECKING:
    from ..core.processes import Process
    from ..host import Client
    from ..system import System
    from ..tickets import Ticket

log = logging.getLogger(__name__)

FOLDER: Final = "audit"
"""Under the state folder."""

_anchor_decoder = msgspec.msgpack.Decoder(Anchor)


def audit_key(storage_key: bytes) -> bytes:
    """The key of the seals: derived, so that there is no further secret to keep, and whoever restores a backup can verify."""
    return hmac.digest(storage_key, b"kernos audit 1", "sha256")


class Audit:
    """Takes notes of decisions. Until it is opened there are none to take."""

    def __init__(self, system: "System") -> None:
        self.system = system
        self.folder: Path = system.where.state / FOLDER
        self.key = b""
        self.failure: KernosError | None = None
        self._everything = system.config.audit == "all"
        self._ledger: Ledger | None = None
        self._last = 0
        self._lost = 0
        self._waiting: deque[Entry] = deque()
        self._at_work = False
        self._lock = threading.Lock()
        self._anchors: dict[int, Anchor] = {}
        self._untold: dict[int, Anchor] = {}
        """Anchors that the database could not be told."""
        self._anchoring = False

    def open(self, connection: Connection, storage_key: bytes) -> None:
        """Go on where the last kernel ended; a finding about that is told in the log itself."""
        self.key = audit_key(storage_key)
        self._anchors = {anchor.first: anchor for anchor in anchors(connection)}
        self._ledger, new, found = take_up(self.folder, self.key, list(self._anchors.values()), AUDIT_FILE_BYTES)
        self._last = self._ledger.anchor.last
        self._untold = {anchor.first: anchor for anchor in new}
        if found:
            log.critical("the audit log was not as the last kernel left it: %s. See `kernos audit verify`", found)
        self._add(Entry(0, self.system.host.clock, call="kernel.start", policy=self.system.law.policy.hash, outcome=found or "ok"))

    def close(self) -> None:
        """Write what waits, and tell the database; it is closed after this."""
        if self._ledger is None:
            return
        self._add(Entry(0, self.system.host.clock, call="kernel.stop", outcome="ok"))
        try:
            self._tell(lambda _: None, self._flush())
        except OSError as error:
            log.critical("the last entries of the audit log could not be written: %s", error)
        self._ledger.close()
        self._ledger = None

    # --- taking notes -------------------------------------------------------------------------------------------------------------

    def covers(self, row: Row) -> bool:
        """Whether allowed calls of this kind are recorded; those that are denied always are."""
        return self._ledger is not None and (row.mutates or self._everything)

    def check(self, row: Row) -> None:
        """Raise `StorageError` if the call would change something and could not be recorded."""
        if self.failure is not None and row.mutates and not row.control:
            raise self.failure

    def refused(self, client: "Client", pid: int, process: "Process | None", row: Row, error: KernosError) -> None:
        """A call that did not get as far as its handler."""
        denied = isinstance(error, DeniedError | NotYoursError)
        if not denied and not self.covers(row):
            return
        facts = error.details if isinstance(error, DeniedError) else {}
        self._add(
            Entry(
                0,
                self.system.host.clock,
                client.principal,
                pid,
                process.user or "" if process is not None else "",
                row.name,
                [f"{facts['object']}:{facts['action']}"] if facts else [],
                "deny" if denied else "allow",
                facts.get("rule", ""),
                self.system.law.policy.hash,
                error.code,
            )
        )

    def noted(self, ticket: "Ticket", outcome: str) -> None:
        """How a call ended whose kind is covered; or, with an empty outcome, that it has begun and will take a while."""
        if ticket.entry:
            self._add(Entry(0, self.system.host.clock, outcome=outcome, of=ticket.entry))
            return
        process = ticket.process
        ticket.entry = self._add(
            Entry(
                0,
                self.system.host.clock,
                ticket.principal,
                process.pid if process is not None else 0,
                process.user or "" if process is not None else "",
                ticket.row.name,
                ticket.asked or [],
                "allow",
                "",
                self.system.law.policy.hash,
                outcome,
            )
        )

    def turned_away(self, address: str, reason: str) -> None:
        """A connection that was refused."""
        self._add(Entry(0, self.system.host.clock, call="connect", objects=[address], verdict="deny", rule=reason))

    def _add(self, entry: Entry) -> int:
        """The number under which the entry will stand in the log; 0 if it is lost."""
        if self._ledger is None or len(self._waiting) >= AUDIT_WAITING:
            self._lost += self._ledger is not None
            return 0
        if self._lost:
            lost, self._lost = self._lost, 0
            self._add(Entry(0, entry.time, call="audit.lost", outcome=f"{lost} entries: the log could not be written"))
        self._last += 1
        entry = msgspec.structs.replace(entry, number=self._last)
        self._waiting.append(entry)
        if not self._at_work:
            self._at_work = True
            self.system.host.at(self.system.host.now + AUDIT_GROUP_S, self._hand_over)
        return self._last

    # --- writing ------------------------------------------------------------------------------------------------------------------

    def _hand_over(self) -> None:
        self.system.host.offload(self._write, self._written)

    def _write(self) -> None:
        """On another thread: put what waits into the file."""
        with self._lock:
            group = [self._waiting.popleft() for _ in range(len(self._waiting))]
            if group and self._ledger is not None:
                try:
                    self._ledger.append(group)
                except OSError:
                    self._waiting.extendleft(reversed(group))
                    raise

    def _written(self, outcome: Exception | None) -> None:
        self._at_work = isinstance(outcome, Exception) or bool(self._waiting)
        if isinstance(outcome, Exception):
            self._fail(outcome)
            self.system.host.at(self.system.host.now + AUDIT_RETRY_S, self._hand_over)
            return
        self.failure = None
        if self._waiting:
            self.system.host.at(self.system.host.now + AUDIT_GROUP_S, self._hand_over)
        if not self._anchoring:
            self._anchoring = True
            self.system.host.at(self.system.host.now + AUDIT_ANCHOR_S, self._anchor_in_time)

    def _fail(self, error: Exception) -> None:
        if self.failure is None:
            log.critical("the audit log cannot be written (%s): calls that change something are refused until it can", error)
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        text = f"The audit log cannot be written ({error}), and what cannot be recorded is not done. Tell the administrator."
        self.failure = StorageFullError(text, retry_after=AUDIT_RETRY_S) if full else StorageError(text, reason=type(error).__name__)

    # --- anchoring ----------------------------------------------------------------------------------------------------------------

    def anchor(self, then: Callable[[Exception | None], object]) -> None:
        """Make everything durable that was noted, and tell the database."""
        self.system.host.offload(self._flush, partial(self._tell, then))

    def _anchor_in_time(self) -> None:
        self._anchoring = False
        self.anchor(lambda _: None)

    def _flush(self) -> list[Anchor]:
        self._write()
        return self._ledger.sync() if self._ledger is not None else []

    def _tell(self, then: Callable[[Exception | None], object], outcome: list[Anchor] | Exception) -> None:
        """Tell the database how far the log is durable, and forget the oldest files if there are too many."""
        if isinstance(outcome, Exception):
            self._fail(outcome)
            then(outcome)
            return
        self._anchors |= {anchor.first: anchor for anchor in outcome}
        new = self._untold | {anchor.first: anchor for anchor in outcome}
        old = [self._anchors[first] for first in sorted(self._anchors)[: max(0, len(self._anchors) - AUDIT_FILES)]]
        self._untold = {}

        def job(connection: Connection) -> None:
            for anchor in new.values():
                records.remember(connection, "audit", "", anchor.name, msgspec.msgpack.encode(anchor))
            for anchor in old:
                records.forget(connection, "audit", "", anchor.name)

        def told(outcome: Exception | None) -> None:
            if isinstance(outcome, Exception):
                log.warning("the database was not told how far the audit log goes (%s); it is after the next entries", outcome)
                self._untold = new | self._untold
            else:
                self._remove(old)
            then(outcome)

        try:
            self.system.storage.write(job, told)
        except KernosError as error:
            told(error)

    def _remove(self, old: list[Anchor]) -> None:
        for anchor in old:
            if self._anchors.pop(anchor.first, None) is not None:
                self.system.storage.tell(partial((self.folder / anchor.name).unlink, missing_ok=True))


def anchors(connection: Connection) -> list[Anchor]:
    """What the database knows of the log's files, in their order."""
    return sorted((_anchor_decoder.decode(value) for _, _, value in records.facts(connection, "audit")), key=lambda anchor: anchor.first)


def rest() -> None:
    """Let the kernel's loop have its turn, in the middle of long work on another thread."""
    time.sleep(0.0005)
