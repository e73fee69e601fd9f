"""Calls whose effect is in the database: answered when it is durable, charged, and applied once, also by the next kernel."""

from pathlib import Path

import pytest

from kernos.kernel import handlers
from kernos.kernel.memory.connection import Connection
from kernos.kernel.storage import Charge
from kernos.kernel.system import System
from kernos.kernel.tickets import Later, Ticket
from kernos.syscalls.errors import ConflictError, LimitError, NotFoundError, StorageFullError
from kernos.syscalls.store import DeleteFile, File, FileData, GetFile, PutFile
from kernos.syscalls.system import StopKernel
from tests.kernel.fakes import ADMIN, App, World, make_world

SHOP = "app:shop"
PUT = PutFile(path="a", data=b"12345")


def put(system: System, ticket: Ticket, call: PutFile) -> Later:
    """A row for each call, to count how often it is carried out."""

    def job(connection: Connection) -> int:
        insert = "INSERT INTO facts VALUES ('usage', 'app:shop', (SELECT count(*) FROM facts WHERE kind = 'usage'), x'')"
        connection.execute(insert)
        return rows(connection)

    charge: Charge = (ticket.payers, {"files": 1, "bytes": len(call.data)})
    return system.storage.change(ticket, job, lambda count: File(call.path, count, count), charge=charge)


def get(system: System, ticket: Ticket, call: GetFile) -> Later:
    """How many rows there are."""
    return system.storage.query(ticket, rows, lambda count: FileData(File(call.path, count, count), b""))


def broken(system: System, ticket: Ticket, call: DeleteFile) -> Later:
    """Writes, then fails."""

    def job(connection: Connection) -> None:
        connection.execute("INSERT INTO facts VALUES ('usage', 'app:shop', 'half', x'')")
        raise NotFoundError(f"There is no {call.path}.")

    return system.storage.change(ticket, job, lambda _: None, charge=(ticket.payers, {"files": 1}))


def rows(connection: Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM facts WHERE kind = 'usage'").fetchone()[0])


@pytest.fixture(autouse=True)
def _rows_for_files(monkeypatch: pytest.MonkeyPatch) -> None:
    for call, handler in ((PutFile, put), (GetFile, get), (DeleteFile, broken)):
        monkeypatch.setitem(handlers.HANDLERS, call, handler)


@pytest.fixture
def agent(world: World) -> App:
    return world.connect(SHOP).spawn()


def kept(world: World) -> int:
    return rows(world.disk.database.connection)


def held(world: World) -> int:
    return {meter.limit: meter.used for meter in world.system.quotas.usage(SHOP, world.host.now)}["files"]


def test_a_reply_leaves_when_the_change_is_durable(world: World, agent: App) -> None:
    sent = agent.send(PUT)
    assert sent.open
    assert world.system.storage.pending == 1
    world.host.work()
    assert sent.result().size == 1
    assert kept(world) == held(world) == 1
    assert not world.system.storage.pending


def test_what_fails_changes_nothing_and_costs_nothing(world: World, agent: App) -> None:
    assert isinstance(agent.refused(DeleteFile(path="a")), NotFoundError)
    world.disk.failure = StorageFullError("The disk is full.", retry_after=5.0)
    assert isinstance(agent.refused(PUT), StorageFullError)
    assert kept(world) == held(world) == 0
    world.disk.failure = None
    agent.call(PUT)


def test_a_call_made_again_is_applied_once(world: World, agent: App) -> None:
    assert agent.call(PUT, key="k") == agent.call(PUT, key="k")
    assert kept(world) == held(world) == 1


def test_a_call_made_again_of_the_next_kernel_is_applied_once(world: World, agent: App, tmp_path: Path) -> None:
    first = agent.call(PUT, key="k")
    again = make_world(tmp_path)
    agent = again.connect(SHOP).spawn()
    assert agent.call(PUT, key="k") == first
    assert kept(again) == 1
    assert held(again) == 0, "what it holds is charged when the kernel starts, not when a call is made again"
    assert isinstance(agent.refused(PutFile(path="b", data=b""), key="k"), ConflictError)
    other = again.connect("app:other").spawn()
    other.call(PUT, key="k")
    assert kept(again) == 2


def test_a_call_made_again_is_answered_though_it_used_a_limit_up(world: World, agent: App, tmp_path: Path) -> None:
    first = agent.call(PUT, key="k")
    again = make_world(tmp_path)
    again.system.quotas.set_limits(SHOP, {"files": 0})
    agent = again.connect(SHOP).spawn()
    assert agent.call(PUT, key="k") == first
    assert isinstance(agent.refused(PUT, key="l"), LimitError)
    assert isinstance(agent.refused(PUT), LimitError)
    assert kept(again) == 1


def test_what_was_given_up_by_its_caller_is_charged_if_it_was_kept(world: World, agent: App) -> None:
    sent = agent.send(PUT, timeout_ms=10)
    world.host.advance(1.0)
    assert sent.error().code == "deadline"
    world.host.work()
    assert kept(world) == held(world) == 1


def test_one_sees_what_one_was_told_of(agent: App) -> None:
    agent.call(PUT)
    assert agent.call(GetFile(path="a")).file.size == 1


def test_draining_waits_for_what_is_being_written(world: World, agent: App) -> None:
    sent = agent.send(PUT)
    world.connect(ADMIN).send(StopKernel(drain=True))
    world.host.advance(0.1)
    stopped_before = world.host.stopped
    world.host.work()
    assert (stopped_before, world.host.stopped) == (False, True)
    assert sent.result().size == 1


def test_a_kernel_that_stops_at_once_finishes_what_is_being_written(world: World, agent: App) -> None:
    sent = agent.send(PUT)
    world.connect(ADMIN).call(StopKernel(drain=False))
    assert sent.error().code == "stopping"
    world.host.work()
    assert kept(world) == 1


def test_old_replies_are_forgotten(world: World, agent: App) -> None:
    agent.call(PUT, key="k")
    world.host.advance(25 * 3_600)
    world.system.storage.keep_tidy()
    world.host.work()
    assert world.disk.database.connection.execute("SELECT count(*) FROM replies").fetchone() == (0,)
