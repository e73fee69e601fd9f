"""Contexts in the database: durable, ordered messages with one owner. Functions over a connection, to be run as jobs and queries.

Every function takes the acting owner. What is not his and not granted to him does not exist for him: he gets `NotFoundError`, as for an id
that was never given. A context is charged to those on whose behalf it was made: for what it shows when it is forked and for all that is
appended to it, until it is deleted or its history is trimmed.
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Final, Literal

import msgspec

from kernos.syscalls.context import ContextInfo
from kernos.syscalls.errors import ConflictError, DeniedError, LimitError, NotFoundError, StorageError
from kernos.syscalls.model import Message, Role

from ..core.quotas import Payers
from ..limits import CONTEXT_BYTES
from .accounts import NAMES, OWNER, decoded, number_of, number_of_principal
from .branches import Span, begin, let_go, spans
from .connection import Connection

Access = Literal["read", "append", "own"]
"""What an actor must be allowed: to see a context, to add to it, or all."""


class NewMessage(msgspec.Struct, frozen=True):
    """A message to append. `tokens` were counted by the tokenizer that is named with it; `calls` are tool calls as JSON."""

    role: Role
    text: str
    tokens: int
    labels: tuple[str, ...] = ()
    calls: bytes = b""
    time: float | None = None
    """When it was said, if that is not when it is appended."""


class StoredMessage(msgspec.Struct, frozen=True):
    """Message number `seq` of a context; `id` is the same in all contexts that share it, and never used again."""

    id: int
    seq: int
    role: Role
    text: str
    time: float
    tokens: int
    tokenizer: str
    labels: tuple[str, ...]
    calls: bytes

    @property
    def said(self) -> Message:
        """As callers see it."""
        return Message(self.role, self.text, list(self.labels), self.calls.decode())


class ContextRow(msgspec.Struct, frozen=True):
    """A context without its messages. Its id is hexadecimal; times are in seconds since the Unix epoch."""

    key: int
    id: str
    owner: str
    name: str
    model: str
    payers: Payers
    labels: tuple[str, ...]
    closed: bool
    branch: int
    length: int
    tokens: int
    bytes: int
    charged: int
    resident: int
    """The first message that has not left the window."""
    created: float
    updated: float


_COLUMNS: Final = ", ".join({"owner": OWNER, "payers": NAMES}.get(name, name) for name in ContextRow.__struct_fields__)
_SELECT: Final = f"SELECT {_COLUMNS} FROM contexts "  # noqa: S608  (names of our own)
_OWNED: Final = "WHERE owner_id = (SELECT id FROM principals WHERE name = ?) "


# --- contexts -------------------------------------------------------------------------------------------------------------------


def open_context(connection: Connection, owner: str, name: str, new_id: str, payers: Payers, now: float) -> ContextRow:
    """The owner's context of this name, open again if it was closed; made with `new_id` if there is none."""
    row = named(connection, owner, name)
    key = make(connection, owner, name, new_id, payers, now) if row is None else row.key
    connection.execute("UPDATE contexts SET closed = 0 WHERE key = ?", (key,))
    return by_key(connection, key)


def make(
    connection: Connection, owner: str, name: str, new_id: str, payers: Payers, now: float, *, parent: int | None = None, length: int = 0
) -> int:
    """A context on a branch of its own, with the first `length` messages of another; its key."""
    if named(connection, owner, name):
        raise ConflictError(f"{owner} has a context {name} already. Choose another name.")
    branch = begin(connection, None, parent, length)
    insert = "INSERT INTO contexts (id, owner_id, name, payers_id, branch, created, updated) VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING key"
    owned = (number_of_principal(connection, owner), name, number_of(connection, payers))
    key = int(connection.execute(insert, (bytes.fromhex(new_id), *owned, branch, now, now)).fetchone()[0])
    connection.execute("UPDATE branches SET context = ? WHERE id = ?", (key, branch))
    return key


def find(connection: Connection, actor: str, id_: str, access: Access) -> ContextRow:
    """A context that the actor may use so; `NotFoundError` if he may not see it, `DeniedError` if he sees it and may not do this."""
    found = connection.execute(_SELECT + "WHERE id = ?", (_bytes(id_),)).fetchone()
    row = _context(found) if found else None
    if row is not None and row.owner == actor:
        return row
    query = "SELECT access FROM context_grants WHERE context = ? AND principal = ?"
    grant = connection.execute(query, (row.key, actor)).fetchone() if row else None
    if row is None or grant is None:
        raise NotFoundError(f"There is no context {id_}. Open one by name with `context.open`.")
    if access == "own" or (access == "append" and grant[0] != "append"):
        raise DeniedError(
            f"{row.owner} lets {actor} {grant[0]} the context {row.name}, and no more. Ask for more, or fork it.",
            subject=actor,
            object=f"context/{row.owner}",
            action=access,
        )
    return row


