"""What a failure of the disk or of SQLite means: which typed error its caller gets, and whether anything may be written afterwards."""

import errno
from typing import Final

from kernos.syscalls.errors import KernosError, StorageError, StorageFullError

from .connection import driver

# SQLite's primary result codes. The module names them only from Python 3.11's own sqlite3 on.
READONLY: Final = 8
IOERR: Final = 10
CORRUPT: Final = 11
FULL: Final = 13
CANTOPEN: Final = 14
NOTADB: Final = 26

_WORDS: Final = {
    READONLY: "The kernel's database cannot be written: its disk is read-only.",
    IOERR: "The disk failed under the kernel's database.",
    CORRUPT: "A page of the kernel's database is damaged.",
    CANTOPEN: "A file of the kernel's database cannot be opened.",
    NOTADB: "The kernel's database is damaged, or its key is another one.",
}


_SAYINGS: Final = {"database or disk is full": FULL, "disk I/O error": IOERR, "attempt to write a readonly database": READONLY}
"""SQLite's own words, for errors of the module that carry no code: those of a backup."""


def typed(error: Exception) -> KernosError | None:
    """The typed error for a failure of storage; `None` for any other error, which is its thrower's own."""
    if isinstance(error, OSError):
        code = FULL if error.errno in (errno.ENOSPC, errno.EDQUOT) else READONLY if error.errno == errno.EROFS else IOERR
        reason = errno.errorcode.get(error.errno or 0, "OSError")
    elif isinstance(error, driver.Error):
        code, reason = _code(error), str(getattr(error, "sqlite_errorname", "SQLITE_ERROR"))
    else:
        return None
    if code == FULL:
        return StorageFullError("The disk that holds the kernel's database is full; nothing of this was kept.", retry_after=5.0)
    if code not in _WORDS:
        return None
    return StorageError(f"{_WORDS[code]} Nothing of this was kept. See the kernel's log.", reason=reason)


def lasting(error: Exception) -> bool:
    """Whether nothing may be written after this error of a commit or of a copy of the log.

    What the system failed to make durable it may forget, and say yes the next time it is asked. SQLite does not tell us a failed fsync from
    a failed write, so that both count. And a counter that was not written cannot vouch for the commits after it.
    """
    return isinstance(error, OSError) or _code(error) == IOERR


def damaged(error: Exception) -> bool:
    """Whether a page was read that is not what was written. SQLCipher's connection is of no use after that; a new one is."""
    return _code(error) in (CORRUPT, NOTADB)


def _code(error: Exception) -> int:
    code = getattr(error, "sqlite_errorcode", None)
    return int(code) & 0xFF if code else _SAYINGS.get(str(error), 0)
