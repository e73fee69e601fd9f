"""The database: one encrypted SQLite file with its write-ahead log, its key, and the counter of commits beside it.

SQLCipher encrypts each page and signs it, so that a page that was changed or cut cannot be read as something else. What SQLite would pass
over in silence, the end of a damaged log, is found with the counter (see `commits.py`). Opening either gives the state after one of the
commits, with a report of how many acknowledged ones after it are lost, or raises `DamagedError`.

One writer commits, through `Database.commit`; any number of connections read. While it is open, nobody in this process may open the
database file itself and close it again: that would drop the locks that SQLite holds on it.
"""

import logging
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kernos.syscalls.errors import StorageError, StorageFullError

from ..limits import LOG_BYTES, VERIFY_BYTES
from .commits import CommitCounter, Count, read_count, sync_folder
from .connection import Connection, connect, driver, log_of, verify
from .failures import damaged, typed
from .schema import migrate

log = logging.getLogger(__name__)

NAME: Final = "kernos.db"
COUNTER: Final = "kernos.count"
KEY: Final = "kernos.key"

PAGE: Final = 4_096
_KEY_BYTES: Final = 32


class DamagedError(Exception):
    """The database cannot be read, or not trusted to be the state after any one commit. Nothing was changed."""


@dataclass(frozen=True)
class Recovery:
    """How a database was found when it was opened."""

    commits: int
    """Commits that are in it."""
    lost: int | None
    """Acknowledged commits that are gone: the last ones. `None`: the counter is gone, and nobody can say."""

    def report(self) -> str:
        """The finding as a sentence; empty if all is well."""
        if self.lost is None:
            return f"The counter beside the database is gone: whether there were more than its {self.commits} commits, nobody can say."
        if not self.lost:
            return ""
        return f"The database was damaged: of {self.commits + self.lost} acknowledged commits the last {self.lost} are lost."


class Database:
    """An open database. `connection` is the writer's; `commits` are those it holds, as only one writer commits."""

    def __init__(self, path: Path, key: bytes, connection: Connection, counter: CommitCounter, recovery: Recovery) -> None:
        self.path = path
        self.connection = connection
        self.recovery = recovery
        self.commits = counter.count.commits
        self.failed = False
        """Set by the writer when nothing may be written any more."""
        self._key = key
        self._counter = counter

    def reader(self) -> Connection:
        """A connection that reads, for one thread at a time."""
        return connect(self.path, self._key, "ro")

    def reconnect(self) -> None:
        """Give the writer a new connection, after it has met a damaged page."""
        old, self.connection = self.connection, connect(self.path, self._key, "rw")
        old.close()  # never as the last one: SQLite would copy the log unasked

    def commit(self) -> None:
        """Make the writer's open transaction durable and count it.

        An error of SQLite leaves the state unchanged and the transaction to be rolled back, an `OSError` comes from the counter when the
        transaction is durable already; after what `failures.lasting` names nothing may be written any more.
        """
        _commit(self.connection, self.commits + 1)
        self.commits += 1
        self._counter.write(commits=self.commits)

    def checkpoint(self, *, truncate: bool = False) -> bool:
        """Copy the log into the database file; whether all of it was. With `truncate` the log is emptied too.

        Readers of an older state can stand in the way; nothing is lost by that, and it can be tried again.
        """
        self._counter.write(copy_begun=self.commits)
        mode = "TRUNCATE" if truncate else "PASSIVE"
        busy, pages, copied = self.connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        if busy or pages != copied:
            return False
        self._counter.write(copy_done=self.commits)
        if truncate:
            _make_room(log_of(self.path))
        return True

    def log_pages(self) -> tuple[int, int]:
        """Pages in the log, and how many of them were copied into the database file."""
        _, pages, copied = self.connection.execute("PRAGMA wal_checkpoint(NOOP)").fetchone()
        return pages, copied

    def close(self) -> None:
        """Copy the log and close; the readers' connections are closed before. After a failure the log is left for the next start."""
        if self.failed:
            return  # SQLite would copy the log when its last connection is closed, without looking at checksums
        try:
            self.checkpoint(truncate=True)
        except (OSError, driver.Error):
            log.warning("%s was closed with its log not copied; the next start copies it", self.path, exc_info=True)
        self.connection.close()
        self._counter.close()