def by_key(connection: Connection, key: int) -> ContextRow:
    """A context by the database's own key; `NotFoundError` if it has been deleted."""
    found = connection.execute(_SELECT + "WHERE key = ?", (key,)).fetchone()
    if found is None:
        raise NotFoundError("This context has been deleted. Open or fork another one.")
    return _context(found)


def info(row: ContextRow) -> ContextInfo:
    """A context as callers see it."""
    return ContextInfo(
        row.id,
        row.name,
        row.owner,
        row.length,
        row.tokens,
        row.bytes,
        row.resident,
        row.model,
        list(row.labels),
        row.closed,
        row.created,
        row.updated,
    )


def of(connection: Connection, owner: str) -> list[ContextRow]:
    """An owner's contexts by name."""
    return [_context(row) for row in connection.execute(_SELECT + _OWNED + "ORDER BY name", (owner,))]


def granted(connection: Connection, actor: str) -> list[ContextRow]:
    """Contexts that others share with the actor, by owner and name."""
    query = _SELECT + f"JOIN context_grants ON context = key WHERE principal = ? ORDER BY {OWNER}, name"
    return [_context(row) for row in connection.execute(query, (actor,))]


def named(connection: Connection, owner: str, name: str) -> ContextRow | None:
    """The owner's context of this name, if there is one."""
    found = connection.execute(_SELECT + _OWNED + "AND name = ?", (owner, name)).fetchone()
    return _context(found) if found else None


def grants(connection: Connection, row: ContextRow) -> list[tuple[str, Literal["read", "append"]]]:
    """With whom a context is shared, and how."""
    query = "SELECT principal, access FROM context_grants WHERE context = ? ORDER BY principal"
    return connection.execute(query, (row.key,)).fetchall()


def directory(connection: Connection) -> Iterator[tuple[str, str, Payers, str, frozenset[str], frozenset[str]]]:
    """Of every context its id, owner, payers and model, with whom it is shared, and its labels. For a kernel that starts."""
    query = f"""
        SELECT id, {OWNER}, {NAMES}, model, (SELECT json_group_array(principal) FROM context_grants WHERE context = key),
        labels FROM contexts"""  # noqa: S608  (names of our own)
    payers: dict[str, Payers] = {}  # few and long: each is held once
    for id_, owner, names, model, readers, labels in connection.execute(query):
        yield id_.hex(), owner, payers.setdefault(names, decoded(names)), model, frozenset(_tuple(readers)), frozenset(_tuple(labels))


def attach(connection: Connection, actor: str, id_: str, model: str) -> None:
    """The model that answers in this context from now on."""
    row = find(connection, actor, id_, "own")
    connection.execute("UPDATE contexts SET model = ? WHERE key = ?", (model, row.key))


def label(connection: Connection, actor: str, id_: str, labels: Iterable[str], gone: Collection[str] = ()) -> None:
    """Give a context labels, and take some away; whether that may be is the law's to say, not asked here."""
    mark(connection, find(connection, actor, id_, "own"), labels, gone)


def mark(connection: Connection, row: ContextRow, labels: Iterable[str], gone: Collection[str] = ()) -> None:
    """The same for a context that was found."""
    marks = set(row.labels).difference(gone).union(labels)
    if marks != set(row.labels):
        connection.execute("UPDATE contexts SET labels = ? WHERE key = ?", (_json(sorted(marks)), row.key))


def close(connection: Connection, actor: str, id_: str) -> None:
    """Let nothing be appended until it is opened again."""
    connection.execute("UPDATE contexts SET closed = 1 WHERE key = ?", (find(connection, actor, id_, "own").key,))


def grant(connection: Connection, actor: str, id_: str, principal: str, access: Literal["read", "append"] | None) -> None:
    """Share a context with a principal, or with `None` no more. What he forked meanwhile is his own."""
    row = find(connection, actor, id_, "own")
    connection.execute("DELETE FROM context_grants WHERE context = ? AND principal = ?", (row.key, principal))
    if access is not None:
        connection.execute("INSERT INTO context_grants VALUES (?, ?, ?)", (row.key, principal, access))


def delete(connection: Connection, actor: str, id_: str) -> ContextRow:
    """Remove a context, and its messages but for those that a fork still shows; what it was. The job `erases`."""
    row = find(connection, actor, id_, "own")
    query = "SELECT id FROM branches WHERE context = :key UNION SELECT branch FROM snapshots WHERE context = :key ORDER BY id DESC"
    branches = connection.execute(query, {"key": row.key}).fetchall()
    connection.execute("DELETE FROM contexts WHERE key = ?", (row.key,))
    for (branch,) in branches:
        let_go(connection, branch)
    return row


def expire(connection: Connection, before: float) -> list[ContextRow]:
    """Delete the contexts that nothing was done to since a time; what they were. The job `erases`."""
    old = [_context(row) for row in connection.execute(_SELECT + "WHERE updated < ? ORDER BY key", (before,))]
    return [delete(connection, row.owner, row.id) for row in old]


