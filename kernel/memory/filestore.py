"""Files in the database: named values with all their versions, in a name space per owner.

A path is relative, of segments that are names, in Unicode's composed form (NFC); it cannot lead anywhere else. Large values lie in chunks,
each with a checksum, and the whole has one. Versions are never changed: to roll back is to write the old content again as the newest, and
the rows of a content are shared by the versions that have it.

What is not the actor's and not granted to him does not exist for him.
"""

import hashlib
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

import msgspec

from kernos.syscalls.errors import BadRequestError, ConflictError, DeniedError, NotFoundError, StorageError

from ..core.quotas import Payers
from ..limits import CHUNK_BYTES
from .accounts import NAMES, decoded, number_of
from .connection import Connection

Access = Literal["read", "write"]

_PATH_CHARACTERS: Final = 200


class FileRow(msgspec.Struct, frozen=True):
    """A version of a file; the current one counts its writes from 1. `digest` is the SHA-256 of the whole."""

    key: int
    owner: str
    path: str
    version: int
    size: int
    digest: bytes
    author: str
    time: float
    labels: tuple[str, ...]
    payers: Payers


class Total(msgspec.Struct, frozen=True):
    """What a file is charged to whom: the bytes of all its versions."""

    payers: Payers
    bytes: int


_SELECT: Final = f"""
    SELECT key, owner, path, versions.version, size, digest, author, time, versions.labels, {NAMES} FROM files
    JOIN versions ON file = key JOIN contents ON contents.id = content """  # noqa: S608  (names of our own)


# --- reading --------------------------------------------------------------------------------------------------------------------


def normalised(path: str) -> str:
    """The one spelling of a path; `BadRequestError` for what is no path below a root."""
    path = unicodedata.normalize("NFC", path)
    wrong = any(segment in ("", ".", "..") for segment in path.split("/"))
    if wrong or len(path) > _PATH_CHARACTERS or any(unicodedata.category(char).startswith("C") or char == "\\" for char in path):
        raise BadRequestError(f"{path[:_PATH_CHARACTERS]!r} is no path: it is `names/joined/by/slashes`, with no `.`, `..` or empty name.")
    return path


def find(connection: Connection, actor: str, owner: str, path: str, version: int | None = None) -> FileRow:
    """A file that the actor may read: its current version, or an older one."""
    path = normalised(path)
    check_access(connection, actor, owner, path, "read")
    which = "WHERE owner = ? AND path = ? AND versions.version = coalesce(?, files.version)"
    found = connection.execute(_SELECT + which, (owner, path, version)).fetchone()
    if found is None:
        raise _absent(owner, path, version)
    return _file(found)