def storage_key(folder: Path) -> bytes:
    """The key of the database in a folder: 32 bytes in a file that its owner alone can read; made with the database."""
    file = folder / KEY
    if file.exists():
        key = file.read_bytes()
        if len(key) != _KEY_BYTES:
            raise DamagedError(f"{file} does not hold a key of {_KEY_BYTES} bytes. Bring it back from where you keep a copy.")
        return key
    if (folder / NAME).exists():
        raise DamagedError(f"{file} is gone, and without it {folder / NAME} cannot be read. Bring it back from where you keep a copy.")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.unlink(missing_ok=True)
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:  # noqa: PTH123  (a mode from the first moment)
        out.write(secrets.token_bytes(_KEY_BYTES))
        out.flush()
        os.fsync(out.fileno())
    part.replace(file)
    sync_folder(folder)
    return file.read_bytes()


def open_database(folder: Path, key: bytes, *, accept_loss: bool = True) -> Database:
    """Open the database of a folder, which is made if there is none; see its `recovery`.

    Raises `DamagedError` if it cannot be trusted, or, unless `accept_loss`, if acknowledged commits are gone. Raises `StorageFullError`
    or `StorageError` if the disk does not take or give what it must. The folder is the caller's alone, see `boot.lock_state`.
    """
    path = folder / NAME
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        count = read_count(folder / COUNTER)
        recovery = _inspect(path, key, count) if _is_there(path) else _absent(path, folder / COUNTER, count)
        if recovery.lost != 0 and not accept_loss:
            raise DamagedError(f"{recovery.report()} Nothing was changed: bring a backup back, or accept the loss.")
        return _open(path, key, recovery)
    except (OSError, driver.Error) as error:
        raise _refusal(path, error) from error


def discard_log(path: Path) -> None:
    """Remove the log and its index, of a database that nobody has open."""
    log_of(path).unlink(missing_ok=True)
    path.with_name(path.name + "-shm").unlink(missing_ok=True)
    sync_folder(path.parent)


# --- opening --------------------------------------------------------------------------------------------------------------------


