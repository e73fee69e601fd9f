"""The count of commits, kept beside the database in a file of its own.

SQLite stops reading its write-ahead log at the first frame whose checksum is wrong, and says nothing: what came after it was never there.
The count makes this seen. A commit is durable in the database first, which counts it too, is counted here second and acknowledged third. So
after a crash the database stands at this count or ahead of it; if it is behind, acknowledged commits are gone.

It also says how far the log was copied into the database file. While a copy is under way that file holds pages of several commits and is
worth nothing without the whole of the log.

Two slots are written in turn, each with a checksum and in a disk block of its own: a torn write leaves the slot before.
"""

import hashlib
import os
import struct
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Final

_FORM: Final = struct.Struct("<8sQQQQ")
_MAGIC: Final = b"kernos-1"
_BLOCK: Final = 4_096
_SLOTS: Final = 2


@dataclass(frozen=True)
class Count:
    """What a slot says. `turn` goes up with every write; the intact slot with the higher one counts."""

    turn: int = 0
    commits: int = 0
    copy_begun: int = 0
    """A copy of the log into the database file was begun when it held so many commits."""
    copy_done: int = 0
    """The database file alone holds all of the first so many commits, if `copy_begun` is the same."""


class CommitCounter:
    """The counter's file, kept open for writing."""

    def __init__(self, path: Path, count: Count) -> None:
        self.count = count
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)

    @classmethod
    def make(cls, path: Path, count: Count | None = None) -> "CommitCounter":
        """A new file, whole or not at all; it takes the place of one that is there."""
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            file.write(_slot(count or Count()).ljust(_BLOCK * _SLOTS, b"\0"))
            file.flush()
            os.fsync(file.fileno())
        part.chmod(0o600)
        part.replace(path)
        sync_folder(path.parent)
        return cls(path, count or Count())

    def write(self, **changes: int) -> None:
        """Change the count; durable when this returns. `OSError` means that nobody knows which count is on the disk."""
        count = replace(self.count, turn=self.count.turn + 1, **changes)
        os.pwrite(self._fd, _slot(count), count.turn % _SLOTS * _BLOCK)
        os.fdatasync(self._fd)
        self.count = count

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def read_count(path: Path) -> Count | None:
    """What the file says; `None` if it is not there or no slot of it is intact."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    found = [_parse(data[start : start + _BLOCK]) for start in range(0, _BLOCK * _SLOTS, _BLOCK)]
    return max((count for count in found if count is not None), key=lambda count: count.turn, default=None)


def sync_folder(folder: Path) -> None:
    """Make names that were put into a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _slot(count: Count) -> bytes:
    data = _FORM.pack(_MAGIC, *astuple(count))
    return data + hashlib.sha256(data).digest()


def _parse(data: bytes) -> Count | None:
    body, digest = data[: _FORM.size], data[_FORM.size : _FORM.size + 32]
    if len(body) < _FORM.size or hashlib.sha256(body).digest() != digest:
        return None
    magic, *numbers = _FORM.unpack(body)
    return Count(*numbers) if magic == _MAGIC else None
