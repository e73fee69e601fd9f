"""Branches: how contexts share messages without copying a row.

A branch is a line of messages on top of the first `base` messages of its parent; the first branch of a context has no parent. A context is
a branch and a length. To fork, to roll back and to restore is to begin a new branch at some point of an old one: what is below that point
is shared, and nothing that was written is ever changed.

A branch holds rows from `base` on, and its parent gives at least one message to it, or a summary, so that a chain of branches is never
longer than what it makes. A summary (see `summaries.py`) is a row with a number below zero; it may be of messages that lie on branches
below, and belongs to the lines that stand on its branch and hold all of its sources.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from .connection import Connection


@dataclass(frozen=True)
class Span:
    """Messages `start` to `stop` of a line, which are rows of one branch."""

    branch: int
    start: int
    stop: int


def spans(connection: Connection, branch: int, start: int, stop: int) -> list[Span]:
    """Where messages `start` to `stop` of a line are, in order. Costs one look-up for each branch from the end down to `start`."""
    return [Span(at, max(start, base), end) for at, base, end in _line(connection, branch, start, stop) if base < end][::-1]


def reach(connection: Connection, branch: int, stop: int) -> list[Span]:
    """Where the pages of the first `stop` messages of a line are, those of summaries included: each branch as far as the line knows it."""
    return [Span(at, 0, end) for at, _, end in _line(connection, branch, 0, stop)][::-1]


def begin(connection: Connection, context: int | None, parent: int | None, length: int) -> int:
    """A new branch of a context, on top of the first `length` messages of another; its id."""
    while parent is not None:
        grandparent, base = connection.execute("SELECT parent, base FROM branches WHERE id = ?", (parent,)).fetchone()
        if base < length or _summarized(connection, parent, length):
            break
        parent = grandparent  # the parent has nothing to give
    insert = "INSERT INTO branches (parent, base, context) VALUES (?, ?, ?) RETURNING id"
    return int(connection.execute(insert, (parent, length, context)).fetchone()[0])


def own(connection: Connection, context: int, branch: int, length: int, now: float) -> int:
    """A branch that nothing but its context stands on: `branch`, where it is now, or a new one at its end if forks or snapshots do."""
    query = "SELECT 1 FROM branches WHERE parent = :branch UNION ALL SELECT 1 FROM snapshots WHERE branch = :branch"
    if connection.execute(query, {"branch": branch}).fetchone() is None:
        return branch
    new = begin(connection, context, branch, length)
    connection.execute("UPDATE branches SET left_at = ? WHERE id = ?", (now, branch))
    connection.execute("UPDATE contexts SET branch = ? WHERE key = ?", (new, context))
    return new


def let_go(connection: Connection, branch: int) -> int:
    """Delete what nobody needs of a branch that its context does not stand on any more; the bytes of text that went."""
    connection.execute("UPDATE branches SET context = NULL WHERE id = ?", (branch,))
    return sweep(connection, branch)


def sweep(connection: Connection, branch: int) -> int:
    """Delete what nobody needs of a branch that was let go; the bytes of text that went. Any other is left as it is.

    Snapshots and other branches keep what is below their own point. A branch that is gone may have been the last that needed its parent.
    """
    freed = 0
    at: int | None = branch
    while at is not None and connection.execute("SELECT 1 FROM branches WHERE id = ? AND context IS NULL", (at,)).fetchone():
        needed = _needed(connection, at)
        freed += _cut(connection, at, needed or 0)
        if needed is not None:
            break
        (at,) = connection.execute("DELETE FROM branches WHERE id = ? RETURNING parent", (at,)).fetchone()
    return freed


def _needed(connection: Connection, branch: int) -> int | None:
    """How far somebody still reads a branch; `None` if nobody does."""
    query = """
        SELECT max(point) FROM (
            SELECT max(base) AS point FROM branches WHERE parent = :branch
            UNION ALL SELECT max(length) FROM snapshots WHERE branch = :branch)"""
    found: int | None = connection.execute(query, {"branch": branch}).fetchone()[0]
    return found


def _cut(connection: Connection, branch: int, length: int) -> int:
    """Delete the messages of a branch from `length` on, and the summaries of any of them, and with them their pages."""
    gone = connection.execute(
        "DELETE FROM messages WHERE branch = :branch AND (seq >= :length OR (seq < 0 AND source_stop > :length))"
        " RETURNING octet_length(text) + coalesce(octet_length(calls), 0)",
        {"branch": branch, "length": length},
    )
    return sum(size for (size,) in gone)


def _summarized(connection: Connection, branch: int, length: int) -> bool:
    """Whether a branch has a summary of some of the first `length` messages."""
    query = "SELECT 1 FROM messages WHERE branch = ? AND seq < 0 AND source_stop <= ?"
    return connection.execute(query, (branch, length)).fetchone() is not None


def _line(connection: Connection, branch: int, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """The branches of a line from its end down to message `start`: each with its base and where the line leaves it."""
    at: int | None = branch
    while at is not None and start < stop:
        parent, base = connection.execute("SELECT parent, base FROM branches WHERE id = ?", (at,)).fetchone()
        yield at, base, stop
        at, stop = parent, min(stop, base)
