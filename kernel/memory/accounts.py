"""Who is charged for what is stored: each set of payers once, under a number that rows refer to."""

from typing import Final

import msgspec

from ..core.quotas import Payers
from .connection import Connection

NAMES: Final = "(SELECT names FROM payers WHERE payers.id = payers_id)"
"""The column of a query that `decoded` takes, for a table with a `payers_id`."""


def number_of(connection: Connection, payers: Payers) -> int:
    """The number of a set of payers; given when it is first asked for."""
    names = msgspec.json.encode(payers).decode()
    connection.execute("INSERT OR IGNORE INTO payers (names) VALUES (?)", (names,))
    return int(connection.execute("SELECT id FROM payers WHERE names = ?", (names,)).fetchone()[0])


def decoded(names: str) -> Payers:
    """The payers, from what the database holds."""
    return msgspec.json.decode(names, type=tuple[str, ...])
