"""What the database survives, what it refuses, and what it says about it."""

import hashlib
import os
import random
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kernos.kernel.memory import database, filestore, history, library, records, schema, transcripts, window
from kernos.kernel.memory.accounts import number_of
from kernos.kernel.memory.commits import Count, read_count
from kernos.kernel.memory.connection import Connection, log_of
from kernos.kernel.memory.database import COUNTER, KEY, NAME, DamagedError, open_database, storage_key
from kernos.kernel.memory.records import Request
from kernos.syscalls.errors import StorageError
from tests.kernel.memory.storage import NOW, OWNER, PAYERS, Storage, context, id_of, texts

COMMITS = 12
TAIL = 4_096
PROVE = bool(os.environ.get("KERNOS_PROVE"))


@pytest.fixture(autouse=True)
def small_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """To open a database makes room for its log, and here it is opened very often."""
    monkeypatch.setattr(database, "LOG_BYTES", 64 << 10)


def fact(number: int) -> Callable[[Connection], None]:
    return lambda connection: records.remember(connection, "usage", "app:a", f"{number:03}", os.urandom(600))


def numbers(connection: Connection) -> list[int]:
    return [int(name) for _, name, _ in records.facts(connection, "usage")]


def copied(folder: Path, to: Path) -> Path:
    """The files as a crash would leave them."""
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir()
    for name in (NAME, NAME + "-wal", COUNTER, KEY):
        if (folder / name).exists():
            shutil.copy(folder / name, to)
    return to


@pytest.fixture
def crashed(tmp_path: Path) -> Path:
    """The folder of a kernel that died after `COMMITS` commits that are in the log alone; the schema is another."""
    storage = Storage(tmp_path / "state")
    for number in range(COMMITS):
        storage.write(fact(number))
    folder = copied(tmp_path / "state", tmp_path / "crashed")
    storage.close()
    used = log_of(folder / NAME).read_bytes().rstrip(b"\0")
    log_of(folder / NAME).write_bytes(used)
    return folder


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """The folder of a kernel that was stopped in peace after as many commits."""
    storage = Storage(tmp_path / "state")
    for number in range(COMMITS):
        storage.write(fact(number))
    storage.close()
    return tmp_path / "state"


def outcome(folder: Path) -> int | None:
    """How many commits are lost, having checked that the others are there and all is said; `None`: refused."""
    try:
        opened = open_database(folder, storage_key(folder))
    except DamagedError:
        return None
    assert numbers(opened.connection) == list(range(opened.recovery.commits - 1))
    assert opened.recovery.lost == COMMITS + 1 - opened.recovery.commits
    losses = opened.connection.execute("SELECT at, lost FROM losses").fetchall()
    assert losses == ([(opened.recovery.commits, opened.recovery.lost)] if opened.recovery.lost else [])
    assert bool(opened.recovery.report()) == bool(opened.recovery.lost)
    opened.close()
    return opened.recovery.lost


def places(size: int, few: int) -> Iterator[int]:
    """Every byte of the last 4 KiB, or a few of them, always the same."""
    tail = range(max(0, size - TAIL), size)
    yield from tail if PROVE else sorted(random.Random(4).sample(tail, few))


# --- keys, folders, versions


def test_files_are_for_their_owner_alone(storage: Storage) -> None:
    assert stat.S_IMODE(storage.folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in storage.folder.iterdir()} == {0o600}
    assert len((storage.folder / KEY).read_bytes()) == 32


def test_what_was_written_is_there_again(stopped: Path) -> None:
    assert outcome(stopped) == 0
    assert outcome(stopped) == 0


def test_another_key_is_refused(stopped: Path) -> None:
    with pytest.raises(DamagedError, match="its key is not this one"):
        open_database(stopped, bytes(32))
    assert outcome(stopped) == 0


def test_a_lost_key_is_not_made_anew(stopped: Path) -> None:
    (stopped / KEY).unlink()
    with pytest.raises(DamagedError, match="without it"):
        storage_key(stopped)


def test_a_database_of_a_newer_kernel_is_refused(stopped: Path) -> None:
    storage = Storage(stopped)
    storage.database.connection.execute("PRAGMA user_version = 99")
    storage.close()
    with pytest.raises(StorageError, match="newer kernel"):
        open_database(stopped, storage_key(stopped))


