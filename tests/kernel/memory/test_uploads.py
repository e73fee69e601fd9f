"""Files that come in parts."""

import hashlib

import pytest

from kernos.kernel.memory import filestore, uploads
from kernos.kernel.memory.connection import Connection
from kernos.syscalls.errors import BadRequestError, ConflictError, NotFoundError
from tests.kernel.memory.storage import NOW, OWNER, PAYERS

DATA = bytes(range(25))
DIGEST = hashlib.sha256(DATA).digest()


@pytest.fixture
def upload(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> int:
    """One whose parts are all there."""
    for module in (filestore, uploads):
        monkeypatch.setattr(module, "CHUNK_BYTES", 10)
    number = uploads.begin(connection, OWNER, OWNER, "big", NOW)
    assert [uploads.add(connection, OWNER, number, part, DATA[part * 10 :][:10]) for part in range(3)] == [10, 20, 25]
    return number


def test_an_upload_becomes_a_version(connection: Connection, upload: int) -> None:
    with pytest.raises(NotFoundError):
        filestore.find(connection, OWNER, OWNER, "big")
    file = uploads.finish(connection, OWNER, upload, DIGEST, 0, PAYERS, NOW)
    assert (file.version, file.size, file.digest) == (1, 25, DIGEST)
    assert filestore.read(connection, file) == DATA
    assert filestore.read(connection, file, 8, 21) == DATA[8:21]
    with pytest.raises(NotFoundError):
        uploads.finish(connection, OWNER, upload, DIGEST, None, PAYERS, NOW)


def test_a_part_that_is_sent_again_is_taken_once(connection: Connection, upload: int) -> None:
    assert uploads.add(connection, OWNER, upload, 1, DATA[10:20]) == 25
    with pytest.raises(ConflictError):
        uploads.add(connection, OWNER, upload, 1, b"other")
    with pytest.raises(ConflictError, match="does not follow"):
        uploads.add(connection, OWNER, upload, 3, b"late")
    assert filestore.read(connection, uploads.finish(connection, OWNER, upload, DIGEST, None, PAYERS, NOW)) == DATA


@pytest.mark.parametrize("data", [b"", bytes(11)])
def test_a_part_has_its_size(connection: Connection, upload: int, data: bytes) -> None:
    with pytest.raises(BadRequestError):
        uploads.add(connection, OWNER, upload, 3, data)


def test_what_came_must_be_what_was_sent(connection: Connection, upload: int) -> None:
    with pytest.raises(ConflictError, match="another"):
        uploads.finish(connection, OWNER, upload, bytes(32), None, PAYERS, NOW)
    filestore.put(connection, OWNER, OWNER, "big", b"", None, PAYERS, NOW)
    with pytest.raises(ConflictError, match="at version 1"):
        uploads.finish(connection, OWNER, upload, DIGEST, 0, PAYERS, NOW)


def test_an_upload_is_its_actors_alone_and_needs_the_right(connection: Connection, upload: int) -> None:
    with pytest.raises(NotFoundError):
        uploads.add(connection, "user:bob", upload, 3, b"x")
    with pytest.raises(NotFoundError):
        uploads.finish(connection, "user:bob", upload, DIGEST, None, PAYERS, NOW)
    filestore.share(connection, OWNER, "big", "user:bob", "write")
    theirs = uploads.begin(connection, "user:bob", OWNER, "big", NOW)
    filestore.share(connection, OWNER, "big", "user:bob", None)
    with pytest.raises(NotFoundError):
        uploads.finish(connection, "user:bob", theirs, hashlib.sha256().digest(), None, PAYERS, NOW)


def test_what_was_not_finished_is_thrown_away(connection: Connection, upload: int) -> None:
    assert uploads.expire(connection, NOW) == 0
    assert uploads.expire(connection, NOW + 1) == 1
    assert [connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("uploads", "contents", "chunks")] == [0, 0, 0]
