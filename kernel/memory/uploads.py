"""Files that are too large for one message: they come in parts and become a version when the last one is there, whole or not at all.

Every part but the last has `CHUNK_BYTES`; parts come in order, and one that is sent again is taken for what it is.
"""

import hashlib
from collections.abc import Iterable

import msgspec

from kernos.syscalls.errors import BadRequestError, ConflictError, NotFoundError

from ..core.quotas import Payers
from ..limits import CHUNK_BYTES
from .connection import Connection
from .filestore import FileRow, check_access, check_version, normalised, write_version


class Upload(msgspec.Struct, frozen=True):
    """An upload: for which file, how many bytes have come, and the labels of those who sent them."""

    owner: str
    path: str
    size: int
    labels: tuple[str, ...]


def begin(connection: Connection, actor: str, owner: str, path: str, now: float, labels: Iterable[str] = ()) -> int:
    """A new upload for a path that the actor may write; its number."""
    path = normalised(path)
    check_access(connection, actor, owner, path, "write")
    content = int(connection.execute("INSERT INTO contents (size, digest) VALUES (0, x'') RETURNING id").fetchone()[0])
    values = (content, actor, owner, path, now, _json(labels))
    connection.execute("INSERT INTO uploads (content, actor, owner, path, time, labels) VALUES (?, ?, ?, ?, ?, ?)", values)
    return content


def add(connection: Connection, actor: str, upload: int, number: int, data: bytes, labels: Iterable[str] = ()) -> int:
    """Take part `number`, counted from 0; how many bytes there are then. `ConflictError` if it is not this part's turn."""
    found = find(connection, actor, upload)
    size = found.size
    if not 0 < len(data) <= CHUNK_BYTES:
        raise BadRequestError(f"A part of {len(data)} bytes: it must have {CHUNK_BYTES}, the last one up to that.")
    digest = hashlib.sha256(data).digest()
    there = connection.execute("SELECT digest FROM chunks WHERE content = ? AND number = ?", (upload, number)).fetchone()
    if there is not None and there[0] == digest:
        return size
    if there is not None or size != number * CHUNK_BYTES:
        raise ConflictError(f"Upload {upload} holds {size} bytes; part {number} with this content does not follow. Begin a new upload.")
    connection.execute("INSERT INTO chunks (content, number, digest, data) VALUES (?, ?, ?, ?)", (upload, number, digest, data))
    connection.execute("UPDATE contents SET size = size + ? WHERE id = ?", (len(data), upload))
    if not set(labels) <= set(found.labels):
        connection.execute("UPDATE uploads SET labels = ? WHERE content = ?", (_json((*found.labels, *labels)), upload))
    return size + len(data)


def finish(
    connection: Connection,
    actor: str,
    upload: int,
    digest: bytes,
    expect: int | None,
    payers: Payers,
    now: float,
    labels: Iterable[str] = (),
) -> FileRow:
    """Make the upload the newest version of its file; `ConflictError` if the SHA-256 of what came is not `digest`."""
    found = find(connection, actor, upload)
    owner, path = found.owner, found.path
    check_access(connection, actor, owner, path, "write")
    check_version(connection, owner, path, expect)
    whole = hashlib.sha256()
    for (data,) in connection.execute("SELECT data FROM chunks WHERE content = ? ORDER BY number", (upload,)):
        whole.update(data)
    if whole.digest() != digest:
        raise ConflictError(f"What came of {path} is not what was sent: its SHA-256 is another. Begin a new upload.")
    connection.execute("UPDATE contents SET digest = ? WHERE id = ?", (digest, upload))
    connection.execute("DELETE FROM uploads WHERE content = ?", (upload,))
    return write_version(connection, actor, owner, path, upload, payers, now, (*found.labels, *labels))


def expire(connection: Connection, before: float) -> int:
    """Throw away uploads that were begun before a time and not finished; how many. The job `erases`."""
    return connection.execute("DELETE FROM contents WHERE id IN (SELECT content FROM uploads WHERE time < ?)", (before,)).rowcount


def find(connection: Connection, actor: str, upload: int) -> Upload:
    """An upload of the actor's own."""
    query = "SELECT owner, path, size, labels FROM uploads JOIN contents ON id = content WHERE content = ? AND actor = ?"
    found = connection.execute(query, (upload, actor)).fetchone()
    if found is None:
        raise NotFoundError(f"There is no upload {upload}. Begin one; it is thrown away when it is not finished in time.")
    owner, path, size, labels = found
    return Upload(owner, path, size, msgspec.json.decode(labels, type=tuple[str, ...]))


def _json(labels: Iterable[str]) -> str:
    return msgspec.json.encode(sorted(set(labels))).decode()
