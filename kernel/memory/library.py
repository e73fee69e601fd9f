"""Files that are searched: the text of the newest version of each, as pages like those of contexts.

All files of an owner are read as one branch, his library, and each file as one message of it, whose number is the file's key. So pages,
keyword entries and vectors are made, found and deleted as those of a conversation are. The text of a version goes with it: when it is
replaced, in the same transaction, and by a trigger when its file is deleted.

What is text: the bytes are UTF-8, and hold no control characters but those that lay a text out. Of a large file the beginning is searched.
"""

from collections.abc import Collection, Iterator, Sequence
from itertools import groupby
from typing import Final, NamedTuple

import regex

from . import filestore
from .branches import Span, begin
from .connection import Connection
from .filestore import FileRow
from .ranking import Recalled
from .window import Made, paginate, told

SEARCHED_BYTES: Final = 256 << 10
"""Of a file that are searched. Its pages are made while it is written, at half a millisecond each, and others wait for that."""

SCHEMA: Final = """
CREATE TABLE libraries (
    owner TEXT PRIMARY KEY,
    branch INTEGER NOT NULL REFERENCES branches (id)
) WITHOUT ROWID;

CREATE TRIGGER files_deleted AFTER DELETE ON files BEGIN
    DELETE FROM messages WHERE seq = old.key AND branch = (SELECT branch FROM libraries WHERE owner = old.owner);
END;
"""

_CONTROL: Final = regex.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]")


class Change(NamedTuple):
    """What became of a library: the pages that are gone, and those that were made."""

    branch: int
    gone: Sequence[int]
    made: Made


class Passage(NamedTuple):
    """A page of a file that was found: the file, where in its text the page begins, what it says, and its points."""

    file: FileRow
    start: int
    text: str
    points: Recalled


def text_of(data: bytes, *, whole: bool) -> str:
    """The text that a file, or the beginning of one, is; empty if it is none."""
    for cut in range(1 if whole else 4):  # the beginning may end within a character
        try:
            text = data[: len(data) - cut].decode("utf-8-sig")
        except UnicodeDecodeError:
            continue
        return "" if _CONTROL.search(text) else text
    return ""


def shelve(connection: Connection, file: FileRow) -> Change:
    """Make the version that was written now what is searched of its file."""
    branch = _branch(connection, file.owner)
    gone = _pages_of(connection, file)
    connection.execute("DELETE FROM messages WHERE branch = ? AND seq = ?", (branch, file.key))
    text = text_of(filestore.read(connection, file, 0, SEARCHED_BYTES), whole=file.size <= SEARCHED_BYTES)
    if not text.strip():
        return Change(branch, gone, [])
    insert = """
        INSERT INTO messages (branch, seq, role, time, tokens, tokenizer, all_tokens, all_bytes, digest, text)
        VALUES (?, ?, 'user', ?, 0, '', 0, 0, ?, ?) RETURNING id"""
    (message,) = connection.execute(insert, (branch, file.key, file.time, file.digest, text)).fetchone()
    return Change(branch, gone, paginate(connection, branch, message, file.key, file.time, text))


def removal(connection: Connection, file: FileRow) -> Change:
    """What the deletion of a file will take from its owner's library."""
    return Change(branch_of(connection, file.owner) or 0, _pages_of(connection, file), [])


def branch_of(connection: Connection, owner: str) -> int | None:
    """The branch that an owner's files are; `None` if none was written."""
    found = connection.execute("SELECT branch FROM libraries WHERE owner = ?", (owner,)).fetchone()
    return found[0] if found else None


def spans(connection: Connection, owner: str, branch: int, keys: Collection[int]) -> list[Span]:
    """Where these files are in an owner's library: runs of them that no other file interrupts."""
    every = [key for (key,) in connection.execute("SELECT key FROM files WHERE owner = ? ORDER BY key", (owner,))]
    runs = [list(run) for wanted, run in groupby(every, keys.__contains__) if wanted]
    return [Span(branch, run[0], run[-1] + 1) for run in runs]


def passages(connection: Connection, files: Sequence[FileRow], ranked: Iterator[Recalled]) -> Iterator[Passage]:
    """What the pages that were ranked say; one of a version that was replaced meanwhile is passed over."""
    by_key = {file.key: file for file in files}
    for points, page in told(connection, ranked):
        if page.seq in by_key:
            yield Passage(by_key[page.seq], page.start, page.text, points)


def _branch(connection: Connection, owner: str) -> int:
    branch = branch_of(connection, owner)
    if branch is None:
        branch = begin(connection, None, None, 0)
        connection.execute("INSERT INTO libraries (owner, branch) VALUES (?, ?)", (owner, branch))
    return branch


def _pages_of(connection: Connection, file: FileRow) -> list[int]:
    """The pages that are searched of a file."""
    query = """
        SELECT pages.id FROM libraries JOIN messages USING (branch) JOIN pages ON message = messages.id
        WHERE owner = ? AND seq = ?"""
    return [page for (page,) in connection.execute(query, (file.owner, file.key))]