def charges(connection: Connection) -> list[tuple[Payers, int, int]]:
    """What all contexts are charged to whom: payers, contexts, bytes. For the books of a kernel that starts."""
    query = "SELECT names, count(*), sum(charged) FROM contexts JOIN payers ON payers.id = payers_id GROUP BY names"
    return [(decoded(names), contexts, size) for names, contexts, size in connection.execute(query)]


# --- messages -------------------------------------------------------------------------------------------------------------------


def append(connection: Connection, actor: str, id_: str, messages: Sequence[NewMessage], tokenizer: str, now: float) -> ContextRow:
    """Put messages at the end, all or none; the context as it is then."""
    row = find(connection, actor, id_, "append")
    size = sum(size_of(message) for message in messages)
    check_room(row, row.bytes + size)
    _insert(connection, row, messages, tokenizer, now)
    labels = set(row.labels).union(*(message.labels for message in messages))
    connection.execute(
        "UPDATE contexts SET length = length + ?, tokens = tokens + ?, bytes = bytes + ?, charged = charged + ?, labels = ?, updated = ?"
        " WHERE key = ?",
        (len(messages), sum(message.tokens for message in messages), size, size, _json(sorted(labels)), now, row.key),
    )
    return by_key(connection, row.key)


def check_room(row: ContextRow, size: int) -> None:
    """Raise if a context takes nothing, or may not hold so many bytes."""
    if row.closed:
        raise ConflictError(f"The context {row.name} is closed. Open it again with `context.open`.")
    if size > CONTEXT_BYTES:
        raise LimitError(f"The context {row.name} would grow beyond {CONTEXT_BYTES} bytes. Open a new one.")


def read(connection: Connection, actor: str, id_: str, start: int, stop: int) -> list[StoredMessage]:
    """Messages `start` to `stop`, as far as there are any."""
    row = find(connection, actor, id_, "read")
    return messages_of(connection, row, start, stop)


def messages_of(connection: Connection, row: ContextRow, start: int, stop: int) -> list[StoredMessage]:
    """The same of a context that was found; `StorageError` for a message that is not what was written."""
    query = """
        SELECT id, seq, role, text, time, tokens, tokenizer, labels, calls, digest
        FROM messages WHERE branch = ? AND seq >= ? AND seq < ? ORDER BY seq"""
    parts: list[Span] = spans(connection, row.branch, max(start, 0), min(stop, row.length))
    return [_message(found) for part in parts for found in connection.execute(query, (part.branch, part.start, part.stop))]


def totals(connection: Connection, branch: int, length: int) -> tuple[int, int]:
    """Tokens and bytes of the first `length` messages of a line."""
    for part in spans(connection, branch, length - 1, length):
        query = "SELECT all_tokens, all_bytes FROM messages WHERE branch = ? AND seq = ?"
        tokens, size = connection.execute(query, (part.branch, part.start)).fetchone()
        return tokens, size
    return 0, 0


def _insert(connection: Connection, row: ContextRow, messages: Sequence[NewMessage], tokenizer: str, now: float) -> None:
    tokens, size = row.tokens, row.bytes
    values = []
    for seq, message in enumerate(messages, row.length):
        tokens, size = tokens + message.tokens, size + size_of(message)
        digest = digest_of(message.role, message.text, message.calls)
        labels = _json(message.labels) if message.labels else None
        what = (message.role, message.text, message.calls or None, labels, digest)
        time = now if message.time is None else message.time
        values.append((row.branch, seq, time, message.tokens, tokenizer, tokens, size, *what))
    connection.executemany(
        "INSERT INTO messages (branch, seq, time, tokens, tokenizer, all_tokens, all_bytes, role, text, calls, labels, digest)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        values,
    )


def _context(row: Sequence[Any]) -> ContextRow:
    values = dict(zip(ContextRow.__struct_fields__, row, strict=True))
    values.update(id=values["id"].hex(), payers=decoded(values["payers"]), labels=_tuple(values["labels"]), closed=bool(values["closed"]))
    return ContextRow(**values)


def _message(row: Sequence[Any]) -> StoredMessage:
    id_, seq, role, text, time, tokens, tokenizer, labels, calls, digest = row
    if digest_of(role, text, calls or b"") != digest:
        raise StorageError(f"Message {id_} is not what was written. Restore a backup.", reason="digest")
    return StoredMessage(id_, seq, role, text, time, tokens, tokenizer, _tuple(labels or "[]"), calls or b"")


def size_of(message: NewMessage) -> int:
    """Bytes of a message, as they are charged."""
    return len(message.text.encode()) + len(message.calls)


def digest_of(role: str, text: str, calls: bytes) -> bytes:
    """What tells whether a message is what was written."""
    return hashlib.sha256(b"\0".join((role.encode(), calls, text.encode()))).digest()


def _bytes(id_: str) -> bytes:
    """An id as the database has it; empty, which none is, for what the kernel never made."""
    try:
        return bytes.fromhex(id_)
    except ValueError:
        return b""


def _json(names: Iterable[str]) -> str:
    return msgspec.json.encode(list(names)).decode()


def _tuple(text: str) -> tuple[str, ...]:
    return msgspec.json.decode(text, type=tuple[str, ...])