def read(connection: Connection, file: FileRow, start: int = 0, stop: int | None = None) -> bytes:
    """Bytes `start` to `stop` of a file that was found. The chunks they lie in are read and checked, and the whole if all are."""
    stop = file.size if stop is None else min(stop, file.size)
    if start >= stop:
        return b""
    query = """
        SELECT number, chunks.digest, data FROM versions JOIN chunks USING (content)
        WHERE file = ? AND version = ? AND number BETWEEN ? AND ? ORDER BY number"""
    first = start // CHUNK_BYTES
    rows = connection.execute(query, (file.key, file.version, first, (stop - 1) // CHUNK_BYTES)).fetchall()
    data = b"".join(chunk for _, _, chunk in rows)[start - first * CHUNK_BYTES :][: stop - start]
    sound = all(hashlib.sha256(chunk).digest() == digest for _, digest, chunk in rows) and len(data) == stop - start
    if not sound or (len(data) == file.size and hashlib.sha256(data).digest() != file.digest):
        raise StorageError(f"{file.path}, version {file.version}, is not what was written. Restore a backup.", reason="digest")
    return data


def of(connection: Connection, actor: str, owner: str, prefix: str = "") -> list[FileRow]:
    """An owner's files that the actor may read and whose path begins with `prefix`, by path."""
    prefix = unicodedata.normalize("NFC", prefix)
    where = "WHERE owner = ? AND versions.version = files.version AND path >= ? AND path < ? ORDER BY path"
    found = [_file(row) for row in connection.execute(_SELECT + where, (owner, prefix, prefix + chr(0x10FFFF)))]
    if actor == owner:
        return found
    grants = _grants(connection, actor, owner)
    return [file for file in found if any(_within(file.path, granted) for granted, _ in grants)]


def history(connection: Connection, actor: str, owner: str, path: str) -> list[FileRow]:
    """All versions of a file, the oldest first."""
    key = find(connection, actor, owner, path).key
    return [_file(row) for row in connection.execute(_SELECT + "WHERE key = ? ORDER BY versions.version", (key,))]


# --- writing --------------------------------------------------------------------------------------------------------------------


def put(
    connection: Connection,
    actor: str,
    owner: str,
    path: str,
    data: bytes,
    expect: int | None,
    payers: Payers,
    now: float,
    labels: Iterable[str] = (),
) -> FileRow:
    """Write a file whole; with `expect`, only over that version (0: only if it does not exist)."""
    path = normalised(path)
    check_access(connection, actor, owner, path, "write")
    check_version(connection, owner, path, expect)
    return write_version(connection, actor, owner, path, _store(connection, data), payers, now, labels)


def rollback(
    connection: Connection, actor: str, owner: str, path: str, version: int, payers: Payers, now: float, labels: Iterable[str] = ()
) -> FileRow:
    """Make an old version the newest one again, with its labels and these; those between stay in the history."""
    old = find(connection, actor, owner, path, version)
    check_access(connection, actor, owner, old.path, "write")
    content = connection.execute("SELECT content FROM versions WHERE file = ? AND version = ?", (old.key, version)).fetchone()[0]
    return write_version(connection, actor, owner, old.path, content, payers, now, (*old.labels, *labels))


def move(
    connection: Connection, actor: str, owner: str, path: str, to: str, expect: int | None = None, labels: Iterable[str] = ()
) -> FileRow:
    """Give a file another path, with its history, and its newest version these labels; `ConflictError` if there is a file already."""
    file, to = find(connection, actor, owner, path), normalised(to)
    for end in (file.path, to):
        check_access(connection, actor, owner, end, "write")
    check_version(connection, owner, file.path, expect)
    if connection.execute("SELECT 1 FROM files WHERE owner = ? AND path = ?", (owner, to)).fetchone():
        raise ConflictError(f"{owner} has a file {to} already. Delete it first, or choose another path.")
    connection.execute("UPDATE files SET path = ? WHERE key = ?", (to, file.key))
    values = (_json((*file.labels, *labels)), file.key, file.version)
    connection.execute("UPDATE versions SET labels = ? WHERE file = ? AND version = ?", values)
    return find(connection, actor, owner, to)


def delete(connection: Connection, actor: str, owner: str, path: str) -> FileRow:
    """Remove a file with all its versions; what it was. The job `erases`."""
    file = find(connection, actor, owner, path)
    check_access(connection, actor, owner, file.path, "write")
    contents = connection.execute("SELECT DISTINCT content FROM versions WHERE file = ?", (file.key,)).fetchall()
    connection.execute("DELETE FROM files WHERE key = ?", (file.key,))
    _drop(connection, contents)
    return file


def trim(connection: Connection, before: float, limit: int = 1 << 30) -> list[Total]:
    """Delete versions that were replaced and written before a time, at most so many; what each was charged. The job `erases`."""
    query = f"""
        SELECT file, versions.version, content, {NAMES}, size FROM versions JOIN files ON key = file JOIN contents ON contents.id = content
        WHERE time < ? AND versions.version < files.version LIMIT ?"""  # noqa: S608  (names of our own)
    gone = connection.execute(query, (before, limit)).fetchall()
    connection.executemany("DELETE FROM versions WHERE file = ? AND version = ?", [(file, version) for file, version, *_ in gone])
    _drop(connection, {(content,) for _, _, content, _, _ in gone})
    return [Total(decoded(names), size) for *_, names, size in gone]


def share(connection: Connection, owner: str, prefix: str, principal: str, access: Literal["read", "write"] | None) -> None:
    """Share the file or the folder of this path (empty: all) with a principal, or with `None` no more."""
    prefix = normalised(prefix) if prefix else ""
    connection.execute("DELETE FROM file_grants WHERE principal = ? AND owner = ? AND prefix = ?", (principal, owner, prefix))
    if access is not None:
        connection.execute(
            "INSERT INTO file_grants (owner, prefix, principal, access) VALUES (?, ?, ?, ?)", (owner, prefix, principal, access)
        )


def total(connection: Connection, owner: str, path: str) -> Total | None:
    """What a file is charged, if there is one."""
    query = f"""
        SELECT {NAMES}, (SELECT sum(size) FROM versions JOIN contents ON contents.id = content WHERE file = key)
        FROM files WHERE owner = ? AND path = ?"""  # noqa: S608  (names of our own)
    found = connection.execute(query, (owner, normalised(path))).fetchone()
    return Total(decoded(found[0]), found[1]) if found else None


def charges(connection: Connection) -> list[tuple[Payers, int, int]]:
    """What all files are charged to whom: payers, files, bytes of all their versions. For the books of a kernel that starts."""
    query = """
        SELECT names, count(DISTINCT key), sum(size) FROM files JOIN versions ON file = key JOIN contents ON contents.id = content
        JOIN payers ON payers.id = payers_id GROUP BY names"""
    return [(decoded(names), files, size) for names, files, size in connection.execute(query)]


# --- for uploads too --------------------------------------------------------------------------------------------------------------


def check_access(connection: Connection, actor: str, owner: str, path: str, access: Access) -> None:
    """Raise unless the actor may do this with a path, whether there is a file or not."""
    if actor == owner:
        return
    rights = {right for prefix, right in _grants(connection, actor, owner) if _within(path, prefix)}
    if not rights:
        raise _absent(owner, path, None)
    if access == "write" and "write" not in rights:
        raise DeniedError(f"{owner} lets {actor} read {path}, not write it.", subject=actor, object=f"store/{owner}/{path}", action=access)


def write_version(
    connection: Connection, actor: str, owner: str, path: str, content: int, payers: Payers, now: float, labels: Iterable[str] = ()
) -> FileRow:
    """A new version of a file, of a content that is there."""
    upsert = """
        INSERT INTO files (owner, path, version, payers_id) VALUES (?, ?, 1, ?)
        ON CONFLICT (owner, path) DO UPDATE SET version = version + 1, payers_id = excluded.payers_id RETURNING key, version"""
    key, version = connection.execute(upsert, (owner, path, number_of(connection, payers))).fetchone()
    values = (key, version, content, actor, now, _json(labels))
    connection.execute("INSERT INTO versions (file, version, content, author, time, labels) VALUES (?, ?, ?, ?, ?, ?)", values)
    return _file(connection.execute(_SELECT + "WHERE key = ? AND versions.version = ?", (key, version)).fetchone())


def check_version(connection: Connection, owner: str, path: str, expect: int | None) -> None:
    """Raise unless a file is at this version; 0: unless there is none."""
    found = connection.execute("SELECT version FROM files WHERE owner = ? AND path = ?", (owner, path)).fetchone()
    version = found[0] if found else 0
    if expect is not None and expect != version:
        raise ConflictError(f"{path} is at version {version}, not {expect}. Read it again and decide anew.", version=str(version))


# --- inside ---------------------------------------------------------------------------------------------------------------------


def _grants(connection: Connection, actor: str, owner: str) -> Sequence[tuple[str, str]]:
    query = "SELECT prefix, access FROM file_grants WHERE principal = ? AND owner = ?"
    return connection.execute(query, (actor, owner)).fetchall()


def _within(path: str, prefix: str) -> bool:
    return not prefix or path == prefix or path.startswith(prefix + "/")


def _absent(owner: str, path: str, version: int | None) -> NotFoundError:
    what = path if version is None else f"{path} of version {version}"
    return NotFoundError(f"{owner} has no file {what}. `store.list` shows what there is.")


def _store(connection: Connection, data: bytes) -> int:
    insert = "INSERT INTO contents (size, digest) VALUES (?, ?) RETURNING id"
    content = int(connection.execute(insert, (len(data), hashlib.sha256(data).digest())).fetchone()[0])
    parts = (data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES))
    rows = ((content, number, hashlib.sha256(part).digest(), part) for number, part in enumerate(parts))
    connection.executemany("INSERT INTO chunks (content, number, digest, data) VALUES (?, ?, ?, ?)", rows)
    return content


def _drop(connection: Connection, contents: Iterable[tuple[int]]) -> None:
    """Delete contents that no version has any more."""
    connection.executemany(
        "DELETE FROM contents WHERE id = ? AND id NOT IN (SELECT content FROM versions WHERE content = contents.id)", contents
    )


def _file(row: Sequence[Any]) -> FileRow:
    values: dict[str, Any] = dict(zip(FileRow.__struct_fields__, row, strict=True))
    values["payers"] = decoded(values["payers"])
    values["labels"] = msgspec.json.decode(values["labels"], type=tuple[str, ...])
    return FileRow(**values)


def _json(labels: Iterable[str]) -> str:
    return msgspec.json.encode(sorted(set(labels))).decode()
