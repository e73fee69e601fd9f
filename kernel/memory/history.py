"""The history of a context: its snapshots, forks and rollbacks, and the list of all that was done to it.

None of them changes or copies a message: each begins a branch (see `branches.py`). What a rollback leaves behind stays, as history, until
it is trimmed.
"""

from typing import Literal

import msgspec

from kernos.syscalls.errors import ConflictError, NotFoundError

from ..core.quotas import Payers
from .branches import begin, let_go, spans, sweep
from .connection import Connection
from .transcripts import ContextRow, by_key, find, make, totals

Kind = Literal["append", "fork", "rollback", "restore", "snapshot", "page_out", "summarize"]


class Operation(msgspec.Struct, frozen=True):
    """Something that was done to a context, which was `before` messages long and `after` that.

    `start` to `stop` are the messages it was about: those appended, left behind, paged out or summarized. `detail` is the snapshot's name,
    or the id of the context that was forked. `actor` is empty for appending; its time is that of the first message.
    """

    kind: Kind
    time: float
    actor: str
    before: int
    after: int
    start: int
    stop: int
    detail: str = ""


class Snapshot(msgspec.Struct, frozen=True):
    """A point of a context that can be gone back to."""

    name: str
    length: int
    time: float


def fork(
    connection: Connection, actor: str, id_: str, name: str, new_id: str, payers: Payers, now: float, *, owner: str = ""
) -> ContextRow:
    """A context of the actor's own, or another owner's, that begins as the other one is now: messages, window, pins, labels and model."""
    source = find(connection, actor, id_, "read")
    key = make(connection, owner or actor, name, new_id, payers, now, parent=source.branch, length=source.length)
    connection.execute(
        "UPDATE contexts SET (model, labels, length, tokens, bytes, charged, resident, source, forked) ="
        " (SELECT model, labels, length, tokens, bytes, bytes, resident, key, length FROM contexts WHERE key = ?) WHERE key = ?",
        (source.key, key),
    )
    connection.execute("INSERT INTO pins SELECT ?, seq FROM pins WHERE context = ?", (key, source.key))
    return by_key(connection, key)


def rollback(connection: Connection, actor: str, id_: str, length: int, now: float) -> ContextRow:
    """Go back to the first `length` messages."""
    row = find(connection, actor, id_, "own")
    if not 0 <= length <= row.length:
        raise ConflictError(f"The context {row.name} has {row.length} messages, not {length}. See `context.history`.")
    return _go(connection, row, actor, "rollback", row.branch, length, now, "")


def snapshot(connection: Connection, actor: str, id_: str, name: str, now: float) -> Snapshot:
    """Give the present state a name; one of the same name is replaced."""
    row = find(connection, actor, id_, "own")
    _drop(connection, row, name)
    values = (row.key, name, row.branch, row.length, now)
    connection.execute("INSERT INTO snapshots (context, name, branch, length, time) VALUES (?, ?, ?, ?, ?)", values)
    note(connection, row, actor, "snapshot", now, before=row.length, start=0, stop=row.length, detail=name)
    return Snapshot(name, row.length, now)


def restore(connection: Connection, actor: str, id_: str, name: str, now: float) -> ContextRow:
    """Go back, or forward again, to a snapshot."""
    row = find(connection, actor, id_, "own")
    found = connection.execute("SELECT branch, length FROM snapshots WHERE context = ? AND name = ?", (row.key, name)).fetchone()
    if found is None:
        raise NotFoundError(f"The context {row.name} has no snapshot {name}. See `context.history`.")
    return _go(connection, row, actor, "restore", found[0], found[1], now, name)


def snapshots(connection: Connection, actor: str, id_: str) -> list[Snapshot]:
    """A context's snapshots, the oldest first."""
    row = find(connection, actor, id_, "read")
    query = "SELECT name, length, time FROM snapshots WHERE context = ? ORDER BY time, name"
    return [Snapshot(*found) for found in connection.execute(query, (row.key,))]


def drop_snapshot(connection: Connection, actor: str, id_: str, name: str) -> None:
    """Forget a snapshot, and what it alone kept. The job `erases`."""
    row = find(connection, actor, id_, "own")
    if not _drop(connection, row, name):
        raise NotFoundError(f"The context {row.name} has no snapshot {name}. See `context.stat`.")


