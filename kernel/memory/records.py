"""What the kernel remembers across a restart: replies to calls with an idempotency key, and facts about its principals.

A reply is written in the transaction of the effect it reports. So a call that is made again with its key, also after a crash, finds either
both or neither, and is applied once.
"""

from typing import Literal

import msgspec

from kernos.syscalls.errors import ConflictError

from ..limits import IDEMPOTENCY_RECORDS, IDEMPOTENCY_S
from .connection import Connection
from .writer import Job

FactKind = Literal["process", "usage", "audit"]
"""Rows of the process table by pid; what a principal used; how far each file of the audit log goes (of no principal)."""


class Request(msgspec.Struct, frozen=True):
    """A call with an idempotency key: whose, its key, the SHA-256 of its body as it came, and the context of which its reply tells."""

    principal: str
    key: str
    digest: bytes
    context: str | None = None


def once(request: Request, job: Job[bytes], now: float) -> Job[bytes]:
    """The job, or the reply it gave when it was done before; `ConflictError` if the key came with another body."""

    def run(connection: Connection) -> bytes:
        before = reply_to(connection, request, now)
        if before is not None:
            return before
        reply = job(connection)
        connection.execute(
            "INSERT OR REPLACE INTO replies (principal, call, digest, time, reply, context) VALUES (?, ?, ?, ?, ?, ?)",
            (request.principal, request.key, request.digest, now, reply, request.context),
        )
        return reply

    return run


def reply_to(connection: Connection, request: Request, now: float) -> bytes | None:
    """What a call with this key was answered in the last day."""
    query = "SELECT digest, reply FROM replies WHERE principal = ? AND call = ? AND time >= ?"
    found = connection.execute(query, (request.principal, request.key, now - IDEMPOTENCY_S)).fetchone()
    if found is None:
        return None
    digest, reply = found
    if digest != request.digest:
        raise ConflictError(f"The idempotency key {request.key} was used for another call. Make a new key for each call.")
    return bytes(reply)


def forget_reply(connection: Connection, request: Request) -> None:
    """Let a call that was undone be made again."""
    connection.execute("DELETE FROM replies WHERE principal = ? AND call = ?", (request.principal, request.key))


def prune(connection: Connection, now: float) -> int:
    """Forget replies that are older than a day, and of each principal all but the newest; how many."""
    old = connection.execute("DELETE FROM replies WHERE time < ?", (now - IDEMPOTENCY_S,)).rowcount
    query = """
        DELETE FROM replies WHERE id IN (
            SELECT id FROM (SELECT id, row_number() OVER (PARTITION BY principal ORDER BY id DESC) AS place FROM replies)
            WHERE place > ?)"""
    return old + connection.execute(query, (IDEMPOTENCY_RECORDS,)).rowcount


def forget_context(connection: Connection, context: str) -> None:
    """Forget replies that tell of a context: it is being deleted, and answers are text. The job `erases`."""
    connection.execute("DELETE FROM replies WHERE context = ?", (context,))


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
