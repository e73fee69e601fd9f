"""What is too old goes by itself, a slice at a time, and nobody is charged for it any more."""

from pathlib import Path

import pytest

from kernos.kernel import retention
from kernos.kernel.config import Config
from kernos.kernel.limits import TIDY_S
from kernos.syscalls.context import AppendContext, OpenContext, RollbackContext
from kernos.syscalls.errors import StorageFullError
from kernos.syscalls.model import Message
from kernos.syscalls.store import GetFile, ListVersions, PutFile
from tests.kernel.fakes import App, World, make_world

DAY_S = 86_400.0


def used(world: World) -> int:
    return {meter.limit: meter.used for meter in world.system.quotas.usage("app:shop", world.host.now)}["bytes"]


def kept(agent: App, path: str) -> list[int]:
    return [file.version for file in agent.call(ListVersions(path=path)).files]


def pass_days(world: World, days: float) -> None:
    world.host.advance(days * DAY_S + TIDY_S)
    world.host.work()


def test_replaced_versions_go_when_they_are_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "TRIMMED", 2)
    world = make_world(tmp_path, config=Config(version_days=3))
    agent = world.connect("app:shop").spawn()
    world.system.retention.start()
    for size in range(1, 8):
        agent.call(PutFile(path="x", data=bytes(size)))
    pass_days(world, 2)
    agent.call(PutFile(path="x", data=bytes(100)))
    assert (kept(agent, "x"), used(world)) == ([*range(1, 9)], 128)
    pass_days(world, 1)
    assert (kept(agent, "x"), used(world)) == ([8], 100)
    pass_days(world, 30)
    assert agent.call(GetFile(path="x")).data == bytes(100), "the newest stays, however old"


def test_what_a_rollback_left_behind_goes_when_it_is_too_old(tmp_path: Path) -> None:
    world = make_world(tmp_path, config=Config(rollback_days=3))
    agent = world.connect("app:shop").spawn()
    world.system.retention.start()
    id_ = agent.call(OpenContext(name="chat")).context
    agent.call(AppendContext(context=id_, messages=[Message("user", "kept"), Message("user", "left")]))
    agent.call(RollbackContext(context=id_, messages=1))
    pass_days(world, 2)
    assert used(world) == 8
    pass_days(world, 1)
    assert used(world) == 4


def test_nothing_goes_unless_it_is_asked_for(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    agent = world.connect("app:shop").spawn()
    world.system.retention.start()
    for _ in range(3):
        agent.call(PutFile(path="x", data=b"x"))
    pass_days(world, 1_000)
    assert kept(agent, "x") == [1, 2, 3]


def test_a_full_disk_delays_it(tmp_path: Path) -> None:
    world = make_world(tmp_path, config=Config(version_days=1))
    agent = world.connect("app:shop").spawn()
    for _ in range(2):
        agent.call(PutFile(path="x", data=b"x"))
    world.host.advance(2 * DAY_S)
    world.disk.failure = StorageFullError("The disk is full.", retry_after=5.0)
    world.system.retention.start()
    world.host.work()
    assert (kept(agent, "x"), used(world)) == ([1, 2], 2)
    world.disk.failure = None
    pass_days(world, 0)
    assert (kept(agent, "x"), used(world)) == ([2], 1)
