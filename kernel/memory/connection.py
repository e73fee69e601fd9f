"""Connections to an encrypted SQLite file, and what they are all set to."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..limits import LOG_BYTES

if TYPE_CHECKING:
    # sqlcipher3 has the interface of sqlite3 and no types of its own.
    import sqlite3
    from sqlite3 import Connection as Connection

    driver = sqlite3
else:
    from sqlcipher3 import dbapi2 as driver

    Connection = driver.Connection

_SETTINGS: Final = (
    "synchronous = FULL",
    "secure_delete = ON",
    "foreign_keys = ON",
    "temp_store = MEMORY",  # a temporary file would be another place to look for plain text
    "wal_autocheckpoint = 0",  # `Database.checkpoint` notes when the log is copied
    f"journal_size_limit = {LOG_BYTES}",  # a log that grew behind a long reader shrinks again
    "cache_spill = OFF",  # only a commit writes, so that an error elsewhere is one of reading
)


_READER_WAIT_S: Final = 5.0


def connect(path: Path, key: bytes, mode: str) -> Connection:
    """A connection to any file of our kind; `mode` is SQLite's: `ro`, `rw` or `rwc`."""
    uri = f"file:{_quoted(path)}?mode={mode}"
    # A reader waits the moment it takes to empty the log. The writer never waits for readers: it empties the log another time.
    timeout = _READER_WAIT_S if mode.startswith("ro") else 0
    connection: Connection = driver.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=timeout)
    try:
        # SQLCipher would print to stderr; errors come as exceptions.
        connection.execute("PRAGMA cipher_log_level = NONE").fetchall()
        connection.execute(f"PRAGMA key = \"x'{key.hex()}'\"").fetchall()
        for setting in _SETTINGS:
            connection.execute(f"PRAGMA {setting}").fetchall()
    except driver.Error:
        connection.close()
        raise
    return connection


def verify(connection: Connection) -> list[str]:
    """Everything that is wrong with the pages of a database whose log is empty; a page that was changed raises an error of SQLite.

    Reads all that holds something, and SQLCipher checks what is read. To let it check all pages first takes half as long again.
    """
    return [str(row[0]) for row in connection.execute("PRAGMA quick_check") if row[0] != "ok"]


def log_of(path: Path) -> Path:
    """The write-ahead log of a database."""
    return path.with_name(path.name + "-wal")


def _quoted(path: Path) -> str:
    return path.absolute().as_uri().removeprefix("file://")