def _file_as_before(connection: Connection) -> None:
    """A file as the first version wrote one: without labels, and not searched."""
    digest = hashlib.sha256(b"tulips").digest()
    connection.execute("INSERT INTO files VALUES (1, ?, 'x', 1, ?)", (OWNER, number_of(connection, PAYERS)))
    connection.execute("INSERT INTO contents VALUES (1, 6, ?)", (digest,))
    connection.execute("INSERT INTO chunks VALUES (1, 0, ?, ?)", (digest, b"tulips"))
    connection.execute("INSERT INTO versions VALUES (1, 1, 1, ?, ?)", (OWNER, NOW))


def _contexts_as_before(connection: Connection) -> None:
    """Two contexts of one message, all that refers to them, and a third that is deleted, as versions wrote them that repeated names."""
    for key, owner, name in ((1, OWNER, "chat"), (2, "user:bob", "chat"), (3, OWNER, "gone")):
        connection.execute("INSERT INTO branches (id, base, context) VALUES (?, 0, ?)", (key, key))
        values = (key, bytes.fromhex(id_of(owner, name)), owner, name, number_of(connection, PAYERS), key, NOW, NOW)
        connection.execute(
            "INSERT INTO contexts (key, id, owner, name, payers_id, branch, created, updated, length) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1)",
            values,
        )
        connection.execute(
            "INSERT INTO messages (branch, seq, role, time, tokens, tokenizer, all_tokens, all_bytes, digest, text)"
            " VALUES (?, 0, 'user', ?, 1, 'tiny', 1, 1, ?, 'a')",
            (key, NOW, transcripts.digest_of("user", "a", b"")),
        )
    connection.execute("INSERT INTO context_grants VALUES (1, 'user:bob', 'read')")
    connection.execute("INSERT INTO pins VALUES (1, 0)")
    connection.execute("INSERT INTO snapshots VALUES (1, 'then', 1, 1, ?)", (NOW,))
    connection.execute("INSERT INTO operations VALUES (1, 1, ?, ?, 'snapshot', 1, 1, 1, 0, 1, 'then')", (NOW, OWNER))
    connection.execute("DELETE FROM contexts WHERE key = 3")


def _replies_as_before(connection: Connection) -> None:
    """What became of a call that tells of a context, and of one that does not."""
    for call, of in (("ask", id_of(OWNER, "chat")), ("put", None)):
        connection.execute(
            "INSERT INTO replies (principal, call, digest, time, reply, context) VALUES ('app:a', ?, ?, ?, ?, ?)",
            (call, hashlib.sha256(call.encode()).digest(), NOW, call.encode(), of),
        )


def test_a_database_of_the_first_kernel_is_migrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = _migrated(tmp_path, monkeypatch, 1, _contexts_as_before, _file_as_before)
    assert new.read(lambda connection: texts(connection, id_of(OWNER, "chat"))) == ["a"]
    file = new.read(lambda connection: filestore.find(connection, OWNER, OWNER, "x"))
    assert len(new.write(lambda connection: library.shelve(connection, file)).made) == 1
    new.close()


def test_contexts_keep_all_that_refers_to_them_when_their_owners_get_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = _migrated(tmp_path, monkeypatch, 5, _contexts_as_before, _replies_as_before)
    chat = id_of(OWNER, "chat")
    assert new.read(lambda connection: texts(connection, chat, "user:bob")) == ["a"], "it was granted"
    row = new.read(lambda connection: transcripts.find(connection, OWNER, chat, "own"))
    assert (row.name, row.owner, row.payers, row.length, row.created) == ("chat", OWNER, PAYERS, 1, NOW)
    assert new.read(lambda connection: window.pins(connection, row)) == [0]
    assert [shot.name for shot in new.read(lambda connection: history.snapshots(connection, OWNER, chat))] == ["then"]
    assert [done.kind for done in new.read(lambda connection: history.history(connection, OWNER, chat))] == ["append", "snapshot"]
    for call in ("ask", "put"):
        again = Request("app:a", call, hashlib.sha256(call.encode()).digest()[:8])
        assert new.read(lambda connection, again=again: records.reply_to(connection, again, NOW)) == call.encode()  # type: ignore[misc]
    new.write(lambda connection: records.forget_context(connection, row.key), erases=True)
    assert new.read(lambda connection: connection.execute("SELECT call FROM replies").fetchall()) == [("put",)]
    assert new.read(lambda connection: connection.execute("PRAGMA foreign_key_check").fetchall()) == []
    assert new.write(lambda connection: context(connection, "new")).key == 4, "no key is given twice"
    new.write(lambda connection: transcripts.delete(connection, OWNER, chat), erases=True)
    assert new.read(lambda connection: connection.execute("SELECT * FROM pins").fetchall()) == [], "what refers to it goes with it again"
    new.close()


