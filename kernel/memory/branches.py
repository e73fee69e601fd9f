"""Branches: how contexts share messages without copying a row.

A branch is a line of messages on top of the first `base` messages of its parent; the first branch of a context has no parent. A context is
a branch and a length. To fork, to roll back and to restore is to begin a new branch at some point of an old one: what is below that point
is shared, and nothing that was written is ever changed.

A branch holds rows from `base` on, and its parent gives at least one message to it, so that a chain of branches is never longer than the
line of messages it makes.
"""

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
    found = []
    at: int | None = branch
    while at is not None and start < stop:
        parent, base = connection.execute("SELECT parent, base FROM branches WHERE id = ?", (at,)).fetchone()
        if base < stop:
            found.append(Span(at, max(start, base), stop))
        at, stop = parent, min(stop, base)
    return found[::-1]


def begin(connection: Connection, context: int | None, parent: int | None, length: int) -> int:
    """A new branch of a context, on top of the first `length` messages of another; its id."""
    while parent is not None:
        grandparent, base = connection.execute("SELECT parent, base FROM branches WHERE id = ?", (parent,)).fetchone()
        if base < length:
            break
        parent = grandparent  # the parent has nothing to give
    insert = "INSERT INTO branches (parent, base, context) VALUES (?, ?, ?) RETURNING id"
    return int(connection.execute(insert, (parent, length, context)).fetchone()[0])


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
    """Delete the messages of a branch from `length` on, and with them their pages."""
    gone = connection.execute(
        "DELETE FROM messages WHERE branch = ? AND seq >= ? RETURNING octet_length(text) + coalesce(octet_length(calls), 0)",
        (branch, length),
    )
    return sum(size for (size,) in gone)
