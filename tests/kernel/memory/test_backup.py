"""Backups are whole, private and can be brought back; and no plain text is written anywhere."""

import stat
from pathlib import Path

import pytest

from kernos.kernel.memory import filestore, mail, records, transcripts, window
from kernos.kernel.memory.backup import backup, check, restore
from kernos.kernel.memory.connection import Connection
from kernos.kernel.memory.database import DamagedError, storage_key
from kernos.kernel.memory.mail import Letter
from kernos.kernel.memory.records import Request
from kernos.kernel.memory.transcripts import NewMessage
from kernos.syscalls.errors import ConflictError, StorageError
from tests.kernel.memory.storage import NOW, OWNER, PAYERS, Storage, context, id_of, say, texts


def chat(connection: Connection) -> str:
    return context(connection).id


def test_a_backup_holds_one_state_and_comes_back(storage: Storage, tmp_path: Path) -> None:
    key = storage_key(storage.folder)
    storage.write(lambda connection: say(connection, chat(connection), "a"))
    saved = tmp_path / "saved.db"
    commits = storage.read(lambda connection: backup(connection, key, saved))
    assert commits == storage.database.commits == check(saved, key)
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("saved")] == ["saved.db"]
    with pytest.raises(ConflictError):
        storage.read(lambda connection: backup(connection, key, saved))
    storage.write(lambda connection: say(connection, chat(connection), "b"))
    storage.close()
    assert restore(saved, key, storage.folder) == commits
    again = Storage(storage.folder)
    assert (again.database.recovery.commits, again.database.recovery.lost) == (commits, 0)
    assert again.read(lambda connection: texts(connection, id_of(OWNER, "chat"))) == ["a"]
    again.write(lambda connection: say(connection, chat(connection), "c"))
    again.close()


def test_a_backup_is_taken_while_others_write(storage: Storage, tmp_path: Path) -> None:
    key = storage_key(storage.folder)
    reader = storage.database.reader()
    reader.execute("BEGIN")
    before = reader.execute("SELECT commits FROM meta").fetchone()[0]
    storage.write(lambda connection: say(connection, chat(connection), "a"))
    assert backup(reader, key, tmp_path / "saved.db") == before
    reader.close()


def test_what_is_not_a_backup_is_refused_and_changes_nothing(storage: Storage, tmp_path: Path) -> None:
    key = storage_key(storage.folder)
    saved = tmp_path / "saved.db"
    storage.read(lambda connection: backup(connection, key, saved))
    storage.close()
    before = (storage.folder / "kernos.db").read_bytes()
    with pytest.raises(DamagedError, match="under this key"):
        restore(saved, bytes(32), storage.folder)
    data = bytearray(saved.read_bytes())
    data[-1_000] ^= 1
    saved.write_bytes(data)
    with pytest.raises(DamagedError):
        restore(saved, key, storage.folder)
    assert (storage.folder / "kernos.db").read_bytes() == before


def test_a_backup_to_nowhere_is_a_typed_error(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        storage.read(lambda connection: backup(connection, bytes(32), tmp_path / "no folder" / "saved.db"))


MARKER = "the marker that must not be found"


def _everything(connection: Connection) -> bytes:
    """The marker, everywhere it can go."""
    row = context(connection)
    new = NewMessage("user", MARKER, 1, (MARKER,), MARKER.encode())
    transcripts.append(connection, OWNER, row.id, [new] * 50, "tiny", NOW)
    window.page_out(connection, OWNER, row.id, 20, NOW)
    window.embedded(connection, "minilm", [(page.id, MARKER.encode()) for page in window.unembedded(connection, 9)])
    filestore.put(connection, OWNER, OWNER, MARKER, MARKER.encode() * 20_000, None, PAYERS, NOW)
    mail.send(connection, Letter("m1", "app:a", 7, None, "queue/x", (MARKER,), NOW, MARKER))
    records.remember(connection, "process", "app:a", MARKER, MARKER.encode())
    return MARKER.encode()


def test_no_plain_text_is_written(storage: Storage, tmp_path: Path) -> None:
    key = storage_key(storage.folder)
    storage.write(records.once(Request("app:a", MARKER, b""), _everything, NOW))
    storage.read(lambda connection: backup(connection, key, tmp_path / "saved.db"))
    storage.write(lambda connection: transcripts.delete(connection, OWNER, id_of(OWNER, "chat")), erases=True)
    found = _scan(tmp_path)
    storage.close()
    assert found | _scan(tmp_path) == set()


def _scan(folder: Path) -> set[str]:
    needles = [MARKER.encode(encoding) for encoding in ("utf-8", "utf-16-le", "utf-16-be")]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) >= 4
    return {path.name for path in files for needle in needles if needle in path.read_bytes()}