def history(connection: Connection, actor: str, id_: str) -> list[Operation]:
    """All that was done to a context, in order. Runs of appends lie between the other operations and are read from the messages."""
    row = find(connection, actor, id_, "read")
    found = _origin(connection, row)
    length = found[0].after if found else 0
    branch = connection.execute("SELECT min(id) FROM branches WHERE context = ?", (row.key,)).fetchone()[0]
    query = "SELECT kind, time, actor, before, after, start, stop, detail, branch FROM operations WHERE context = ? ORDER BY id"
    for *values, next_branch in connection.execute(query, (row.key,)).fetchall():
        operation = Operation(*values)
        found += [*_run(connection, branch, length, operation.before), operation]
        branch, length = next_branch, operation.after
    return found + _run(connection, branch, length, row.length)


def trim(connection: Connection, before: float, limit: int = 1 << 30) -> list[tuple[Payers, int]]:
    """Delete what rollbacks left behind before a time, and nobody needs, at most so many times; who is charged how many bytes less.

    The job `erases`.
    """
    query = "SELECT id, context FROM branches WHERE left_at < ? AND context IS NOT NULL ORDER BY id DESC LIMIT ?"
    given = []
    for branch, context in connection.execute(query, (before, limit)).fetchall():
        row, freed = by_key(connection, context), let_go(connection, branch)
        charged = max(row.bytes, row.charged - freed)
        connection.execute("UPDATE contexts SET charged = ? WHERE key = ?", (charged, context))
        given.append((row.payers, row.charged - charged))
    connection.execute("DELETE FROM operations WHERE time < ?", (before,))
    return given


def note(
    connection: Connection, row: ContextRow, actor: str, kind: Kind, now: float, *, before: int, start: int, stop: int, detail: str = ""
) -> None:
    """Write down what was done to a context, which is now as `row` says."""
    connection.execute(
        "INSERT INTO operations (context, time, actor, kind, before, after, branch, start, stop, detail)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (row.key, now, actor, kind, before, row.length, row.branch, start, stop, detail),
    )


def _go(connection: Connection, row: ContextRow, actor: str, kind: Kind, branch: int, length: int, now: float, detail: str) -> ContextRow:
    """Let a context go on from some point of a branch, on a new one."""
    new = begin(connection, row.key, branch, length)
    tokens, size = totals(connection, new, length)
    connection.execute("UPDATE branches SET left_at = ? WHERE id = ?", (now, row.branch))
    connection.execute(
        "UPDATE contexts SET branch = ?, length = ?, tokens = ?, bytes = ?, resident = min(resident, ?), updated = ? WHERE key = ?",
        (new, length, tokens, size, length, now, row.key),
    )
    connection.execute("DELETE FROM pins WHERE context = ? AND seq >= ?", (row.key, length))
    gone = by_key(connection, row.key)
    note(connection, gone, actor, kind, now, before=row.length, start=length, stop=max(length, row.length), detail=detail)
    return gone


def _drop(connection: Connection, row: ContextRow, name: str) -> bool:
    query = "DELETE FROM snapshots WHERE context = ? AND name = ? RETURNING branch"
    dropped = connection.execute(query, (row.key, name)).fetchall()
    for (branch,) in dropped:
        sweep(connection, branch)
    return bool(dropped)


def _origin(connection: Connection, row: ContextRow) -> list[Operation]:
    """The fork that a context began as, if it did."""
    query = """
        SELECT own.forked, source.id FROM contexts AS own LEFT JOIN contexts AS source ON source.key = own.source
        WHERE own.key = ? AND own.forked IS NOT NULL"""
    return [
        Operation("fork", row.created, row.owner, 0, length, 0, length, source.hex() if source else "")
        for length, source in connection.execute(query, (row.key,)).fetchall()
    ]


def _run(connection: Connection, branch: int, start: int, stop: int) -> list[Operation]:
    """The appending that brought a branch from one length to another."""
    if start >= stop:
        return []
    first = spans(connection, branch, start, start + 1)
    query = "SELECT time FROM messages WHERE branch = ? AND seq = ?"
    time = connection.execute(query, (first[0].branch, start)).fetchone() if first else None
    return [Operation("append", time[0] if time else 0.0, "", start, stop, start, stop)]
