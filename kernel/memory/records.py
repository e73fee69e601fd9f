"""What the kernel remembers across a restart: replies to calls with an idempotency key, and facts about its principals.

A reply is written in the transaction of the effect it reports. So a call that is made again with its key, also after a crash, finds either
both or neither, and is applied once. Where a reply only tells of a context that the call has made, its record is enough.
"""

from collections.abc import Callable
from typing import Literal

import msgspec

from kernos.syscalls.errors import ConflictError
from kernos.syscalls.wire import encode

from ..limits import IDEMPOTENCY_RECORDS, IDEMPOTENCY_S
from . import transcripts
from .accounts import number_of_principal
from .connection import Connection
from .writer import Job

FactKind = Literal["process", "usage", "audit"]
"""Rows of the process table by pid; what a principal used; how far each file of the audit log goes (of no principal)."""


class Request(msgspec.Struct, frozen=True):
    """A call with an idempotency key: whose, its key, 8 bytes that tell its body from others, and the context of which its reply tells."""

    principal: str
    key: str
    digest: bytes
    context: str | None = None


def once(request: Request, job: Job[bytes], now: float, made: Callable[[], int] | None = None) -> Job[bytes]:
    """The job, or the reply it gave when it was done before; `ConflictError` if the key came with another body.

    `made`, asked after the job, is for a reply that tells of a context which the job has made, and of nothing else: its key. Such a reply
    is not kept: it tells of the context as it is when it is asked for again.
    """

    def run(connection: Connection) -> bytes:
        before = reply_to(connection, request, now)
        if before is not None:
            return before
        reply = job(connection)
        context = made() if made else _key(connection, request.context)
        row = (number_of_principal(connection, request.principal), request.key, request.digest, now, context, None if made else reply)
        insert = "INSERT OR REPLACE INTO replies (principal_id, call, digest, time, context, reply) VALUES (?, ?, ?, ?, ?, ?)"
        connection.execute(insert, row)
        return reply

    return run


def reply_to(connection: Connection, request: Request, now: float) -> bytes | None:
    """What a call with this key was answered in the last day; `NotFoundError` if it made a context that is deleted."""
    query = """
        SELECT digest, context, reply FROM replies
        WHERE principal_id = (SELECT id FROM principals WHERE name = ?) AND call = ? AND time >= ?"""
    found = connection.execute(query, (request.principal, request.key, now - IDEMPOTENCY_S)).fetchone()
    if found is None:
        return None
    digest, context, reply = found
    if digest != request.digest:
        raise ConflictError(f"The idempotency key {request.key} was used for another call. Make a new key for each call.")
    return encode(transcripts.info(transcripts.by_key(connection, context))) if reply is None else bytes(reply)


def forget_reply(connection: Connection, request: Request) -> None:
    """Let a call that was undone be made again."""
    query = "DELETE FROM replies WHERE principal_id = (SELECT id FROM principals WHERE name = ?) AND call = ?"
    connection.execute(query, (request.principal, request.key))


def prune(connection: Connection, now: float) -> int:
    """Forget replies that are older than a day, and of each principal all but the newest; how many."""
    old = connection.execute("DELETE FROM replies WHERE time < ?", (now - IDEMPOTENCY_S,)).rowcount
    query = """
        DELETE FROM replies WHERE (principal_id, call) IN (
            SELECT principal_id, call FROM (
                SELECT principal_id, call, row_number() OVER (PARTITION BY principal_id ORDER BY time DESC) AS place FROM replies)
            WHERE place > ?)"""
    return old + connection.execute(query, (IDEMPOTENCY_RECORDS,)).rowcount


def forget_context(connection: Connection, context: int) -> None:
    """Forget replies that tell of a context: it is being deleted, and answers are text. The job `erases`.

    That it was made is remembered, so that it is not made again.
    """
    connection.execute("DELETE FROM replies WHERE context = ? AND reply IS NOT NULL", (context,))


def remember(connection: Connection, kind: FactKind, principal: str, name: str, value: bytes) -> None:
    """Set a fact about a principal."""
    values = (kind, principal, name, value)
    connection.execute("INSERT OR REPLACE INTO facts (kind, principal, name, value) VALUES (?, ?, ?, ?)", values)


def forget(connection: Connection, kind: FactKind, principal: str, name: str) -> None:
    """Remove a fact."""
    connection.execute("DELETE FROM facts WHERE kind = ? AND principal = ? AND name = ?", (kind, principal, name))


def facts(connection: Connection, kind: FactKind) -> list[tuple[str, str, bytes]]:
    """All facts of a kind: principal, name, value."""
    query = "SELECT principal, name, value FROM facts WHERE kind = ? ORDER BY principal, name"
    return connection.execute(query, (kind,)).fetchall()


def _key(connection: Connection, context: str | None) -> int | None:
    found = connection.execute("SELECT key FROM contexts WHERE id = unhex(?)", (context,)).fetchone() if context else None
    return found[0] if found else None
