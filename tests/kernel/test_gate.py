"""Every message passes the gate, and whatever comes is answered with a reply or a typed error. The host is fake; see `fakes.py`."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernos.kernel import gate as gate_module
from kernos.kernel.handlers import HANDLERS
from kernos.kernel.host import Delivery
from kernos.kernel.limits import CUT_OFF_RETRY_S
from kernos.syscalls import message, model, policy, store, system
from kernos.syscalls.errors import (
    AbiMismatchError,
    BadRequestError,
    BusyError,
    CancelledError,
    ConflictError,
    CutOffError,
    DeadlineError,
    InternalError,
    LimitError,
    NotYoursError,
    StoppingError,
)
from kernos.syscalls.message import Receive
from kernos.syscalls.model import CountTokens, Generate, Message
from kernos.syscalls.process import Exit, ListProcesses, SendSignal, Spawn, Wait
from kernos.syscalls.store import GetFile, PutFile
from kernos.syscalls.system import Cancel, GetStatus, Ping, StopKernel
from kernos.syscalls.table import ROWS, TABLE
from kernos.syscalls.wire import Kind, RequestHeader, decode_error, encode, encode_request
from tests.kernel.fakes import App, Sent, World, examples, make_world, tiny_model


def waiting(agent: App, **options: Any) -> Sent:
    """A call that waits."""
    sent = agent.send(Receive(mailbox="queue/empty"), **options)
    agent.world.host.work()
    assert sent.open
    return sent


dict_of_handlers: dict[Any, Any] = HANDLERS


def in_flight(world: World) -> tuple[int, int, int]:
    """The three books of calls in flight, which must agree."""
    gate, books = world.gate, world.system.quotas.books.values()
    return len(gate.in_flight), sum(book.held["calls"] for book in books), len({id(ticket) for ticket in gate.in_flight.values()})


def last_error(app: App) -> tuple[int, str]:
    answer = app.world.answers(app.client)[-1]
    assert answer.kind == Kind.ERROR
    return answer.id, decode_error(answer.body).code


values = st.none() | st.integers(-9, 9) | st.text(max_size=5) | st.sampled_from([entry.name for entry in TABLE])
bodies = st.recursive(
    values, lambda inner: st.dictionaries(st.sampled_from(["call", "pid", "model", "tool", "to", "name", "path"]), inner, max_size=5)
)

# --- decoding ----------------------------------------------------------------------------------------------------------------------


class TestDecoding:
    @pytest.mark.parametrize("frames", [[], [b""], [b"", b"", b""], [b"", b""], [b"\xc1", b"\xc1"], [b"{}", b"{}"]], ids=range(6))
    def test_frames_that_are_no_message(self, app: App, frames: list[bytes]) -> None:
        app.frames(frames)
        assert last_error(app) == (0, "bad_request")

    def test_a_message_that_is_too_large(self, app: App, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gate_module, "MAX_MESSAGE_BYTES", 100)
        app.frames([b"x" * 50, b"x" * 51])
        assert last_error(app) == (0, "bad_request")

    def test_a_body_that_is_no_call_is_answered_by_its_id(self, app: App) -> None:
        app.frames([encode(RequestHeader(77)), b"\xc1"])
        assert last_error(app) == (77, "bad_request")

    def test_an_unknown_call(self, app: App) -> None:
        app.frames([encode(RequestHeader(78)), msgspec.msgpack.encode({"call": "model.dream", "vivid": True})])
        assert last_error(app) == (78, "unknown_call")

    def test_an_unknown_field_is_ignored(self, app: App) -> None:
        app.frames([encode(RequestHeader(79)), msgspec.msgpack.encode({"call": "system.ping", "payload": b"x", "later": 1})])
        assert app.world.answers(app.client)[-1].kind == Kind.REPLY

    @pytest.mark.parametrize("body", [{}, {"call": 3}, {"call": "process.wait"}, {"call": "process.wait", "pid": -1}, [], 7, None])
    def test_a_call_with_wrong_fields(self, app: App, body: object) -> None:
        app.frames([encode(RequestHeader(80)), msgspec.msgpack.encode(body)])
        id_, code = last_error(app)
        assert id_ == 80
        assert code in ("bad_request", "unknown_call")

    @pytest.mark.parametrize("major", [0, 2, 99])
    def test_another_abi_is_refused_whatever_the_call(self, app: App, major: int) -> None:
        header = RequestHeader(81, major=major)
        for body in (encode(Ping()), msgspec.msgpack.encode({"call": "from.the.future"})):
            app.frames([encode(header), body])
            assert last_error(app) == (81, AbiMismatchError.code)

    def test_a_newer_minor_is_served(self, app: App) -> None:
        app.frames(encode_request(RequestHeader(82, minor=99), Ping()))
        assert app.world.answers(app.client)[-1].kind == Kind.REPLY

    @examples(150)
    @given(frames=st.lists(st.binary(max_size=60), max_size=4))
    def test_any_bytes_get_exactly_one_error(self, frames: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> None:
        app = shared_world(tmp_path_factory).connect("app:fuzz")
        app.frames(frames)
        (answer,) = app.world.answers(app.client)
        assert answer.kind == Kind.ERROR
        app.world.host.sent.clear()

    @examples(150)
    @given(body=bodies)
    def test_any_body_gets_an_answer(self, body: object, tmp_path_factory: pytest.TempPathFactory) -> None:
        app = shared_world(tmp_path_factory).connect("app:fuzz")
        app.frames([encode(RequestHeader(5)), msgspec.msgpack.encode(body)])
        answers = app.world.answers(app.client)
        assert len(answers) <= 1
        assert not [answer for answer in answers if answer.kind == Kind.ERROR and decode_error(answer.body).code == "internal"]
        app.world.host.sent.clear()


_shared: list[World] = []


def shared_world(factory: pytest.TempPathFactory) -> World:
    if not _shared:
        _shared.append(make_world(factory.mktemp("shared")))
    return _shared[0]


def test_every_call_has_a_handler() -> None:
    assert set(HANDLERS) == set(ROWS)


# --- who calls ---------------------------------------------------------------------------------------------------------------------


class TestIdentity:
    def test_pid_0_makes_no_calls_of_agents(self, app: App) -> None:
        error = app.refused(PutFile(path="x", data=b""))
        assert isinstance(error, NotYoursError)
        assert "Spawn one" in error.message

    def test_calls_of_agents_are_those_marked(self, app: App) -> None:
        assert {entry.name for entry in TABLE if entry.agent} >= {
            "model.generate",
            "store.get",
            "message.send",
            "tool.call",
            "context.read",
        }

    def test_an_agent_that_never_was(self, app: App) -> None:
        assert isinstance(app.agent(999).refused(Ping()), NotYoursError)

    def test_an_agent_of_another_principal(self, world: World, agent: App) -> None:
        thief = world.connect("app:thief").agent(agent.pid)
        error = thief.refused(GetFile(path="x"))
        assert isinstance(error, NotYoursError)
        assert "ended" not in error.message, "nothing about others' agents"

    def test_an_agent_that_has_ended_and_why(self, app: App, agent: App) -> None:
        app.call(Exit(pid=agent.pid, code=1, reason="lunch"))
        error = agent.refused(Ping())
        assert isinstance(error, NotYoursError)
        assert "lunch" in error.message

    def test_why_others_agents_ended_is_not_told(self, world: World, app: App, agent: App) -> None:
        app.call(Exit(pid=agent.pid, code=1, reason="lunch"))
        assert "lunch" not in world.connect("app:thief").agent(agent.pid).refused(Ping()).message

    def test_another_connection_of_the_same_principal_may(self, world: World, agent: App) -> None:
        world.connect("app:shop").agent(agent.pid).call(PutFile(path="x", data=b""))

    def test_a_stopped_agent_may_call(self, app: App, agent: App) -> None:
        app.call(SendSignal(pid=agent.pid, signal="stop"))
        agent.call(Ping())


# --- limits and ends of calls ------------------------------------------------------------------------------------------------------


class TestInFlight:
    def test_a_principal_has_a_limit(self, world: World, agent: App) -> None:
        world.system.quotas.set_limits("app:shop", {"calls": 3})
        calls = [waiting(agent) for _ in range(3)]
        error = agent.refused(Receive(mailbox="queue/empty"))
        assert isinstance(error, LimitError)
        assert error.retry_after
        agent.call(Ping())
        waiting(world.connect("app:other").spawn())
        agent.call(Cancel(id=calls[0].id))
        waiting(agent)

    def test_the_kernel_has_a_limit(self, world: World, agent: App, monkeypatch: pytest.MonkeyPatch) -> None:
        other, third = (world.connect(name).spawn() for name in ("app:other", "app:third"))
        monkeypatch.setattr(gate_module, "CALLS_IN_FLIGHT", 2)
        waiting(agent)
        waiting(other)
        error = third.refused(Receive(mailbox="queue/empty"))
        assert isinstance(error, BusyError)
        assert error.retry

    def test_an_id_is_in_flight_once(self, agent: App) -> None:
        waiting(agent, id_=500)
        agent.send(Receive(mailbox="queue/other"), id_=500)
        assert last_error(agent) == (500, ConflictError.code)

    def test_two_principals_may_use_the_same_id(self, world: World, agent: App) -> None:
        first = waiting(agent, id_=500)
        second = waiting(world.connect("app:other").spawn(), id_=500)
        agent.call(Cancel(id=500))
        assert (first.open, second.open) == (False, True)

    def test_books_agree_and_empty(self, world: World, agent: App) -> None:
        calls = [waiting(agent) for _ in range(5)]
        assert in_flight(world) == (5, 5, 5)
        for call in calls:
            agent.call(Cancel(id=call.id))
        assert in_flight(world) == (0, 0, 0)
        assert not agent.client.tickets

    def test_a_light_call_on_a_thread_takes_no_id_that_is_in_flight(self, tmp_path: Path, tiny_store: Path) -> None:
        world = make_world(tmp_path, store=tiny_store)
        agent = world.connect("app:shop").spawn()
        call = waiting(agent, id_=500)
        agent.send(CountTokens(model="tiny", text="x"), id_=500)
        world.host.work()
        agent.call(Cancel(id=500))
        assert not call.open
        assert in_flight(world) == (0, 0, 0)

    def test_calls_on_threads_are_limited_too(self, tmp_path: Path, tiny_store: Path) -> None:
        world = make_world(tmp_path, store=tiny_store)
        world.system.quotas.set_limits("app:shop", {"calls": 3})
        agent = world.connect("app:shop").spawn()
        for _ in range(10):
            agent.send(CountTokens(model="tiny", text="x"))
        assert len(world.host.offloaded) <= 3


class TestDeadlines:
    def test_a_call_ends_at_its_deadline(self, world: World, agent: App) -> None:
        call = waiting(agent, timeout_ms=2_000)
        world.host.advance(1.9)
        assert call.open
        world.host.advance(0.2)
        assert isinstance(call.error(), DeadlineError)
        assert not world.system.readers.waiting
        assert in_flight(world) == (0, 0, 0)

    def test_a_call_that_ended_has_no_deadline_any_more(self, world: World, agent: App) -> None:
        call = waiting(agent, timeout_ms=2_000)
        agent.call(message.Send(to="queue/empty", text="hi"))
        due = world.host.now + 2.0
        assert not [timer for when, _, timer in world.host.timers if when == due and timer.act is not None], "it holds nothing any more"
        world.host.advance(5.0)
        assert call.result().text == "hi"

    def test_a_call_without_a_deadline_waits(self, world: World, agent: App) -> None:
        call = waiting(agent)
        world.host.advance(10 * 86_400.0)
        assert call.open


class TestCancel:
    def test_ones_own_call(self, agent: App) -> None:
        call = waiting(agent)
        agent.call(Cancel(id=call.id))
        assert isinstance(call.error(), CancelledError)

    def test_by_another_connection_of_the_principal(self, world: World, agent: App) -> None:
        call = waiting(agent)
        world.connect("app:shop", control=True).call(Cancel(id=call.id))
        assert not call.open

    def test_not_those_of_others(self, world: World, agent: App) -> None:
        call = waiting(agent)
        world.connect("app:thief").call(Cancel(id=call.id))
        world.connect("admin:root").call(Cancel(id=call.id))
        assert call.open

    def test_what_is_not_in_flight(self, agent: App) -> None:
        agent.call(Cancel(id=123_456))

    def test_a_late_answer_is_left_out(self, world: World, agent: App) -> None:
        call = waiting(agent)
        ticket = world.gate.in_flight[("app:shop", call.id)]
        agent.call(Cancel(id=call.id))
        ticket.reply(system.Pong(b""))
        ticket.fail(InternalError("late"))
        ticket.event(system.Pong(b""))
        assert isinstance(call.error(), CancelledError)


# --- clients that do not read, and clients that are gone ---------------------------------------------------------------------------


def cut_off(app: App) -> bool:
    return app.client.cut_off


class TestCutOff:
    def test_who_does_not_read_loses_his_calls_and_is_told(self, world: World, agent: App) -> None:
        calls = [waiting(agent) for _ in range(3)]
        full = {agent.client}
        world.host.deliver = lambda client: Delivery.FULL if client in full else Delivery.SENT
        agent.send(Ping())
        assert cut_off(agent)
        assert in_flight(world) == (0, 0, 0)
        assert not world.system.readers.waiting
        world.host.advance(CUT_OFF_RETRY_S * 3)
        assert cut_off(agent)
        full.clear()
        world.host.advance(CUT_OFF_RETRY_S * 1.1)
        assert not cut_off(agent)
        notices = [answer for answer in world.answers(agent.client) if answer.kind == Kind.CUT_OFF]
        assert [decode_error(notice.body).code for notice in notices] == [CutOffError.code]
        assert all(not call.answers for call in calls), "the notice ends them all"
        agent.call(Ping())

    def test_others_are_served_meanwhile(self, world: World, agent: App) -> None:
        world.host.deliver = lambda client: Delivery.FULL if client is agent.client else Delivery.SENT
        agent.send(Ping())
        world.connect("app:other").call(Ping())

    def test_calls_made_while_cut_off_end_with_the_notice(self, world: World, agent: App) -> None:
        world.host.deliver = lambda _: Delivery.FULL
        agent.send(Ping())
        lost = agent.send(Ping())
        world.host.deliver = lambda _: Delivery.SENT
        world.host.advance(1.0)
        assert not lost.answers
        assert world.answers(agent.client)[-1].kind == Kind.CUT_OFF

    def test_who_goes_without_reading_is_forgotten(self, world: World, agent: App) -> None:
        world.host.deliver = lambda _: Delivery.FULL
        agent.send(Ping())
        world.host.deliver = lambda _: Delivery.GONE
        world.host.advance(10.0)
        assert not world.host.timers


class TestGone:
    def test_its_calls_end(self, world: World, agent: App) -> None:
        waiting(agent)
        waiting(agent, timeout_ms=60_000)
        world.host.deliver = lambda _: Delivery.GONE
        agent.send(Ping())
        assert in_flight(world) == (0, 0, 0)
        assert not world.system.readers.waiting

    def test_the_calls_of_other_connections_go_on(self, world: World, agent: App) -> None:
        twin = world.connect("app:shop").agent(agent.pid)
        call = waiting(twin)
        waiting(agent)
        world.host.deliver = lambda client: Delivery.GONE if client is agent.client else Delivery.SENT
        agent.send(Ping())
        assert call.open

    @pytest.mark.parametrize("how", ["program", "send"])
    def test_with_a_thousand_calls_in_flight(self, world: World, agent: App, how: str) -> None:
        for _ in range(1_000):
            waiting(agent)
        world.host.deliver = lambda client: Delivery.GONE if client is agent.client else Delivery.SENT
        if how == "program":
            world.gate.drop(agent.client)
        else:
            agent.send(Ping())
        assert in_flight(world) == (0, 0, 0)
        world.connect("app:other").call(Ping())

    def test_when_its_program_ends_its_agents_end(self, world: World, agent: App) -> None:
        world.system.program_died(agent.client.os_pid)
        assert world.system.processes.rows[agent.pid].reason == "its program has ended"
        assert world.system.processes.living == 0


# --- defects of the kernel ---------------------------------------------------------------------------------------------------------


class TestInternalErrors:
    def test_a_broken_handler_answers_with_the_story_and_the_kernel_goes_on(self, agent: App, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*_: object) -> None:
            raise ZeroDivisionError("a defect")

        monkeypatch.setitem(dict_of_handlers, GetStatus, broken)
        error = agent.refused(GetStatus())
        assert isinstance(error, InternalError)
        assert "a defect" in error.message
        assert "spawned as agent by app:shop" in error.details["story"]
        agent.call(Ping())

    def test_a_handler_that_returns_what_cannot_be_encoded(self, app: App, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(dict_of_handlers, GetStatus, lambda *_: object())
        sent = app.send(GetStatus())
        assert isinstance(sent.error(), InternalError)
        app.call(Ping())

    def test_a_broken_law_lets_nobody_in(self, world: World, app: App, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*_: object) -> None:
            raise RuntimeError("no law")

        monkeypatch.setattr(world.system.law.policy.index, "decide", broken)
        world.system.law.policy.cache.clear()
        assert isinstance(app.refused(ListProcesses()), InternalError)
        monkeypatch.undo()
        app.call(ListProcesses())

    def test_an_error_of_a_thread_is_an_answer(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        tiny_model(tmp_path / "store", "tiny")
        world = make_world(tmp_path, store=tmp_path / "store")
        agent = world.connect("app:shop").spawn()
        tokenizer = world.system.registry.entries["tiny"].tokenizer

        def broken(*_: object) -> list[int]:
            raise OverflowError("of the tokenizer")

        monkeypatch.setattr(tokenizer, "encode", broken)
        sent = agent.send(CountTokens(model="tiny", text="x"))
        world.host.work()
        assert "of the tokenizer" in sent.error().message


# --- control and draining ----------------------------------------------------------------------------------------------------------


class TestControl:
    def test_the_control_socket_takes_control_calls_alone(self, world: World) -> None:
        control = world.connect("admin:root", control=True)
        control.call(Ping())
        control.call(GetStatus())
        control.call(ListProcesses())
        for call in (Spawn(name="x"), model.ListModels(), Wait(pid=1), policy.GetPolicy(), store.ListFiles()):
            error = control.refused(call)
            assert isinstance(error, BadRequestError)
            assert "control" in error.message

    def test_the_control_calls_are_these(self) -> None:
        assert {entry.name for entry in TABLE if entry.control} == {
            "process.list",
            "process.exit",
            "process.signal",
            "process.kill",
            "process.nice",
            "process.usage",
            "process.set_limits",
            "system.ping",
            "system.status",
            "system.cancel",
            "system.stop",
        }

    def test_the_work_socket_takes_them_too(self, app: App) -> None:
        app.call(Ping())


class TestDraining:
    def test_stopping_ends_all_calls_and_then_the_loop(self, world: World, agent: App) -> None:
        call = waiting(agent)
        stop = world.connect("admin:root").send(StopKernel())
        assert isinstance(call.error(), StoppingError)
        stop.result()
        world.host.advance(0.0)
        assert world.host.stopped

    def test_draining_waits_for_what_computes(self, thinking: World) -> None:
        agent = thinking.connect("app:shop").spawn()
        turn = agent.send(Generate(model="tiny", messages=[Message("user", "hi")], max_tokens=2))
        thinking.loaded("tiny")
        call = waiting(agent)
        thinking.connect("admin:root").call(StopKernel(drain=True))
        thinking.host.advance(1.0)
        assert isinstance(call.error(), StoppingError)
        assert not thinking.host.stopped
        thinking.step((thinking.begun().seq, [65, 66], "length"))
        assert turn.result().finish == "length"
        assert thinking.host.stopped

    def test_meanwhile_only_control_calls_are_taken(self, thinking: World) -> None:
        agent = thinking.connect("app:shop").spawn()
        turn = agent.send(Generate(model="tiny", messages=[Message("user", "hi")]))
        thinking.connect("admin:root").call(StopKernel(drain=True))
        error = agent.refused(Spawn(name="x"))
        assert isinstance(error, StoppingError)
        assert error.retry_after
        agent.call(Ping())
        assert agent.call(GetStatus()).state == "draining"
        agent.call(Cancel(id=turn.id))
        assert thinking.host.stopped


def test_calls_and_refusals_are_counted(world: World, agent: App) -> None:
    before = world.system.calls
    agent.call(Ping())
    agent.refused(GetFile(path="nowhere"))
    status = agent.call(GetStatus())
    assert status.calls == before + 3
    assert status.refused == 1
    assert world.system.processes.rows[agent.pid].calls == 3