def _migrated(folder: Path, monkeypatch: pytest.MonkeyPatch, version: int, *jobs: Callable[[Connection], None]) -> Storage:
    """A database that a kernel of an older version has written, opened by this one."""
    newest = schema.MIGRATIONS
    monkeypatch.setattr(schema, "MIGRATIONS", newest[:version])
    old = Storage(folder)
    for job in jobs:
        old.write(job)
    old.close()
    monkeypatch.setattr(schema, "MIGRATIONS", newest)
    new = Storage(folder)
    assert new.database.recovery.lost == 0
    assert new.read(lambda connection: connection.execute("PRAGMA user_version").fetchone()[0]) == len(newest)
    return new


def test_a_crash_while_it_is_made_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    storage_key(tmp_path)
    (tmp_path / NAME).touch()
    storage = Storage(tmp_path)
    assert storage.database.recovery.lost == 0
    storage.close()


# --- losses


def test_a_crash_loses_nothing(crashed: Path) -> None:
    assert outcome(crashed) == 0


def test_a_commit_that_nobody_was_told_of_may_be_there(crashed: Path) -> None:
    (crashed / COUNTER).write_bytes(_older_count(crashed / COUNTER))
    opened = open_database(crashed, storage_key(crashed))
    assert (opened.recovery.commits, opened.recovery.lost) == (COMMITS + 1, 0)
    opened.close()
    assert read_count(crashed / COUNTER) == opened._counter.count
    assert opened._counter.count.commits == COMMITS + 1


def _older_count(path: Path) -> bytes:
    """The counter before its last write."""
    count = read_count(path) or Count()
    data = bytearray(path.read_bytes())
    start = count.turn % 2 * 4_096
    data[start : start + 100] = bytes(100)
    path.write_bytes(data)
    older = read_count(path)
    assert older is not None
    assert (older.turn, older.commits) == (count.turn - 1, count.commits - 1)
    return bytes(data)


def test_a_torn_counter_is_the_one_before(crashed: Path) -> None:
    path = crashed / COUNTER
    count, whole = read_count(path), path.read_bytes()
    assert count is not None
    for place in range(100):
        torn = bytearray(whole)
        torn[count.turn % 2 * 4_096 + place] ^= 0xFF
        path.write_bytes(torn)
        found = read_count(path)
        assert found is not None
        assert found.turn == (count.turn - 1 if place < 72 else count.turn)  # a slot has 72 bytes


def test_a_lost_counter_is_said(crashed: Path) -> None:
    (crashed / COUNTER).unlink()
    with pytest.raises(DamagedError, match="nobody can say"):
        open_database(crashed, storage_key(crashed), accept_loss=False)
    opened = open_database(crashed, storage_key(crashed))
    assert opened.recovery.lost is None
    assert "nobody can say" in opened.recovery.report()
    assert opened.connection.execute("SELECT at, lost FROM losses").fetchall() == [(COMMITS + 1, None)]
    opened.close()
    again = open_database(crashed, storage_key(crashed))
    assert again.recovery.lost == 0
    again.close()


def test_a_lost_database_is_refused(crashed: Path) -> None:
    (crashed / NAME).unlink()
    with pytest.raises(DamagedError, match=f"held {COMMITS + 1} commits"):
        open_database(crashed, storage_key(crashed))


def test_a_lost_log_is_counted(crashed: Path) -> None:
    log_of(crashed / NAME).unlink()
    assert outcome(crashed) == COMMITS


def test_an_older_database_in_its_place_is_noticed(crashed: Path, tmp_path: Path) -> None:
    old = Storage(tmp_path / "old")
    old.close()
    for name in (NAME, KEY):
        shutil.copy(tmp_path / "old" / name, crashed)
    log_of(crashed / NAME).unlink()
    assert outcome(crashed) == COMMITS


