"""The tables, as a list of migrations: number n brings a database from version n - 1 to n. One that was released is never changed."""

from typing import Final

from kernos.syscalls.errors import StorageError

from . import accounts, keywords, library
from .connection import Connection

_FIRST: Final = """
CREATE TABLE meta (one INTEGER PRIMARY KEY CHECK (one = 1), commits INTEGER NOT NULL);
INSERT INTO meta VALUES (1, 0);

-- Acknowledged commits that were found to be gone: after which commit, and how many (NULL: nobody can say).
CREATE TABLE losses (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, lost INTEGER);

-- Who is charged: the names of an app and a user as JSON.
CREATE TABLE payers (
    id INTEGER PRIMARY KEY,
    names TEXT NOT NULL UNIQUE
);

-- Contexts. See branches.py for `branch` and `length`; `bytes` and `tokens` are of what can be seen, `charged` is what is paid for;
-- messages before `resident` are paged out unless they are pinned. A fork began as the first `forked` messages of `source`.
CREATE TABLE contexts (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    model TEXT NOT NULL DEFAULT '',
    payers_id INTEGER NOT NULL REFERENCES payers (id),
    labels TEXT NOT NULL DEFAULT '[]',
    closed INTEGER NOT NULL DEFAULT 0,
    branch INTEGER NOT NULL REFERENCES branches (id),
    length INTEGER NOT NULL DEFAULT 0,
    tokens INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    charged INTEGER NOT NULL DEFAULT 0,
    resident INTEGER NOT NULL DEFAULT 0,
    source INTEGER,
    forked INTEGER,
    created REAL NOT NULL,
    updated REAL NOT NULL,
    UNIQUE (owner, name)
);

CREATE TABLE context_grants (
    context INTEGER NOT NULL REFERENCES contexts (key) ON DELETE CASCADE,
    principal TEXT NOT NULL,
    access TEXT NOT NULL CHECK (access IN ('read', 'append')),
    PRIMARY KEY (context, principal)
) WITHOUT ROWID;
CREATE INDEX context_grants_of ON context_grants (principal);

-- `context` made the branch; NULL: that context is deleted, and only what other branches stand on is still here.
CREATE TABLE branches (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    parent INTEGER REFERENCES branches (id),
    base INTEGER NOT NULL,
    context INTEGER,
    left_at REAL
);
CREATE INDEX branches_on ON branches (parent) WHERE parent IS NOT NULL;
CREATE INDEX branches_of ON branches (context) WHERE context IS NOT NULL;

-- Ids are never used again: indexes outside the database know messages by them. `all_tokens` and `all_bytes` count from the first
-- message of the context up to and with this one.
CREATE TABLE messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    branch INTEGER NOT NULL REFERENCES branches (id),
    seq INTEGER NOT NULL,
    role TEXT NOT NULL,
    time REAL NOT NULL,
    tokens INTEGER NOT NULL,
    tokenizer TEXT NOT NULL,
    all_tokens INTEGER NOT NULL,
    all_bytes INTEGER NOT NULL,
    labels TEXT,
    source_start INTEGER,
    source_stop INTEGER,
    digest BLOB NOT NULL,
    calls BLOB,
    text TEXT NOT NULL,
    UNIQUE (branch, seq)
);

CREATE TABLE pins (
    context INTEGER NOT NULL REFERENCES contexts (key) ON DELETE CASCADE,
    seq INTEGER NOT NULL,
    PRIMARY KEY (context, seq)
) WITHOUT ROWID;

-- What has left a window: characters `start` to `stop` of a message. Contexts that share the message share the page.
CREATE TABLE pages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    message INTEGER NOT NULL REFERENCES messages (id) ON DELETE CASCADE,
    start INTEGER NOT NULL,
    stop INTEGER NOT NULL,
    model TEXT,
    vector BLOB,
    UNIQUE (message, start)
);
CREATE INDEX pages_waiting ON pages (id) WHERE vector IS NULL;

CREATE TABLE snapshots (
    context INTEGER NOT NULL REFERENCES contexts (key) ON DELETE CASCADE,
    name TEXT NOT NULL,
    branch INTEGER NOT NULL REFERENCES branches (id),
    length INTEGER NOT NULL,
    time REAL NOT NULL,
    PRIMARY KEY (context, name)
) WITHOUT ROWID;
CREATE INDEX snapshots_on ON snapshots (branch);

-- What was done to a context besides forking and appending: its length before and after, its branch after, and what it was about.
CREATE TABLE operations (
    id INTEGER PRIMARY KEY,
    context INTEGER NOT NULL REFERENCES contexts (key) ON DELETE CASCADE,
    time REAL NOT NULL,
    actor TEXT NOT NULL,
    kind TEXT NOT NULL,
    before INTEGER NOT NULL,
    after INTEGER NOT NULL,
    branch INTEGER NOT NULL,
    start INTEGER NOT NULL,
    stop INTEGER NOT NULL,
    detail TEXT NOT NULL
);
CREATE INDEX operations_of ON operations (context, id);

-- Files: the current version of each, all versions, and their contents, which versions can share.
CREATE TABLE files (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    owner TEXT NOT NULL,
    path TEXT NOT NULL,
    version INTEGER NOT NULL,
    payers_id INTEGER NOT NULL REFERENCES payers (id),
    UNIQUE (owner, path)
);

CREATE TABLE contents (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    size INTEGER NOT NULL,
    digest BLOB NOT NULL
);

CREATE TABLE chunks (
    content INTEGER NOT NULL REFERENCES contents (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    digest BLOB NOT NULL,
    data BLOB NOT NULL,
    UNIQUE (content, number)
);

-- Contents that come in parts and are no version yet.
CREATE TABLE uploads (
    content INTEGER PRIMARY KEY REFERENCES contents (id) ON DELETE CASCADE,
    actor TEXT NOT NULL,
    owner TEXT NOT NULL,
    path TEXT NOT NULL,
    time REAL NOT NULL
);

CREATE TABLE versions (
    file INTEGER NOT NULL REFERENCES files (key) ON DELETE CASCADE,
    version INTEGER NOT NULL,
    content INTEGER NOT NULL REFERENCES contents (id),
    author TEXT NOT NULL,
    time REAL NOT NULL,
    PRIMARY KEY (file, version)
) WITHOUT ROWID;
CREATE INDEX versions_of ON versions (content);

CREATE TABLE file_grants (
    owner TEXT NOT NULL,
    prefix TEXT NOT NULL,
    principal TEXT NOT NULL,
    access TEXT NOT NULL CHECK (access IN ('read', 'write')),
    PRIMARY KEY (principal, owner, prefix)
) WITHOUT ROWID;

-- Mail: each mail once, and a row for each box it waits in.
CREATE TABLE mails (
    id TEXT PRIMARY KEY,
    sender TEXT NOT NULL,
    sender_pid INTEGER NOT NULL,
    user TEXT,
    receiver TEXT NOT NULL,
    labels TEXT,
    time REAL NOT NULL,
    text TEXT NOT NULL
);

CREATE TABLE boxes (
    name TEXT PRIMARY KEY,
    waiting INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE deliveries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    box TEXT NOT NULL,
    mail TEXT NOT NULL REFERENCES mails (id)
);
CREATE INDEX deliveries_in ON deliveries (box, id);
CREATE INDEX deliveries_of ON deliveries (mail);

CREATE TABLE subscriptions (
    topic TEXT NOT NULL,
    box TEXT NOT NULL,
    PRIMARY KEY (topic, box)
) WITHOUT ROWID;

-- What became of calls with an idempotency key.
CREATE TABLE replies (
    id INTEGER PRIMARY KEY,
    principal TEXT NOT NULL,
    call TEXT NOT NULL,
    digest BLOB NOT NULL,
    time REAL NOT NULL,
    reply BLOB NOT NULL,
    UNIQUE (principal, call)
);
CREATE INDEX replies_by_time ON replies (time);

-- What the kernel itself remembers of its principals: rows of the process table, counters of usage.
CREATE TABLE facts (
    kind TEXT NOT NULL,
    principal TEXT NOT NULL,
    name TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (kind, principal, name)
) WITHOUT ROWID;
"""

_REPLIES: Final = """
-- The mail that a mail answers.
ALTER TABLE mails ADD COLUMN in_reply_to TEXT;

-- The context that a remembered reply tells of: it goes when that is deleted.
ALTER TABLE replies ADD COLUMN context TEXT;
CREATE INDEX replies_of ON replies (context) WHERE context IS NOT NULL;
"""

_FILE_LABELS: Final = """
ALTER TABLE versions ADD COLUMN labels TEXT NOT NULL DEFAULT '[]';
ALTER TABLE uploads ADD COLUMN labels TEXT NOT NULL DEFAULT '[]';
"""

MIGRATIONS: Final = (_FIRST + keywords.SCHEMA, library.SCHEMA, _REPLIES, _FILE_LABELS, keywords.TERMS, accounts.SCHEMA)


def migrate(connection: Connection) -> bool:
    """Bring a database to the newest version, in the open transaction; whether there was anything to do.

    With `PRAGMA foreign_keys = OFF`: a table is replaced by dropping it, which would delete what refers to its rows.
    """
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
