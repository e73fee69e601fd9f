"""A call that is made again with its idempotency key is carried out once, and its caller is told what came of it."""

import pytest

from kernos.kernel.core import repeats
from kernos.kernel.limits import IDEMPOTENCY_S
from kernos.syscalls import tool
from kernos.syscalls.errors import (
    CancelledError,
    ConflictError,
    DeniedError,
    KernelRestartedError,
)
from kernos.syscalls.process import SendSignal, Spawn
from kernos.syscalls.store import GetFile, PutFile
from kernos.syscalls.system import Cancel, Ping, StopKernel
from tests.kernel.fakes import App, World


class TestIdempotency:
    def test_the_same_key_is_applied_once(self, world: World, agent: App) -> None:
        first = agent.call(PutFile(path="x", data=b"1"), key="k")
        assert agent.call(PutFile(path="x", data=b"1"), key="k") == first
        assert agent.call(GetFile(path="x")).file.version == 1

    def test_from_another_connection(self, world: World, app: App) -> None:
        pid = app.call(Spawn(name="x"), key="k").pid
        assert world.connect("app:shop").call(Spawn(name="x"), key="k").pid == pid

    def test_another_body_is_a_conflict(self, agent: App) -> None:
        agent.call(PutFile(path="x", data=b"1"), key="k")
        assert isinstance(agent.refused(PutFile(path="x", data=b"2"), key="k"), ConflictError)
        assert agent.call(PutFile(path="x", data=b"1"), key="k").version == 1, "the first outcome is still known"

    def test_keys_of_two_principals_do_not_meet(self, world: World, agent: App) -> None:
        agent.call(PutFile(path="x", data=b"1"), key="k")
        other = world.connect("app:other").spawn()
        assert other.call(PutFile(path="x", data=b"2"), key="k").version == 1

    def test_a_call_that_reads_has_no_record(self, agent: App) -> None:
        agent.call(Ping(payload=b"1"), key="k")
        assert agent.call(Ping(payload=b"2"), key="k").payload == b"2"

    def test_a_failed_call_frees_the_key(self, agent: App) -> None:
        assert isinstance(agent.refused(PutFile(path="x", data=b"1", expect=7), key="k"), ConflictError)
        assert agent.call(PutFile(path="x", data=b"2"), key="k").version == 1

    def test_a_denied_call_leaves_no_record(self, lawful: World) -> None:
        app = lawful.connect("app:x")
        assert isinstance(app.refused(StopKernel(), key="k"), DeniedError)
        assert not lawful.gate.repeats.records

    def test_it_is_forgotten_after_a_day(self, world: World, agent: App) -> None:
        agent.call(PutFile(path="x", data=b"1"), key="k")
        world.host.advance(IDEMPOTENCY_S)
        assert agent.call(PutFile(path="x", data=b"1"), key="k").version == 1
        world.host.advance(1.0)
        assert agent.call(PutFile(path="x", data=b"1"), key="k").version == 2

    def test_the_records_are_bounded(self, world: World, agent: App, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(repeats, "IDEMPOTENCY_RECORDS", 3)
        for number in range(10):
            agent.call(SendSignal(pid=agent.pid, signal="stop"), key=str(number))
        assert list(world.gate.repeats.records["app:shop"]) == ["7", "8", "9"]

    def test_a_duplicate_waits_for_the_first(self, world: World, agent: App) -> None:
        tool_agent = world.connect("app:tools").spawn()
        serving = tool_agent.send(tool.ServeTool(tool="t/f", description="", schema="{}"), stream=True)
        first, second = (agent.send(tool.CallTool(tool="t/f"), key="k") for _ in range(2))
        assert len(serving.events) == 1
        assert first.open
        assert second.open
        tool_agent.call(tool.AnswerTool(invocation=serving.events[0].invocation, result="42"))
        assert first.result() == second.result()
        assert len(world.gate.in_flight) == 1
        assert agent.send(tool.CallTool(tool="t/f"), key="k").result() == first.result()

    def test_a_waiting_duplicate_fails_with_the_first(self, world: World, agent: App) -> None:
        tool_agent = world.connect("app:tools").spawn()
        serving = tool_agent.send(tool.ServeTool(tool="t/f", description="", schema="{}"), stream=True)
        first, second = (agent.send(tool.CallTool(tool="t/f"), key="k") for _ in range(2))
        tool_agent.call(tool.AnswerTool(invocation=serving.events[0].invocation, error="broken"))
        assert first.error().code == second.error().code == "tool"
        agent.send(tool.CallTool(tool="t/f"), key="k")
        assert len(serving.events) == 2, "the key is free again"

    def test_a_waiting_duplicate_can_be_cancelled_alone(self, world: World, agent: App) -> None:
        tool_agent = world.connect("app:tools").spawn()
        serving = tool_agent.send(tool.ServeTool(tool="t/f", description="", schema="{}"), stream=True)
        first, second = (agent.send(tool.CallTool(tool="t/f"), key="k") for _ in range(2))
        agent.call(Cancel(id=second.id))
        assert isinstance(second.error(), CancelledError)
        tool_agent.call(tool.AnswerTool(invocation=serving.events[0].invocation, result="42"))
        assert first.result().result == "42"
        assert isinstance(second.error(), CancelledError)

    def test_a_call_made_again_from_a_new_connection_is_told_to_try_again(self, world: World, agent: App) -> None:
        world.connect("app:tools").spawn().send(tool.ServeTool(tool="t/f", description="", schema="{}"), stream=True)
        agent.send(tool.CallTool(tool="t/f"), key="k")
        again = world.connect("app:shop").agent(agent.pid).send(tool.CallTool(tool="t/f"), key="k")
        world.gate.drop(agent.client)
        assert isinstance(again.error(), KernelRestartedError)
        assert again.error().retry

    def test_the_empty_key(self, agent: App) -> None:
        versions = [agent.call(PutFile(path="x", data=b"1"), key="").version for _ in range(2)]
        agent.refused(GetFile(path="nowhere"))
        versions.append(agent.call(PutFile(path="x", data=b"1"), key="").version)
        assert versions in ([1, 1, 1], [1, 2, 3]), "it is a key, or it is none"

    def test_a_record_that_is_waited_for_is_kept(self, world: World, agent: App, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(repeats, "IDEMPOTENCY_RECORDS", 2)
        tool_agent = world.connect("app:tools").spawn()
        serving = tool_agent.send(tool.ServeTool(tool="t/f", description="", schema="{}"), stream=True)
        first, second = (agent.send(tool.CallTool(tool="t/f"), key="k") for _ in range(2))
        for number in range(5):
            agent.call(PutFile(path="x", data=b""), key=str(number))
        tool_agent.call(tool.AnswerTool(invocation=serving.events[0].invocation, result="42"))
        assert first.result().result == "42"
        assert not second.open

    def test_one_principal_cannot_drop_the_records_of_another(self, world: World, agent: App, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(repeats, "IDEMPOTENCY_RECORDS", 20)
        agent.call(PutFile(path="x", data=b"1"), key="k")
        flood = world.connect("app:flood").spawn()
        for number in range(50):
            flood.call(PutFile(path="y", data=b""), key=str(number))
        assert agent.call(PutFile(path="x", data=b"1"), key="k").version == 1
