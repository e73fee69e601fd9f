"""Groups, errors of one job and of all, order, and what happens when the disk does not play along."""

import queue
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kernos.kernel.memory import mail, records, writer
from kernos.kernel.memory.connection import Connection, driver, log_of
from kernos.kernel.memory.database import open_database, storage_key
from kernos.kernel.memory.readers import Readers
from kernos.kernel.memory.writer import Writer
from kernos.syscalls.errors import BusyError, ConflictError, StoppingError, StorageError
from tests.kernel.memory.storage import Storage, at_once, waited


def fact(name: str) -> Callable[[Connection], str]:
    def job(connection: Connection) -> str:
        records.remember(connection, "usage", "app:a", name, b"1")
        return name

    return job


def names(connection: Connection) -> list[str]:
    return [name for _, name, _ in records.facts(connection, "usage")]


class Held:
    """A writer that is held up in its first job, so that what is submitted meanwhile makes one group."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.outcomes: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._begun = threading.Event()
        self._go = threading.Event()
        storage.writer.submit(self._wait, lambda _: None)
        self._begun.wait(60)

    def submit(self, job: Callable[[Connection], Any]) -> None:
        self.storage.writer.submit(job, self.outcomes.put)

    def results(self, count: int) -> list[Any]:
        self._go.set()
        return [self.outcomes.get(timeout=60) for _ in range(count)]

    def _wait(self, _: Connection) -> None:
        self._begun.set()
        self._go.wait(60)


def test_a_result_means_that_it_is_durable_and_can_be_read(storage: Storage) -> None:
    assert storage.write(fact("a")) == "a"
    assert storage.read(names) == ["a"]


def test_jobs_that_wait_are_committed_together_and_answered_in_order(storage: Storage) -> None:
    held = Held(storage)
    commits = storage.database.commits
    for number in range(50):
        held.submit(fact(f"{number:02}"))
    assert held.results(50) == [f"{number:02}" for number in range(50)]
    assert storage.database.commits == commits + 1


def test_a_jobs_own_error_undoes_it_alone(storage: Storage) -> None:
    def fails(connection: Connection) -> None:
        fact("half")(connection)
        raise ConflictError("Not so.")

    held = Held(storage)
    for job in (fact("before"), fails, fact("after")):
        held.submit(job)
    before, error, after = held.results(3)
    assert (before, after) == ("before", "after")
    assert isinstance(error, ConflictError)
    assert storage.read(names) == ["after", "before"]


def test_a_broken_constraint_is_a_jobs_own_error(storage: Storage) -> None:
    held = Held(storage)
    held.submit(fact("good"))
    held.submit(lambda connection: connection.execute("INSERT INTO pins VALUES (99, 1)"))
    good, error = held.results(2)
    assert good == "good"
    assert "FOREIGN KEY" in str(error)


def test_a_job_that_changes_nothing_does_not_wait_for_the_disk(storage: Storage) -> None:
    commits = storage.database.commits
    assert storage.write(names) == []
    assert storage.database.commits == commits


def test_too_many_waiting_jobs_are_refused(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "WRITES", 2)
    held = Held(storage)
    held.submit(fact("a"))
    held.submit(fact("b"))
    with pytest.raises(BusyError):
        held.submit(fact("c"))
    assert held.results(2) == ["a", "b"]


def test_closing_finishes_what_was_submitted(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "state")
    held = Held(storage)
    for number in range(300):
        held.submit(fact(f"{number:03}"))
    closing = threading.Thread(target=storage.writer.close)
    closing.start()
    assert len(held.results(300)) == 300
    closing.join()
    with pytest.raises(StoppingError):
        storage.writer.submit(names, lambda _: None)
    assert len(storage.read(names)) == 300
    storage.database.close()


def test_results_are_posted_and_not_called(tmp_path: Path) -> None:
    database = open_database(tmp_path / "state", storage_key(tmp_path / "state"))
    loop: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
    own = Writer(database, loop.put)
    found: list[object] = []
    own.submit(fact("a"), found.append)
    act = loop.get(timeout=60)
    assert found == []
    act()
    assert found == ["a"]
    own.close()
    database.close()


# --- readers


def test_readers_answer_and_see_one_state(storage: Storage) -> None:
    def query(connection: Connection) -> tuple[int, int]:
        first = len(names(connection))
        storage.write(fact(f"during {first}"))
        return first, len(names(connection))

    readers = Readers(storage.database, at_once)
    assert waited(lambda then: readers.submit(query, then)) == (0, 0)
    assert waited(lambda then: readers.submit(names, then)) == ["during 0"]
    readers.close()
    with pytest.raises(StoppingError):
        readers.submit(names, lambda _: None)


def test_readers_cannot_write_and_say_what_went_wrong(storage: Storage) -> None:
    readers = Readers(storage.database, at_once)
    with pytest.raises(StorageError, match="read-only"):
        waited(lambda then: readers.submit(fact("a"), then))
    with pytest.raises(ConflictError):
        waited(lambda then: readers.submit(_conflict, then))
    readers.close()


def _conflict(_: Connection) -> None:
    raise ConflictError("Not so.")


# --- the log


def test_the_log_does_not_grow_beyond_its_room(storage: Storage) -> None:
    size = log_of(storage.database.path).stat().st_size
    for number in range(300):
        storage.write(partial(records.remember, kind="usage", principal="app:a", name=str(number), value=bytes(20_000)))
    assert log_of(storage.database.path).stat().st_size == size


def test_a_log_that_grew_behind_a_long_reader_shrinks_again(storage: Storage) -> None:
    size = log_of(storage.database.path).stat().st_size
    reader = storage.database.reader()
    reader.execute("BEGIN")
    names(reader)
    storage.write(partial(records.remember, kind="usage", principal="app:a", name="huge", value=bytes(2 * size)))
    assert log_of(storage.database.path).stat().st_size > size
    reader.close()
    for number in range(3):  # one lets the log be copied, the next begins it anew
        storage.write(fact(str(number)))
    storage.writer.close()
    assert log_of(storage.database.path).stat().st_size == size


def test_what_was_erased_leaves_the_log(storage: Storage) -> None:
    storage.write(fact("secret"))
    storage.write(lambda connection: records.forget(connection, "usage", "app:a", "secret"), erases=True)
    storage.writer.close()
    assert log_of(storage.database.path).read_bytes().strip(b"\0") == b""


def test_a_reader_delays_the_emptying_but_does_not_prevent_it(storage: Storage) -> None:
    reader = storage.database.reader()
    storage.write(fact("a"))
    reader.execute("BEGIN")
    assert names(reader) == ["a"]
    storage.write(fact("secret"), erases=True)
    storage.write(fact("b"))
    assert log_of(storage.database.path).read_bytes().strip(b"\0") != b""
    reader.execute("ROLLBACK")
    reader.close()
    storage.writer.close()
    assert log_of(storage.database.path).read_bytes().strip(b"\0") == b""


# --- failures


def test_a_counter_that_cannot_be_written_stops_all_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(tmp_path / "state")
    storage.write(fact("a"))

    def broken(**_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(storage.database._counter, "write", broken)
    with pytest.raises(StorageError, match="nothing more until it is restarted"):
        storage.write(fact("b"))
    with pytest.raises(StorageError, match="nothing more until it is restarted"):
        storage.write(fact("c"))
    assert "a" in storage.read(names)
    storage.close()
    monkeypatch.undo()
    again = Storage(tmp_path / "state")
    assert again.read(names) == ["a", "b"]
    again.close()


@pytest.fixture
def holed(tmp_path: Path) -> Iterator[Storage]:
    """A running kernel's database, one page of whose has gone bad on the disk."""
    storage = Storage(tmp_path / "state")
    storage.write(partial(records.remember, kind="usage", principal="app:a", name="big", value=bytes(50_000)))
    storage.close()
    storage = Storage(tmp_path / "state")
    with (tmp_path / "state" / "kernos.db").open("r+b") as file:
        file.seek(-6_000, 2)
        file.write(b"?" * 100)
    storage.database.reconnect()  # which has nothing in its cache
    yield storage
    storage.writer.close()
    storage.database.failed = True  # no word to the disk
    storage.database.close()


