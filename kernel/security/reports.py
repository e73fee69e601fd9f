"""What people read of the audit log: the newest entries that fit a question, and its lines as they stand."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from kernos.syscalls.audit import Entry, Lines, ReadAudit

from . import chain
from .ledger import Anchor


def search(folder: Path, anchors: Sequence[Anchor], question: ReadAudit, rest: Callable[[], object]) -> list[Entry]:
    """The entries that fit, in the order of their numbers.

    An entry of a call that has ended since gets that outcome, and the entry that only says so is left out.
    """
    found: list[Entry] = []
    outcomes: dict[int, str] = {}
    for entry in _backwards(folder, anchors, rest):
        if entry.number <= question.after or entry.time < question.since or len(found) == question.limit:
            break
        if entry.of > question.after:
            outcomes[entry.of] = entry.outcome
            continue
        if outcome := outcomes.pop(entry.number, ""):
            entry = msgspec.structs.replace(entry, outcome=outcome)
        if _fits(entry, question):
            found.append(entry)
    return found[::-1]


def lines(folder: Path, anchors: Sequence[Anchor], start: int, limit: int) -> Lines:
    """Lines from an entry on, of one file at a time, and where to go on."""
    at = max(0, bisect_right(anchors, start, key=lambda anchor: anchor.first) - 1)
    for position, anchor in enumerate(anchors[at:], at):
        path = folder / anchor.name
        data = path.read_bytes()[: anchor.size].splitlines() if path.exists() else []
        part = data[max(0, start - anchor.first) :][:limit]
        if part:
            following = max(start, anchor.first) + len(part)
            more = following <= anchor.last or position + 1 < len(anchors)
            return Lines([line.decode("utf-8", "replace") for line in part], following if more else 0)
    return Lines([], 0)


def _backwards(folder: Path, anchors: Sequence[Anchor], rest: Callable[[], object]) -> Iterator[Entry]:
    """All entries, newest first; what is none is left out, as `verify` tells of it."""
    for anchor in reversed(anchors):
        path = folder / anchor.name
        data = path.read_bytes()[: anchor.size] if path.exists() else b""
        for number, line in enumerate(reversed(data.splitlines())):
            if number % 200 == 199:
                rest()
            try:
                yield chain.read(line)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                continue


def _fits(entry: Entry, question: ReadAudit) -> bool:
    return (
        (not question.principal or question.principal in (entry.principal, entry.user))
        and (not question.name or entry.call == question.name or entry.call.startswith(question.name + "."))
        and (not question.verdict or entry.verdict == question.verdict)
        and (question.until is None or entry.time <= question.until)
        and (not question.text or any(question.text in text for text in (*entry.objects, entry.rule, entry.policy, entry.outcome)))
    )
