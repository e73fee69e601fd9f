"""A database in a folder of the test's own, with its writer, for tests that wait for each answer."""

import hashlib
import queue
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from kernos.kernel.memory import transcripts
from kernos.kernel.memory.connection import Connection
from kernos.kernel.memory.database import Database, open_database, storage_key
from kernos.kernel.memory.transcripts import ContextRow, NewMessage
from kernos.kernel.memory.writer import Writer

T = TypeVar("T")

OWNER = "user:ada"
PAYERS = ("app:shop", OWNER)
NOW = 1_700_000_000.0


def at_once(act: Callable[[], object]) -> object:
    """A `Post` without a loop: results are handed over in the thread that has them."""
    return act()


class Storage:
    """An open database. `write` and `read` return a job's result or raise its error."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database: Database = open_database(folder, storage_key(folder))
        self.writer = Writer(self.database, at_once)
        self._open = True

    def write(self, job: Callable[[Connection], T], *, erases: bool = False) -> T:
        result: T = waited(lambda then: self.writer.submit(job, then, erases=erases))
        return result

    def read(self, query: Callable[[Connection], T]) -> T:
        connection = self.database.reader()
        try:
            return query(connection)
        finally:
            connection.close()

    def close(self) -> None:
        """A test may do it before its fixture does."""
        if self._open:
            self._open = False
            self.writer.close()
            self.database.close()


def waited(submit: Callable[[Callable[[Any], object]], object]) -> Any:
    """The outcome of something that answers later."""
    outcomes: queue.SimpleQueue[Any] = queue.SimpleQueue()
    submit(outcomes.put)
    outcome = outcomes.get(timeout=60)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def context(connection: Connection, name: str = "chat", owner: str = OWNER) -> ContextRow:
    """A context, whose id comes from its owner and its name."""
    return transcripts.open_context(connection, owner, name, id_of(owner, name), (owner,), NOW)


def id_of(*names: object) -> str:
    """An id that is always the same for the same names."""
    return hashlib.sha256(repr(names).encode()).hexdigest()[:24]


def say(connection: Connection, id_: str, *texts: str, actor: str = OWNER, now: float = NOW) -> ContextRow:
    """Append messages of one token each."""
    return transcripts.append(connection, actor, id_, [NewMessage("user", text, 1) for text in texts], "tiny", now)


def texts(connection: Connection, id_: str, actor: str = OWNER) -> list[str]:
    """All of a context."""
    return [message.text for message in transcripts.read(connection, actor, id_, 0, 1 << 30)]
