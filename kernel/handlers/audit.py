"""`audit.*`. What waits to be written is written first, and the database told of it, so that an answer is about all that has happened."""

from collections.abc import Callable
from typing import TypeVar

from kernos.syscalls.audit import Entries, ExportAudit, Lines, ReadAudit, Verified, VerifyAudit

from ..security import ledger, reports
from ..security.audit import anchors, rest
from ..security.ledger import Anchor
from ..system import System
from ..tickets import LATER, Later, Ticket

R = TypeVar("R")


def read(system: System, ticket: Ticket, call: ReadAudit) -> Later:
    """Search from the newest entry backwards."""
    return _ask(system, ticket, lambda known: Entries(reports.search(system.audit.folder, known, call, rest)))


def export(system: System, ticket: Ticket, call: ExportAudit) -> Later:
    """Lines as they stand."""

    def part(known: list[Anchor]) -> Lines:
        return reports.lines(system.audit.folder, known, call.start, call.limit)

    return _ask(system, ticket, part)


def verify(system: System, ticket: Ticket, call: VerifyAudit) -> Later:
    """Check everything that is kept."""

    def check(known: list[Anchor]) -> Verified:
        entries, findings = ledger.verify(system.audit.folder, system.audit.key, known, rest)
        return Verified(entries, len(known), known[-1].last if known else 0, findings)

    return _ask(system, ticket, check)


def _ask(system: System, ticket: Ticket, question: Callable[[list[Anchor]], R]) -> Later:
    """Answer a call by what a question to the files finds, up to what the database knows of them then."""

    def anchored(_: None) -> None:
        system.storage.query(ticket, lambda connection: question(anchors(connection)), lambda found: found)

    system.audit.anchor(ticket.then(anchored))
    return LATER
