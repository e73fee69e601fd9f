"""Who owns what is stored, who asked for it and who is charged: each name, or set of names, once, under a number that rows refer to."""

from typing import Final

import msgspec

from ..core.quotas import Payers
from .connection import Connection

SCHEMA: Final = """
CREATE TABLE principals (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);
INSERT INTO principals (name) SELECT owner FROM contexts UNION SELECT principal FROM replies;

CREATE TABLE numbered_contexts (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL UNIQUE,
    owner_id INTEGER NOT NULL REFERENCES principals (id),
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
    UNIQUE (owner_id, name)
);
INSERT INTO sqlite_sequence SELECT 'numbered_contexts', seq FROM sqlite_sequence WHERE name = 'contexts';
INSERT INTO numbered_contexts
SELECT key, contexts.id, principals.id, contexts.name, model, payers_id, labels, closed, branch, length, tokens, bytes, charged, resident,
    source, forked, created, updated
FROM contexts JOIN principals ON principals.name = owner;
DROP TABLE contexts;
ALTER TABLE numbered_contexts RENAME TO contexts;

-- A reply that is not here tells of `context`, which the call has made, and is read from there. One that is here tells of it, and goes
-- with it.
CREATE TABLE numbered_replies (
    principal_id INTEGER NOT NULL REFERENCES principals (id),
    call TEXT NOT NULL,
    digest BLOB NOT NULL,
    time REAL NOT NULL,
    context INTEGER,
    reply BLOB,
    PRIMARY KEY (principal_id, call)
) WITHOUT ROWID;
INSERT INTO numbered_replies
SELECT principals.id, call, substr(digest, 1, 8), time, contexts.key, reply
FROM replies JOIN principals ON principals.name = principal LEFT JOIN contexts ON contexts.id = unhex(replies.context);
DROP TABLE replies;
ALTER TABLE numbered_replies RENAME TO replies;
CREATE INDEX replies_of ON replies (context) WHERE context IS NOT NULL AND reply IS NOT NULL;
"""
"""Instead of names in each context and each reply, and of replies that say again what is in the database. With them a
fork took 480 bytes, without 180."""

NAMES: Final = "(SELECT names FROM payers WHERE payers.id = payers_id)"
"""The column of a query that `decoded` takes, for a table with a `payers_id`."""

OWNER: Final = "(SELECT name FROM principals WHERE principals.id = owner_id)"
"""The name of an owner, for a table with an `owner_id`."""


def number_of(connection: Connection, payers: Payers) -> int:
    """The number of a set of payers; given when it is first asked for."""
    names = msgspec.json.encode(payers).decode()
    connection.execute("INSERT OR IGNORE INTO payers (names) VALUES (?)", (names,))
    return int(connection.execute("SELECT id FROM payers WHERE names = ?", (names,)).fetchone()[0])


def number_of_principal(connection: Connection, name: str) -> int:
    """The number of a principal; given when it is first asked for."""
    found = connection.execute("SELECT id FROM principals WHERE name = ?", (name,)).fetchone()
    return int((found or connection.execute("INSERT INTO principals (name) VALUES (?) RETURNING id", (name,)).fetchone())[0])


def decoded(names: str) -> Payers:
    """The payers, from what the database holds."""
    return msgspec.json.decode(names, type=tuple[str, ...])