def test_a_loss_can_be_refused_and_nothing_is_changed(crashed: Path, tmp_path: Path) -> None:
    log = log_of(crashed / NAME)
    log.write_bytes(log.read_bytes()[:-5_000])
    copy = copied(crashed, tmp_path / "copy")
    with pytest.raises(DamagedError, match=r"the last \d+ are lost"):
        open_database(copy, storage_key(copy), accept_loss=False)
    for name in (NAME, NAME + "-wal", COUNTER):
        assert (copy / name).read_bytes() == (crashed / name).read_bytes()
    assert outcome(copy) != 0


# --- every byte of the tails


def test_a_cut_log(crashed: Path, tmp_path: Path) -> None:
    whole = log_of(crashed / NAME).read_bytes()
    found = set()
    for length in places(len(whole), 40):
        copy = copied(crashed, tmp_path / "copy")
        log_of(copy / NAME).write_bytes(whole[:length])
        found.add(outcome(copy))
    assert 1 in found
    assert 0 not in found


def test_a_flipped_bit_in_the_log(crashed: Path, tmp_path: Path) -> None:
    whole = log_of(crashed / NAME).read_bytes()
    for place in places(len(whole), 40):
        copy = copied(crashed, tmp_path / "copy")
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        log_of(copy / NAME).write_bytes(damaged)
        assert outcome(copy) != 0


def test_a_torn_log(crashed: Path, tmp_path: Path) -> None:
    """A sector of the tail that was never written."""
    whole = log_of(crashed / NAME).read_bytes()
    for place in places(len(whole) - 512, 20):
        copy = copied(crashed, tmp_path / "copy")
        log_of(copy / NAME).write_bytes(whole[:place] + bytes(512) + whole[place + 512 :])
        assert outcome(copy) != 0


@pytest.mark.parametrize("damage", ["flip", "cut", "zero"])
def test_damage_to_the_tail_of_the_database_is_refused(stopped: Path, tmp_path: Path, damage: str) -> None:
    whole = (stopped / NAME).read_bytes()
    for place in places(len(whole), 15):
        copy = copied(stopped, tmp_path / "copy")
        damaged = bytearray(whole)
        if damage == "flip":
            damaged[place] ^= 1 << place % 8
        elif damage == "cut":
            del damaged[place:]
        else:
            damaged[place:] = bytes(len(whole) - place)
        (copy / NAME).write_bytes(damaged)
        assert outcome(copy) is None


# --- the log, half copied


def half_copied(tmp_path: Path, *, done: bool) -> Path:
    """A kernel that died while, or right after, the log was copied into the database."""
    storage = Storage(tmp_path / "state")
    for number in range(COMMITS):
        storage.write(fact(number))
    storage.database.checkpoint()
    folder = copied(tmp_path / "state", tmp_path / "half")
    storage.close()
    count = read_count(folder / COUNTER)
    assert count is not None
    assert count.copy_begun == count.copy_done == COMMITS + 1
    if not done:
        (folder / COUNTER).write_bytes(_older_count_of_copy(folder / COUNTER))
    return folder


def _older_count_of_copy(path: Path) -> bytes:
    count = read_count(path)
    assert count is not None
    data = bytearray(path.read_bytes())
    data[count.turn % 2 * 4_096] ^= 1
    path.write_bytes(data)
    older = read_count(path)
    assert older is not None
    assert older.copy_done < older.copy_begun == COMMITS + 1
    return bytes(data)


def test_a_log_that_was_copied_whole_is_not_needed(tmp_path: Path) -> None:
    folder = half_copied(tmp_path, done=True)
    whole = log_of(folder / NAME).read_bytes()
    for place in random.Random(1).sample(range(len(whole.rstrip(b"\0"))), 10):
        copy = copied(folder, tmp_path / "copy")
        log_of(copy / NAME).write_bytes(whole[:place] + b"?" + whole[place + 1 :])
        assert outcome(copy) == 0


def test_a_log_that_was_being_copied_must_be_whole(tmp_path: Path) -> None:
    folder = half_copied(tmp_path, done=False)
    assert outcome(copied(folder, tmp_path / "copy")) == 0
    whole = log_of(folder / NAME).read_bytes()
    used = len(whole.rstrip(b"\0"))
    for place in (10, 40, used // 2, used - 100):
        copy = copied(folder, tmp_path / "copy")
        log_of(copy / NAME).write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert outcome(copy) is None
    copy = copied(folder, tmp_path / "copy")
    log_of(copy / NAME).unlink()
    assert outcome(copy) is None
