"""Files: paths, versions, chunks, grants."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernos.kernel.memory import filestore
from kernos.kernel.memory.connection import Connection
from kernos.kernel.memory.filestore import FileRow
from kernos.syscalls.errors import BadRequestError, ConflictError, DeniedError, KernosError, NotFoundError, StorageError
from tests.kernel.fakes import examples
from tests.kernel.memory.storage import NOW, OWNER, PAYERS

OTHER = "user:bob"


def put(connection: Connection, path: str, data: bytes, expect: int | None = None, *, actor: str = OWNER, now: float = NOW) -> FileRow:
    return filestore.put(connection, actor, OWNER, path, data, expect, PAYERS, now)


def get(connection: Connection, path: str, version: int | None = None, *, actor: str = OWNER) -> bytes:
    return filestore.read(connection, filestore.find(connection, actor, OWNER, path, version))


@pytest.mark.parametrize("path", ["", "/a", "a/", "a//b", ".", "..", "a/../b", "a/.", "a\0b", "a\nb", "a\\b", "x" * 201])
def test_what_is_no_path_is_refused(connection: Connection, path: str) -> None:
    with pytest.raises(BadRequestError):
        put(connection, path, b"")


def test_a_path_has_one_spelling(connection: Connection) -> None:
    put(connection, "cafe\u0301/x", b"1")
    assert get(connection, "caf\u00e9/x") == b"1"
    assert put(connection, "caf\u00e9/x", b"2").version == 2


@examples(300)
@given(st.text(max_size=30))
def test_a_normalised_path_stays_below_its_root(path: str) -> None:
    try:
        good = filestore.normalised(path)
    except BadRequestError:
        return
    assert filestore.normalised(good) == good
    assert not good.startswith("/")
    assert not {"", ".", ".."} & set(good.split("/"))


def test_versions_count_up_and_are_all_kept(connection: Connection) -> None:
    for number in range(1, 4):
        assert put(connection, "a", b"%d" % number, number - 1).version == number
    with pytest.raises(ConflictError, match="at version 3, not 0"):
        put(connection, "a", b"", 0)
    assert [get(connection, "a", version) for version in (None, 1, 2, 3)] == [b"3", b"1", b"2", b"3"]
    assert [(file.version, file.size, file.author) for file in filestore.history(connection, OWNER, OWNER, "a")] == [
        (version, 1, OWNER) for version in (1, 2, 3)
    ]
    with pytest.raises(NotFoundError, match="version 4"):
        get(connection, "a", 4)


def test_a_rollback_is_a_new_version_that_shares_its_content(connection: Connection) -> None:
    for data in (b"old", b"new"):
        put(connection, "a", data)
    assert filestore.rollback(connection, OWNER, OWNER, "a", 1, PAYERS, NOW).version == 3
    assert get(connection, "a") == b"old"
    assert connection.execute("SELECT count(*) FROM contents").fetchone() == (2,)
    assert [gone.bytes for gone in filestore.trim(connection, NOW + 1)] == [3, 3]
    assert (get(connection, "a"), connection.execute("SELECT count(*) FROM contents").fetchone()) == (b"old", (1,))


def test_a_move_takes_the_history_along_and_overwrites_nothing(connection: Connection) -> None:
    put(connection, "a", b"1")
    put(connection, "a", b"2")
    put(connection, "c", b"3")
    with pytest.raises(ConflictError):
        filestore.move(connection, OWNER, OWNER, "a", "c")
    with pytest.raises(ConflictError):
        filestore.move(connection, OWNER, OWNER, "a", "b", 1)
    assert filestore.move(connection, OWNER, OWNER, "a", "b/b", 2).path == "b/b"
    assert get(connection, "b/b", 1) == b"1"
    with pytest.raises(NotFoundError):
        get(connection, "a")


def test_a_deleted_file_is_gone_whole(connection: Connection) -> None:
    put(connection, "a", b"1")
    put(connection, "a", b"2")
    filestore.delete(connection, OWNER, OWNER, "a")
    left = [connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("files", "versions", "contents", "chunks")]
    assert left == [0, 0, 0, 0]
    assert put(connection, "a", b"", 0).version == 1


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 20, 95])
def test_large_values_are_read_in_parts(connection: Connection, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(filestore, "CHUNK_BYTES", 10)
    data = bytes(range(size))
    file = put(connection, "a", data)
    for start in range(0, size + 1, 3):
        for stop in range(start, size + 12, 7):
            assert filestore.read(connection, file, start, stop) == data[start:stop]


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE chunks SET data = x'00' WHERE number = 1",
        "DELETE FROM chunks WHERE number = 1",
        "DELETE FROM chunks WHERE number = 2",
        "UPDATE contents SET digest = x'00'",
        "UPDATE contents SET size = 24",
    ],
)
def test_a_file_that_was_changed_is_not_read(connection: Connection, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    monkeypatch.setattr(filestore, "CHUNK_BYTES", 10)
    put(connection, "a", bytes(25))
    connection.execute(damage)
    with pytest.raises(StorageError, match="not what was written"):
        get(connection, "a")


def test_files_are_listed_by_prefix(connection: Connection) -> None:
    for path in ("b/1", "a", "b/2", "bc", "\U0001f4c4"):
        put(connection, path, b"")
    assert [file.path for file in filestore.of(connection, OWNER, OWNER)] == ["a", "b/1", "b/2", "bc", "\U0001f4c4"]
    assert [file.path for file in filestore.of(connection, OWNER, OWNER, "b/")] == ["b/1", "b/2"]


def test_who_pays_is_known_again(connection: Connection) -> None:
    put(connection, "a", b"12")
    put(connection, "a", b"345")
    put(connection, "b", b"6")
    assert filestore.charges(connection) == [(PAYERS, 2, 6)]


# --- grants


def test_a_shared_folder_is_just_that_folder(connection: Connection) -> None:
    for path in ("docs/a", "docs/b/c", "docs2/a", "docs"):
        put(connection, path, path.encode())
    filestore.share(connection, OWNER, "docs", OTHER, "read")
    assert [file.path for file in filestore.of(connection, OTHER, OWNER)] == ["docs", "docs/a", "docs/b/c"]
    assert get(connection, "docs/b/c", actor=OTHER) == b"docs/b/c"
    with pytest.raises(NotFoundError):
        get(connection, "docs2/a", actor=OTHER)
    with pytest.raises(DeniedError):
        put(connection, "docs/a", b"", actor=OTHER)
    filestore.share(connection, OWNER, "docs", OTHER, None)
    assert filestore.of(connection, OTHER, OWNER) == []
    with pytest.raises(NotFoundError):
        get(connection, "docs/a", actor=OTHER)


def test_who_may_write_is_the_author_and_cannot_carry_files_away(connection: Connection) -> None:
    put(connection, "docs/a", b"1")
    put(connection, "private", b"2")
    filestore.share(connection, OWNER, "docs", OTHER, "write")
    assert put(connection, "docs/a", b"3", 1, actor=OTHER).author == OTHER
    acts: list[Callable[[], object]] = [
        lambda: filestore.move(connection, OTHER, OWNER, "docs/a", "elsewhere"),
        lambda: filestore.move(connection, OTHER, OWNER, "private", "docs/p"),
        lambda: filestore.delete(connection, OTHER, OWNER, "private"),
        lambda: filestore.rollback(connection, OTHER, OWNER, "private", 1, PAYERS, NOW),
        lambda: put(connection, "private", b"", actor=OTHER),
    ]
    for act in acts:
        with pytest.raises(NotFoundError):
            act()


PATHS = ["a", "a/b", "ab", "b/a", "b/a/c"]
PRINCIPALS = [f"user:p{number}" for number in range(20)]
who = st.sampled_from(PRINCIPALS)
operations = st.tuples(
    st.sampled_from(("put", "share", "unshare", "move", "delete")), who, who, st.sampled_from(PATHS), st.sampled_from(PATHS)
)


@examples(100)
@given(st.lists(operations, max_size=40))
def test_nobody_gets_what_was_not_granted(connection: Connection, steps: list[tuple[str, str, str, str, str]]) -> None:
    connection.execute("SAVEPOINT example")
    grants: set[tuple[str, str, str]] = set()
    for kind, owner, other, path, to in steps:
        try:
            if kind == "put":
                filestore.put(connection, other, owner, path, owner.encode(), None, PAYERS, NOW)
                assert other == owner
            elif kind == "move":
                filestore.move(connection, other, owner, path, to)
                assert other == owner
            elif kind == "delete":
                filestore.delete(connection, owner, owner, path)
            else:
                filestore.share(connection, owner, path, other, "read" if kind == "share" else None)
                (grants.add if kind == "share" else grants.discard)((owner, other, path))
        except KernosError:
            pass
        _check_access(connection, owner, other, grants)
    connection.execute("ROLLBACK TO example")
    connection.execute("RELEASE example")


def _check_access(connection: Connection, owner: str, actor: str, grants: set[tuple[str, str, str]]) -> None:
    allowed = {path for path in PATHS for prefix in PATHS if (owner, actor, prefix) in grants and f"{path}/".startswith(f"{prefix}/")}
    there = {file.path for file in filestore.of(connection, owner, owner)}
    expected = there if actor == owner else there & allowed
    assert {file.path for file in filestore.of(connection, actor, owner)} == expected
    for path in PATHS:
        try:
            filestore.find(connection, actor, owner, path)
            assert path in expected
        except NotFoundError:
            assert path not in expected
