"""What the gate notes, in a kernel without threads; the files are real."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from kernos.kernel.limits import AUDIT_ANCHOR_S, AUDIT_GROUP_S, AUDIT_RETRY_S
from kernos.kernel.security import audit as audit_module
from kernos.kernel.security.ledger import Ledger
from kernos.syscalls.audit import Entry, ExportAudit, ReadAudit, VerifyAudit
from kernos.syscalls.errors import DeniedError, LimitError, NotYoursError, StorageFullError
from kernos.syscalls.message import Receive, Send
from kernos.syscalls.process import Kill, SetLimits, Spawn
from kernos.syscalls.store import GetFile, PutFile
from kernos.syscalls.system import Cancel, Ping, StopKernel
from tests.kernel.fakes import ADMIN, World, make_world

KEY = b"s" * 32


def watched(world: World) -> World:
    world.system.audit.open(world.disk.database.connection, KEY)
    return world


@pytest.fixture
def world(tmp_path: Path, tiny_store: Path) -> World:
    return watched(make_world(tmp_path, policy=None, store=tiny_store))


def entries(world: World, **question: object) -> list[Entry]:
    found = world.connect(ADMIN).call(ReadAudit(**{"limit": 1_000} | question))  # type: ignore[arg-type]
    return [entry for entry in found.entries if not entry.call.startswith("kernel.")]


def told(entry: Entry) -> tuple[str, str, str]:
    return entry.call, entry.verdict, entry.outcome


def test_a_denied_call_is_recorded_with_who_what_and_why(world: World) -> None:
    app = world.connect("app:shop").spawn("clerk")
    app.refused(Kill(pid=world.connect("app:other").spawn().pid))
    (entry,) = entries(world, verdict="deny")
    assert (entry.principal, entry.pid, entry.call, entry.outcome) == ("app:shop", app.pid, "process.kill", "denied")
    assert entry.objects == ["process/app:other:kill"]
    assert entry.policy == world.system.law.policy.hash
    assert entry.time == world.host.clock


def test_a_stolen_pid_is_a_denial(world: World) -> None:
    victim = world.connect("app:shop").spawn()
    assert isinstance(world.connect("app:thief").agent(victim.pid).refused(Ping()), NotYoursError)
    assert [told(entry) for entry in entries(world, principal="app:thief")] == [("system.ping", "deny", "not_yours")]


def test_calls_that_change_something_are_recorded_and_others_are_not(world: World) -> None:
    agent = world.connect("app:shop").spawn("clerk", user=None)
    agent.call(PutFile(path="a/b", data=b"secret contents"))
    agent.call(GetFile(path="a/b"))
    agent.call(Ping())
    assert [told(entry) for entry in entries(world)] == [("process.spawn", "allow", "ok"), ("store.put", "allow", "ok")]
    assert entries(world)[1].objects == ["store/a/b:write"]


def test_all_calls_are_recorded_if_the_settings_say_so(tmp_path: Path) -> None:
    from kernos.kernel.config import Config

    world = watched(make_world(tmp_path, config=Config(audit="all")))
    world.connect("app:shop").call(Ping())
    assert told(entries(world, principal="app:shop")[0]) == ("system.ping", "allow", "ok")


def test_a_call_that_waits_is_recorded_when_it_begins_and_when_it_ends(world: World) -> None:
    agent = world.connect("app:shop").spawn()
    call = agent.send(Receive(mailbox=f"agent/{agent.pid}"))
    assert [entry.outcome for entry in entries(world, name="message.receive")] == [""]
    agent.call(Cancel(id=call.id))
    assert [entry.outcome for entry in entries(world, name="message.receive")] == ["cancelled"]


def test_what_a_limit_refuses_is_recorded_as_such(world: World) -> None:
    world.connect(ADMIN).call(SetLimits(principal="app:shop", limits={"processes": 0}))
    assert isinstance(world.connect("app:shop").refused(Spawn(name="x")), LimitError)
    assert [told(entry) for entry in entries(world, principal="app:shop")] == [("process.spawn", "allow", "limit")]


def test_a_repeated_call_is_recorded_as_such(world: World) -> None:
    agent = world.connect("app:shop").spawn()
    for _ in range(2):
        agent.call(PutFile(path="x", data=b""), key="k")
    assert [entry.outcome for entry in entries(world, name="store.put")] == ["ok", "repeated"]


def test_the_user_of_an_agent_is_named_and_found(world: World) -> None:
    world.connect("app:customer_service").spawn(user="user:anna").call(PutFile(path="x", data=b""))
    (entry,) = entries(world, principal="user:anna")
    assert (entry.user, entry.call) == ("user:anna", "store.put")


def test_there_is_no_text_no_data_and_no_key_in_it(world: World) -> None:
    agent = world.connect("app:shop").spawn()
    agent.call(PutFile(path="x", data=b"SECRET"), key="SECRET-KEY")
    agent.call(Send(to=f"agent/{agent.pid}", text="SECRET"))
    agent.refused(Send(to="queue/other", text="SECRET"))
    entries(world)
    written = b"".join(path.read_bytes() for path in world.system.audit.folder.iterdir())
    assert b"message.send" in written
    assert b"SECRET" not in written


def test_search(world: World) -> None:
    shop, other = world.connect("app:shop").spawn(), world.connect("app:other").spawn()
    shop.call(PutFile(path="papers/a", data=b""))
    other.call(PutFile(path="papers/b", data=b""))
    other.refused(StopKernel())
    assert len(entries(world, name="store")) == 2
    assert [entry.objects for entry in entries(world, text="papers/b")] == [["store/papers/b:write"]]
    assert [entry.call for entry in entries(world, verdict="deny")] == ["system.stop"]
    assert [entry.call for entry in entries(world, limit=1)] == ["system.stop"]
    assert entries(world, since=world.host.clock + 1) == []
    assert len(entries(world, until=world.host.clock)) == 5
    last = entries(world)[-1].number
    assert entries(world, after=last) == []


def test_reading_is_a_right(world: World) -> None:
    for call in (ReadAudit(), ExportAudit(), VerifyAudit()):
        assert isinstance(world.connect("app:shop").refused(call), DeniedError)


def test_exported_lines_are_those_of_the_log(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ledger, "append", _small(Ledger.append))
    app = world.connect("app:shop")
    for _ in range(10):
        app.spawn()
        entries(world)
    admin, lines, at = world.connect(ADMIN), list[str](), 0
    while True:
        part = admin.call(ExportAudit(start=at, limit=2))
        lines, at = lines + part.lines, part.next
        if not at:
            break
    files = sorted(world.system.audit.folder.iterdir())
    assert len(files) > 2
    assert "".join(line + "\n" for line in lines) == "".join(file.read_text() for file in files)
    assert [json.loads(line)["number"] for line in lines] == list(range(1, len(lines) + 1))


def _small(append: Callable[[Ledger, Sequence[Entry]], None]) -> Callable[[Ledger, Sequence[Entry]], None]:
    def small(ledger: Ledger, group: Sequence[Entry]) -> None:
        ledger._most = 800
        append(ledger, group)

    return small


def test_it_verifies_and_goes_on_after_a_restart(world: World, tmp_path: Path) -> None:
    world.connect("app:shop").spawn()
    world.host.advance(AUDIT_GROUP_S)
    world.host.work()
    world.host.advance(AUDIT_ANCHOR_S)
    world.host.work()
    after = watched(make_world(tmp_path, policy=None, store=world.system.where.models))
    after.connect("app:shop").spawn()
    checked = after.connect(ADMIN).call(VerifyAudit())
    assert checked.findings == []
    assert checked.last == checked.entries == 6, "two starts, and two agents of which it says that they begin and that they are there"


def test_a_change_is_found_and_placed(world: World) -> None:
    world.connect("app:shop").spawn()
    entries(world)
    (path,) = world.system.audit.folder.iterdir()
    path.write_bytes(path.read_bytes().replace(b"app:shop", b"app:shoe"))
    (found,) = world.connect(ADMIN).call(VerifyAudit()).findings
    assert (found.file, found.line) == (path.name, 2)


def test_while_it_cannot_be_written_nothing_is_changed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    app = world.connect("app:shop")
    agent = app.spawn()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Ledger, "append", full)
    world.host.advance(AUDIT_GROUP_S)
    world.host.work()
    assert isinstance(agent.refused(PutFile(path="x", data=b"")), StorageFullError)
    agent.call(Ping())
    world.connect(ADMIN).call(Kill(pid=agent.pid))
    monkeypatch.undo()
    world.host.advance(AUDIT_RETRY_S)
    world.host.work()
    app.spawn().call(PutFile(path="x", data=b""))
    assert [told(entry) for entry in entries(world)][:3] == [
        ("process.spawn", "allow", "ok"),
        ("store.put", "allow", "storage_full"),
        ("process.kill", "allow", "ok"),
    ]
    assert world.connect(ADMIN).call(VerifyAudit()).findings == []


def test_what_is_lost_meanwhile_is_counted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "AUDIT_WAITING", 3)
    app = world.connect("app:shop")
    for _ in range(6):
        app.send(StopKernel())
    app.world.host.advance(AUDIT_GROUP_S)
    world.host.work()
    monkeypatch.undo()
    app.send(StopKernel())
    lost = entries(world, name="audit.lost")
    assert [entry.outcome.split()[0] for entry in lost] == ["4"], "the start of the kernel was one of the three"
    assert world.connect(ADMIN).call(VerifyAudit()).findings == []


def test_the_oldest_files_go(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ledger, "append", _small(Ledger.append))
    monkeypatch.setattr(audit_module, "AUDIT_FILES", 3)
    app = world.connect("app:shop")
    for _ in range(30):
        app.spawn()
        entries(world)
    entries(world)
    world.host.work()
    assert len(list(world.system.audit.folder.iterdir())) <= 4
    checked = world.connect(ADMIN).call(VerifyAudit())
    assert checked.findings == []
    assert checked.entries < checked.last


def test_a_refused_connection_is_recorded(world: World) -> None:
    world.system.audit.turned_away("localhost:0:0:77", "unknown key")
    (entry,) = entries(world, name="connect")
    assert (entry.verdict, entry.rule, entry.objects) == ("deny", "unknown key", ["localhost:0:0:77"])


def test_apps_are_not_held_up_by_it(world: World) -> None:
    world.connect(ADMIN).send(SetLimits(principal="app:shop", limits={})).result()
    assert list(world.system.audit.folder.iterdir()) != []
    assert all(path.stat().st_size == 0 for path in world.system.audit.folder.iterdir()), "the reply left before anything was written"
