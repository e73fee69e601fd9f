"""The files of the audit log: written in groups, begun anew when one is full, taken up again after a crash.

What the database knows of each file is its `Anchor`: where it begins and how far it was durable, with the seal of the last line then. An
anchor is stored after the lines it speaks of are durable. So after a crash a file stands at its anchor or beyond it; behind the anchor it
may end within a line or, if the machine lost its power, in zeros. That is cut off and told. Anything else that does not fit was done to
the file: the kernel says so, leaves the file as it is and begins a new one.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec

from kernos.syscalls.audit import Entry, Finding

from ..memory.commits import sync_folder
from . import chain
from .chain import ZERO, BrokenError, CutError, Position

MOST_FINDINGS: Final = 1_000
"""Findings that are reported; after the first few hundred nobody wonders any more."""


class Anchor(msgspec.Struct, frozen=True):
    """What is known of a file: the number of its first entry, the seal that one stands on, and its last durable line."""

    first: int
    before: str
    last: int
    seal: str
    size: int

    @property
    def name(self) -> str:
        """Of the file."""
        return f"{self.first:012}.jsonl"

    @property
    def start(self) -> Position:
        """Where the file begins."""
        return Position(self.first - 1, self.before, 0)

    @property
    def end(self) -> Position:
        """Its last durable line."""
        return Position(self.last, self.seal, self.size)

    def at(self, end: Position) -> "Anchor":
        """The same file, durable up to there."""
        return Anchor(self.first, self.before, end.number, end.seal, end.size)


def new_file(after: Position, number: int) -> Anchor:
    """A file that begins with an entry of this number, on the chain that ends at `after`."""
    return Anchor(number, after.seal, number - 1, after.seal, 0)


class Ledger:
    """The file that is written, held open. `append` and `sync` may be called in different threads."""

    def __init__(self, folder: Path, key: bytes, anchor: Anchor, most: int) -> None:
        """Write on where `anchor` ends; a file becomes at most about `most` bytes long."""
        self.folder = folder
        self.key = key
        self.anchor = anchor
        self._most = most
        self._full: list[Anchor] = []
        self._failed: OSError | None = None
        self._lock = threading.Lock()
        self._fd = self._open()

    def append(self, entries: Sequence[Entry]) -> None:
        """Write entries that are numbered on from the last. They outlive this process, and after `sync` the machine.

        On `OSError` nothing of them is kept. After a failed `sync` nothing more is written: nobody knows what the disk holds.
        """
        with self._lock:
            if self._failed is not None:
                raise self._failed
            if self.anchor.size >= self._most:
                self._begin()
            lines, mark = [], self.anchor.seal
            for entry in entries:
                line, mark = chain.write(self.key, mark, entry)
                lines.append(line)
            data = b"".join(lines)
            self._write(data)
            self.anchor = self.anchor.at(Position(self.anchor.last + len(entries), mark, self.anchor.size + len(data)))

    def sync(self) -> list[Anchor]:
        """Make what was written durable; what the database is to know now. Whoever appends meanwhile does not wait."""
        with self._lock:
            fd, full, anchor = os.dup(self._fd), self._full, self.anchor
            self._full = []
        try:
            self._sync(fd)
        finally:
            os.close(fd)
        return [*full, anchor]

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _begin(self) -> None:
        self._sync(self._fd)
        self.close()
        self._full.append(self.anchor)
        self.anchor = new_file(self.anchor.end, self.anchor.last + 1)
        self._fd = self._open()

    def _write(self, data: bytes) -> None:
        os.lseek(self._fd, self.anchor.size, os.SEEK_SET)
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError:
            os.ftruncate(self._fd, self.anchor.size)
            raise

    def _sync(self, fd: int) -> None:
        # What the system failed to make durable it may forget, and say yes the next time it is asked.
        if self._failed is not None:
            raise self._failed
        try:
            os.fdatasync(fd)
        except OSError as error:
            self._failed = error
            raise

    def _open(self) -> int:
        fd = os.open(self.folder / self.anchor.name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        sync_folder(self.folder)
        return fd


# --- taking up ------------------------------------------------------------------------------------------------------------------


def take_up(folder: Path, key: bytes, anchors: Sequence[Anchor], most: int) -> tuple[Ledger, list[Anchor], str]:
    """The log where the last kernel left it, the anchors that are new by that, and what was wrong with its end (empty: nothing).

    Looks at nothing before the last anchor, so that it takes no time; `verify` looks at everything.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    seen, following = [], anchors[-1] if anchors else new_file(Position(0, ZERO, 0), 1)
    while True:
        anchor, found = _end_of(folder, key, following)
        seen.append(anchor)
        following = new_file(anchor.end, anchor.last + 1)
        goes_on = following.first > anchor.first and (folder / following.name).exists()
        if found or not goes_on:
            break
    if found.startswith("damaged") or (found and goes_on):
        seen.append(new_file(anchor.end, max(anchor.last, _highest(folder)) + 1))
    return Ledger(folder, key, seen[-1], most), seen, found


