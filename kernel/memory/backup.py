"""Backups: a copy of the running database in one file, under the same key, and the way back.

A backup is taken from one state of the database while it goes on being written; what was deleted since is still in it. It is of use only
with the key, of which a copy belongs elsewhere.
"""

from pathlib import Path

from kernos.syscalls.errors import ConflictError

from .commits import CommitCounter, Count, sync_folder
from .connection import Connection, connect, driver, verify
from .database import COUNTER, NAME, DamagedError, discard_log
from .failures import typed


def backup(connection: Connection, key: bytes, to: Path) -> int:
    """Copy what a reader's connection sees into a file, whole or not at all; how many commits it holds.

    Raises `ConflictError` if there is a file already, `StorageFullError` or `StorageError` if the disk does not take it.
    """
    if to.exists():
        raise ConflictError(f"{to} is there already. Name a file that is not.")
    part = to.with_name(to.name + ".part")
    part.unlink(missing_ok=True)
    try:
        part.touch(mode=0o600)
        copy = connect(part, key, "rw")
        try:
            connection.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE").fetchall()  # one file, without a log beside it
        finally:
            copy.close()
        commits = check(part, key)
        part.replace(to)
        sync_folder(to.parent)
    except (OSError, driver.Error) as error:
        part.unlink(missing_ok=True)
        raise typed(error) or error from error
    return commits


def check(path: Path, key: bytes) -> int:
    """Read all of a backup; how many commits it holds. `DamagedError` if it is not sound or not under this key."""
    try:
        connection = connect(path, key, "ro")
        try:
            commits = int(connection.execute("SELECT commits FROM meta").fetchone()[0])
            faults = verify(connection)
        finally:
            connection.close()
    except driver.DatabaseError as error:
        raise DamagedError(f"{path} is not a sound backup under this key: {error}. Take another one.") from error
    if faults:
        raise DamagedError(f"{path} is damaged: {faults[0]}. Take another backup.")
    return commits


def restore(path: Path, key: bytes, folder: Path) -> int:
    """Put a backup in the place of a folder's database, which nobody has open; how many commits it holds.

    A crash in between leaves the old database, or the new one with the old count: then the next start says what is lost, and this can be
    done again.
    """
    commits = check(path, key)
    part = folder / f"{NAME}.part"
    try:
        part.unlink(missing_ok=True)
        copy = connect(part, key, "rwc")
        source = connect(path, key, "ro")
        try:
            source.backup(copy)
        finally:
            source.close()
            copy.close()
        part.chmod(0o600)
        discard_log(folder / NAME)  # it would be taken for the new one's
        part.replace(folder / NAME)
        sync_folder(folder)
        CommitCounter.make(folder / COUNTER, Count(commits=commits)).close()
    except (OSError, driver.Error) as error:
        raise typed(error) or error from error
    return commits
