"""The tables, as a list of migrations: number n brings a database from version n - 1 to n. One that was released is never changed."""

from typing import Final

from kernos.syscalls.errors import StorageError

from .connection import Connection

_FIRST: Final = """
CREATE TABLE meta (one INTEGER PRIMARY KEY CHECK (one = 1), commits INTEGER NOT NULL);
INSERT INTO meta VALUES (1, 0);

-- Acknowledged commits that were found to be gone: after which commit, and how many (NULL: nobody can say).
CREATE TABLE losses (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, lost INTEGER);
"""

MIGRATIONS: Final = (_FIRST,)


def migrate(connection: Connection) -> bool:
    """Bring a database to the newest version, in the open transaction; whether there was anything to do."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise StorageError(f"The database is of version {version}, and this kernel knows {len(MIGRATIONS)}. Use the newer kernel.")
    if version == len(MIGRATIONS):
        return False
    for migration in MIGRATIONS[version:]:
        for statement in _statements(migration):
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    return True


def _statements(script: str) -> list[str]:
    # `executescript` would commit by itself. Triggers hold semicolons, so that a statement ends with one at the end of a line.
    found, lines = [], []
    for line in script.splitlines():
        lines.append(line)
        if line.endswith(";") and not line.startswith(" "):
            found.append("\n".join(lines))
            lines = []
    return found