def _end_of(folder: Path, key: bytes, anchor: Anchor) -> tuple[Anchor, str]:
    """How far a file goes on behind its anchor; a line that a crash cut is taken off."""
    path = folder / anchor.name
    data = path.read_bytes() if path.exists() else b""
    if not _holds(data, anchor):
        return anchor, f"damaged: {anchor.name} does not hold entry {anchor.last} where the database says it ends"
    try:
        end = deque(chain.follow(key, data, anchor.end), maxlen=1)
    except BrokenError as broken:
        rest = data[broken.at.size :]
        if isinstance(broken, CutError) or b"\0" in rest:  # what a disk never got it reads as zeros, and no line holds one
            os.truncate(path, broken.at.size)
            return anchor.at(broken.at), f"cut: {len(rest)} bytes at its end, which a crash kept from being written whole"
        return anchor.at(broken.at), f"damaged: {anchor.name}: {broken}"
    return anchor.at(end[0]) if end else anchor, ""


def _holds(data: bytes, anchor: Anchor) -> bool:
    """Whether a file's line that ends where the anchor says is the one that the anchor knows."""
    if anchor.size == 0:
        return True
    line = data[data.rfind(b"\n", 0, anchor.size - 1) + 1 : anchor.size]
    return line.endswith(f'"seal":"{anchor.seal}"}}\n'.encode()) and chain.number_of(line) == anchor.last


def _highest(folder: Path) -> int:
    """The highest number that the name or a line of any file states, so that a new file stands apart from what is damaged."""
    highest = 0
    for path in folder.glob("*.jsonl"):
        lines = path.read_bytes().splitlines()
        highest = max(highest, int(path.stem), *(chain.number_of(line) or 0 for line in lines))
    return highest


# --- verifying ------------------------------------------------------------------------------------------------------------------


def verify(folder: Path, key: bytes, anchors: Sequence[Anchor], rest: Callable[[], object]) -> tuple[int, list[Finding]]:
    """Check all files up to their anchors: how many entries stand as they were written, and what does not.

    `rest` is called now and then, so that others have their turn. What was appended behind the last anchor meanwhile is left out.
    """
    entries, findings = 0, list(_gaps(anchors))
    for anchor in anchors:
        path = folder / anchor.name
        data = path.read_bytes() if path.exists() else None
        if data is None:
            findings.append(Finding(anchor.name, 0, 0, f"the file is gone, with entries {anchor.first} to {anchor.last}"))
            continue
        newest = anchor is anchors[-1]
        good, wrong = _check(key, data[: anchor.size] if newest else data, anchor, rest)
        entries += good
        findings += wrong
    return entries, findings[:MOST_FINDINGS]


def _gaps(anchors: Sequence[Anchor]) -> Iterator[Finding]:
    for one, other in pairwise(anchors):
        if (other.first, other.before) != (one.last + 1, one.seal):
            yield Finding(other.name, 0, 0, f"it does not go on where {one.name} ends, after entry {one.last}")


def _check(key: bytes, data: bytes, anchor: Anchor, rest: Callable[[], object]) -> tuple[int, list[Finding]]:
    good, findings, at = 0, [], anchor.start
    while True:
        try:
            for place in chain.follow(key, data, at):
                at, good = place, good + 1
                if good % 200 == 0:
                    rest()
            break
        except BrokenError as broken:
            findings.append(_finding(anchor, broken.at, data, str(broken)))
            if broken.then is None or len(findings) == MOST_FINDINGS:
                return good, findings
            at = broken.then
    if at != anchor.end:
        findings.append(_finding(anchor, at, data, _ending(at, anchor)))
    return good, findings


def _ending(at: Position, anchor: Anchor) -> str:
    if at.number < anchor.last:
        return f"the file ends after entry {at.number}, and the database knows of {anchor.last}: the end was removed"
    if at.number > anchor.last:
        return f"entries {anchor.last + 1} to {at.number} stand behind the end that the database knows of"
    return f"entry {at.number} is not the one that the database knows of: the chain was made anew"


def _finding(anchor: Anchor, at: Position, data: bytes, what: str) -> Finding:
    return Finding(anchor.name, data.count(b"\n", 0, at.size) + 1, at.size, what)
