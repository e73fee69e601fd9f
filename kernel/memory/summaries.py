"""Summaries: what an agent wrote of a run of messages, to be recalled beside them. The messages stay, and are found as before.

A summary is a row of `messages` with a number below zero, on the branch that its context writes to: so it comes and goes with its sources,
forks and snapshots made later have it if they have all of its sources, and those made before never see it, as the branch is split where
others stand on it. Its keyword entries stand at its last source, which is where it is found.
"""

from collections.abc import Iterable

import msgspec

from kernos.syscalls.errors import ConflictError

from . import branches
from .connection import Connection
from .history import note
from .transcripts import ContextRow, by_key, check_room, digest_of, find, mark
from .window import Made, paginate


def summarize(
    connection: Connection, actor: str, id_: str, start: int, stop: int, text: str, labels: Iterable[str], now: float
) -> tuple[ContextRow, Made]:
    """Keep a summary of messages `start` to `stop`, in or out of the window, with the labels of all of them and these."""
    row = find(connection, actor, id_, "own")
    if not 0 <= start < stop <= row.length:
        raise ConflictError(f"The context {row.name} has {row.length} messages; {start} to {stop} are not all among them.")
    size = len(text.encode())
    check_room(row, row.bytes + _size(connection, row) + size)
    mark(connection, row, labels)
    branch = branches.own(connection, row.key, row.branch, row.length, now)
    time, inherited = _sources(connection, row, start, stop)
    message = _insert(connection, branch, start, stop, text, time, inherited.union(labels))
    connection.execute("UPDATE contexts SET charged = charged + ?, updated = ? WHERE key = ?", (size, now, row.key))
    after = by_key(connection, row.key)
    note(connection, after, actor, "summarize", now, before=row.length, start=start, stop=stop)
    return after, paginate(connection, branch, message, stop - 1, time, text)


def _size(connection: Connection, row: ContextRow) -> int:
    """Bytes of the summaries that a context shows, or would if it had not been rolled back."""
    query = "SELECT coalesce(sum(octet_length(text)), 0) FROM messages WHERE branch = ? AND seq < 0"
    return sum(connection.execute(query, (part.branch,)).fetchone()[0] for part in branches.reach(connection, row.branch, row.length))


def _sources(connection: Connection, row: ContextRow, start: int, stop: int) -> tuple[float, set[str]]:
    """When the newest of these messages was said, and the labels of them all."""
    query = "SELECT time, coalesce(labels, '[]') FROM messages WHERE branch = ? AND seq >= ? AND seq < ?"
    parts = branches.spans(connection, row.branch, start, stop)
    found = [values for part in parts for values in connection.execute(query, (part.branch, part.start, part.stop))]
    return max(time for time, _ in found), {label for _, labels in found for label in msgspec.json.decode(labels)}


def _insert(connection: Connection, branch: int, start: int, stop: int, text: str, time: float, labels: set[str]) -> int:
    """Write the row; its id."""
    insert = """
        INSERT INTO messages (branch, seq, role, time, tokens, tokenizer, all_tokens, all_bytes, digest,
            labels, source_start, source_stop, text)
        SELECT :branch, min(0, coalesce(min(seq), 0)) - 1, 'assistant', :time, 0, '', 0, 0, :digest, :labels, :start, :stop, :text
        FROM messages WHERE branch = :branch RETURNING id"""
    values = {
        "branch": branch,
        "time": time,
        "labels": msgspec.json.encode(sorted(labels)).decode() if labels else None,
        "start": start,
        "stop": stop,
        "digest": digest_of("assistant", text, b""),
        "text": text,
    }
    return int(connection.execute(insert, values).fetchone()[0])