def _is_there(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _absent(path: Path, counter: Path, count: Count | None) -> Recovery:
    if count is not None and count.commits:
        raise DamagedError(f"{path} is gone; it held {count.commits} commits. Bring a backup back, or remove {counter} to begin anew.")
    discard_log(path)
    if count is None:
        CommitCounter.make(counter).close()  # first: a database without a counter is one whose counter was lost
    return Recovery(0, 0)


def _inspect(path: Path, key: bytes, count: Count | None) -> Recovery:
    """Which commits a database holds, read without changing it, but for setting aside a log that only hides what it holds."""
    if count is None:
        return Recovery(_look(path, key)[0], None)
    try:
        commits, frames = _look(path, key)
    except driver.DatabaseError:
        commits, frames = -1, 0
        if not _hidden(path, key, count):
            raise
    if commits < count.copy_done and _hidden(path, key, count):
        _set_log_aside(path)
        commits = count.copy_done
    elif count.copy_begun != count.copy_done and not frames:
        raise DamagedError(f"{path} was being written when the kernel died, and its log is gone. {_ADVICE}")
    if commits < count.copy_begun:
        raise DamagedError(f"{path} holds part of commit {count.copy_begun}, and its log is sound only up to {commits}. {_ADVICE}")
    return Recovery(commits, max(0, count.commits - commits))


def _hidden(path: Path, key: bytes, count: Count) -> bool:
    """Whether the file alone holds all that the counter says was copied into it, so that the log can only hide it."""
    return count.copy_begun == count.copy_done == _look(path, key, "ro&immutable=1")[0]


def _look(path: Path, key: bytes, mode: str = "ro") -> tuple[int, int]:
    """Commits in a database, and frames of its log that count."""
    connection = connect(path, key, mode)
    try:
        made = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'meta'").fetchone()[0]
        commits = connection.execute("SELECT commits FROM meta").fetchone()[0] if made else 0
        return commits, connection.execute("PRAGMA wal_checkpoint(NOOP)").fetchone()[1]
    finally:
        connection.close()


def _set_log_aside(path: Path) -> None:
    log_of(path).replace(path.with_name(NAME + "-aside"))
    discard_log(path)


def _open(path: Path, key: bytes, recovery: Recovery) -> Database:
    """Open a database that was found sound, and bring it into the state that the writer expects."""
    connection = connect(path, key, "rwc")
    try:
        path.chmod(0o600)
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        commits = _settle(connection, recovery)
        counter = _counter(path.with_name(COUNTER), commits)
        database = Database(path, key, connection, counter, recovery)
        if _copied(database):
            _check(connection, path)
    except BaseException:
        connection.close()
        raise
    return database


def _copied(database: Database) -> bool:
    """Whether the log was copied. On a full disk it stays as it is: one must be able to start, to see what can go."""
    try:
        return database.checkpoint(truncate=True)
    except driver.Error as error:
        if not isinstance(typed(error), StorageFullError):
            raise
        log.warning("the disk is full: %s was opened with its log not copied, and unchecked", database.path)
        return False


def _check(connection: Connection, path: Path) -> None:
    """Raise unless the database file, with an empty log, is sound."""
    size = path.stat().st_size
    if size < connection.execute("PRAGMA page_count").fetchone()[0] * PAGE:
        raise DamagedError(f"The end of {path} is missing. {_ADVICE}")
    if size <= VERIFY_BYTES and (faults := verify(connection)):
        raise DamagedError(f"{path} is damaged: {faults[0]} ({len(faults)} such faults). {_ADVICE}")


def _settle(connection: Connection, recovery: Recovery) -> int:
    """Write down what is new with this opening, before the counter forgets it; the commits that are there then."""
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.execute("BEGIN IMMEDIATE")
    changed = migrate(connection)
    if recovery.lost != 0:
        connection.execute("INSERT INTO losses (at, lost) VALUES (?, ?)", (recovery.commits, recovery.lost))
        changed = True
    commits = recovery.commits + changed
    if changed:
        _commit(connection, commits)
    else:
        connection.execute("ROLLBACK")
    connection.execute("PRAGMA foreign_keys = ON")
    return commits


def _counter(path: Path, commits: int) -> CommitCounter:
    """The counter, standing at the commits that are there: those that nobody acknowledged before a crash are now seen, and count."""
    count = read_count(path)
    if count is None:
        return CommitCounter.make(path, Count(commits=commits))
    counter = CommitCounter(path, count)
    if count.commits != commits:
        counter.write(commits=commits)
    return counter


def _commit(connection: Connection, number: int) -> None:
    connection.execute("UPDATE meta SET commits = ?", (number,))
    connection.execute("COMMIT")


def _make_room(path: Path) -> None:
    """Give the emptied log its size at once. Zeros are no frames to SQLite; on a full disk it stays short, and slow."""
    try:
        with path.open("r+b") as file:
            if not file.seek(0, os.SEEK_END):
                file.write(bytes(LOG_BYTES))
                file.flush()
                os.fsync(file.fileno())
    except OSError:
        os.truncate(path, 0)


_ADVICE: Final = "Bring a backup back with `kernos restore`."


def _refusal(path: Path, error: Exception) -> Exception:
    if damaged(error):
        return DamagedError(f"{path} cannot be read: it is damaged, or its key is not this one ({error}). {_ADVICE}")
    known = typed(error)
    return known if known is not None else StorageError(f"{path} cannot be opened: {error}.", reason=str(error))
