from collections.abc import Iterator
from pathlib import Path

import pytest

from kernos.kernel.memory.connection import Connection
from tests.kernel.memory.storage import Storage


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    """An open database."""
    opened = Storage(tmp_path / "state")
    yield opened
    opened.close()


@pytest.fixture
def connection(storage: Storage) -> Iterator[Connection]:
    """Its writing connection, in a transaction that is thrown away: for what needs no disk and no threads."""
    storage.database.connection.execute("BEGIN IMMEDIATE")
    yield storage.database.connection
    storage.database.connection.execute("ROLLBACK")