def read_big(connection: Connection) -> None:
    records.facts(connection, "usage")


def read_else(connection: Connection) -> int:
    connection.execute("SELECT count(*) FROM mails").fetchone()
    return 1


def test_a_writer_that_cannot_go_on_says_so_and_does_not_hang(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    def bad_page(_: Connection) -> None:
        error = driver.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = 11
        raise error

    def gone() -> None:
        raise driver.OperationalError("unable to open database file")

    monkeypatch.setattr(storage.database, "reconnect", gone)
    for job in (bad_page, fact("a")):
        with pytest.raises(StorageError, match="nothing more until it is restarted"):
            storage.write(job)


def test_reading_a_damaged_page_is_a_typed_error_and_reading_goes_on(holed: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernos.kernel.memory.readers.READERS", 1)
    readers = Readers(holed.database, at_once)
    for _ in range(2):
        with pytest.raises(StorageError, match="damaged"):
            waited(lambda then: readers.submit(read_big, then))
        assert waited(lambda then: readers.submit(read_else, then)) == 1
    readers.close()


def test_writing_goes_on_beside_a_damaged_page(holed: Storage) -> None:
    with pytest.raises(StorageError, match="damaged"):
        holed.write(read_big)
    holed.write(lambda connection: mail.subscribe(connection, "topic/t", "queue/x"))
    assert holed.read(lambda connection: connection.execute("SELECT topic FROM subscriptions").fetchall()) == [("topic/t",)]
