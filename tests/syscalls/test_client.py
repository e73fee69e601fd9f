"""The blocking client against a stand-in for the kernel."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic
from typing import TypeVar

import pytest

from kernos.syscalls import Call, Done, Kernel, Key, Places, attempts, client, requests, transport
from kernos.syscalls.errors import (
    BadRequestError,
    CancelledError,
    CutOffError,
    DeadlineError,
    KernelRestartedError,
    KernosError,
    UnknownCallError,
    UnreachableError,
)
from kernos.syscalls.keys import make_key
from kernos.syscalls.model import Chunk, Generate, ListModels, Message
from kernos.syscalls.policy import GetPolicy
from kernos.syscalls.process import Spawn
from kernos.syscalls.system import Cancel, Ping, Pong, StopKernel
from kernos.syscalls.tool import CallTool
from tests.syscalls.standin import StandIn, standing_in

T = TypeVar("T")

HELLO = Generate(model="m", messages=[Message("user", "hello")])
FOREVER = Generate(model="m", messages=[Message("user", "forever")])


def test_a_call_gets_its_reply(standin: StandIn) -> None:
    with Kernel(where=standin.where) as kernel:
        assert kernel.call(Ping(payload=b"x")) == Pong(b"x")
        assert kernel.call(Ping(payload=b"y"), urgent=True) == Pong(b"y")
        assert kernel.principal == "admin:tester"


def test_a_handle_calls_as_its_agent(standin: StandIn) -> None:
    with Kernel(where=standin.where) as kernel:
        agent = kernel.spawn("greeter", user="user:ann", priority="batch")
        agent.call(Ping())
        kernel.call(Ping())
    spawn, of_agent, of_principal = standin.seen
    assert spawn[1] == Spawn(name="greeter", user="user:ann", priority="batch")
    assert [header.pid for header, _ in (spawn, of_agent, of_principal)] == [0, 7, 0]


def test_a_call_carries_its_deadline_and_its_key(standin: StandIn) -> None:
    with Kernel(where=standin.where) as kernel:
        kernel.call(Ping())
        kernel.call(Ping(), timeout=0.25, key="once")
        kernel.call(HELLO)
    light, stated, computing = (header for header, _ in standin.seen)
    assert (light.timeout_ms, light.key) == (30_000, None)
    assert (stated.timeout_ms, stated.key) == (250, "once")
    assert computing.timeout_ms is None
    assert stated.id == light.id + 1


def test_a_stream_gives_events_and_then_its_result(standin: StandIn) -> None:
    with Kernel(where=standin.where) as kernel, kernel.stream(HELLO) as stream:
        assert list(stream) == [Chunk("Good ", 1), Chunk("morning", 1), Chunk("!", 1)]
        assert stream.result.text == "Good morning!"
    assert not any(isinstance(call, Cancel) for _, call in standin.seen)


def test_a_streaming_call_can_be_made_plainly(standin: StandIn) -> None:
    with Kernel(where=standin.where) as kernel:
        assert kernel.call(HELLO).text == "Good morning!"


@pytest.mark.parametrize("stream", [True, False])
def test_a_message_of_tomorrow_is_skipped(standin: StandIn, stream: bool) -> None:
    call = Generate(model="m", messages=[Message("user", "tomorrow")])
    with Kernel(where=standin.where) as kernel:
        assert (kernel.stream(call).result if stream else kernel.call(call)).text == "Good morning!"


def test_two_streams_are_read_in_any_order(standin: StandIn) -> None:
    with Kernel(where=standin.where) as kernel:
        first, second = kernel.stream(HELLO), kernel.stream(HELLO)
        assert second.result == first.result


def test_a_stream_left_early_is_cancelled(standin: StandIn) -> None:
    with Kernel(where=standin.where) as kernel:
        with kernel.stream(FOREVER) as stream:
            assert next(stream).text == "one"
        assert kernel.call(Ping(payload=b"after")) == Pong(b"after")
    assert Cancel(id=stream.id) in [call for _, call in standin.seen]


def test_a_closed_stream_has_ended(standin: StandIn) -> None:
    with Kernel(where=standin.where) as kernel:
        stream = kernel.stream(FOREVER)
        stream.close()
        with pytest.raises(CancelledError):
            next(stream)


def test_a_cancelled_call_says_so(standin: StandIn) -> None:
    with Kernel(where=standin.where) as kernel:
        stream = kernel.stream(FOREVER)
        kernel.cancel(stream.id)
        with pytest.raises(CancelledError):
            list(stream)


def test_an_error_is_raised_as_its_class(standin: StandIn) -> None:
    with Kernel(where=standin.where) as kernel, pytest.raises(KernosError, match="of tomorrow") as raised:
        kernel.exit()
    assert type(raised.value) is KernosError


def test_cut_off_ends_every_call(standin: StandIn) -> None:
    with Kernel(where=standin.where) as kernel:
        stream = kernel.stream(FOREVER)
        with pytest.raises(CutOffError):
            kernel.call(ListModels())
        with pytest.raises(CutOffError):
            list(stream)


def test_a_silent_kernel_is_given_up(standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "GRACE_S", 0.1)
    monkeypatch.setattr(client, "_LOOK_MS", 20)
    with Kernel(where=standin.where) as kernel:
        with pytest.raises(DeadlineError, match=r"policy\.status"):
            kernel.call(GetPolicy(), timeout=0.1)
        assert kernel.call(Ping()) == Pong(b"")


def test_a_lost_connection_ends_the_call(standin: StandIn) -> None:
    with Kernel(where=standin.where) as kernel, ThreadPoolExecutor() as pool:

        def die() -> None:
            standin.idle.wait()
            standin.die()

        dying = pool.submit(die)
        with pytest.raises(KernelRestartedError):
            kernel.call(GetPolicy(), retry=False)
        dying.result()


def test_a_lost_connection_ends_every_stream(standin: StandIn) -> None:
    with Kernel(where=standin.where) as kernel:
        streams = [kernel.stream(FOREVER) for _ in range(3)]
        assert [next(stream).text for stream in streams] == ["one"] * 3
        standin.die()
        for stream in streams:
            with pytest.raises(KernelRestartedError):
                next(stream)


def test_a_restart_while_idle_ends_no_later_call(standin: StandIn, key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_LOOK_MS", 20)
    with Kernel(where=standin.where) as kernel:
        kernel.call(Ping())
        standin.die()
        assert kernel._link._lines[False].dealer.monitor.poll(5_000)
        with standing_in(standin.where, key, pair=standin.pair):
            assert kernel.call(Ping(payload=b"after")) == Pong(b"after")


@contextmanager
def replaced(standin: StandIn, *keys: Key) -> Iterator[StandIn]:
    """The kernel dies and another one takes its place."""
    standin.die()
    with standing_in(standin.where, *keys, pair=standin.pair, talkative=True) as successor:
        yield successor


def made(standin: StandIn, call: Call[T]) -> T:
    """Make a call on a connection of its own."""
    with Kernel(where=standin.where) as kernel:
        return kernel.call(call)


def test_a_call_is_made_again_of_the_next_kernel_with_its_key(standin: StandIn, key: Key) -> None:
    with ThreadPoolExecutor() as pool:
        going = pool.submit(made, standin, Spawn(name="silent"))
        assert standin.idle.wait(5)
        with replaced(standin, key) as successor:
            assert going.result().pid == 7
    (first, _), (second, _) = *standin.seen, *successor.seen
    assert first.key == second.key
    assert first.id != second.id
    assert first.timeout_ms == 30_000
    assert second.timeout_ms
    assert second.timeout_ms < 30_000


def test_mutating_calls_carry_a_key_of_their_own(standin: StandIn) -> None:
    with Kernel(where=standin.where) as kernel:
        kernel.spawn("one")
        kernel.spawn("two")
        kernel.call(Ping())
    keys = [header.key for header, _ in standin.seen]
    assert keys[0] and keys[1] and keys[0] != keys[1]
    assert keys[2] is None


def test_a_kernel_that_came_back_gets_nothing_of_the_past(standin: StandIn, key: Key) -> None:
    with Kernel(where=standin.where) as kernel:
        kernel.call(Ping())
        standin.die()
        with pytest.raises((KernelRestartedError, UnreachableError)):
            kernel.call(StopKernel(), timeout=0.2)
        with standing_in(standin.where, key, pair=standin.pair) as successor:
            kernel.call(Ping(payload=b"after"))
            assert [call for _, call in successor.seen] == [Ping(payload=b"after")]


def test_what_may_have_had_an_effect_elsewhere_is_not_made_again(standin: StandIn, key: Key) -> None:
    with ThreadPoolExecutor() as pool:
        going = pool.submit(made, standin, CallTool(tool="t/f"))
        assert standin.idle.wait(5)
        with replaced(standin, key), pytest.raises(KernelRestartedError):
            going.result()


def test_a_stream_that_gave_nothing_yet_is_begun_anew(standin: StandIn, key: Key) -> None:
    with Kernel(where=standin.where) as kernel:
        streams = [kernel.stream(Generate(model="m", messages=[Message("user", text)])) for text in ("silent", "forever")]
        assert next(streams[1]).text == "one"
        keys = [stream.key for stream in streams]
        with replaced(standin, key) as successor:
            with pytest.raises(KernelRestartedError):
                next(streams[1])
            assert streams[0].result.text == "Good morning!"
            assert [header.key for header, _ in successor.seen] == [keys[0]]


def test_a_key_that_the_next_kernel_refuses_is_known_at_once(standin: StandIn) -> None:
    with Kernel(where=standin.where) as kernel:
        started = monotonic()
        with replaced(standin), pytest.raises(UnreachableError, match="refused"):
            kernel.call(Ping(), timeout=20)
        assert monotonic() - started < 5


def test_a_call_that_kernels_die_of_is_given_up(standin: StandIn, key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "DEATHS", 2)
    with ThreadPoolExecutor() as pool:
        going = pool.submit(made, standin, GetPolicy())
        assert standin.idle.wait(5)
        with replaced(standin, key) as second:
            assert second.idle.wait(5)
            second.die()
            with pytest.raises(KernelRestartedError):
                going.result()


def test_too_large_a_call_is_refused_here(standin: StandIn) -> None:
    with Kernel(where=standin.where) as kernel:
        with pytest.raises(BadRequestError, match="Split it"):
            kernel.call(Generate(model="m", messages=[Message("user", "x" * 200_000)] * 6))
        kernel.call(Ping())


def test_a_kernel_that_does_not_come_back_is_given_up(standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_LOOK_MS", 20)
    monkeypatch.setattr(transport, "HANDSHAKE_S", 0.2)
    with Kernel(where=standin.where) as kernel:
        standin.die()
        started = monotonic()
        for _ in range(2):
            with pytest.raises(UnreachableError):
                kernel.call(GetPolicy(), timeout=1)
        assert monotonic() - started < 5


def test_a_refused_key_is_known_at_once(standin: StandIn) -> None:
    started = monotonic()
    with pytest.raises(UnreachableError, match="refused app:stranger"):
        Kernel(make_key("app:stranger"), where=standin.where)
    assert monotonic() - started < 2


def test_nobody_listening_is_known_in_time(standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "HANDSHAKE_S", 0.2)
    standin.die()
    with pytest.raises(UnreachableError, match="did not answer"):
        Kernel(where=standin.where)


def test_an_impostor_is_not_talked_to(standin: StandIn, where: Places, key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "HANDSHAKE_S", 0.5)
    genuine = where.connection.read_bytes()
    standin.die()
    with standing_in(where, key) as impostor:
        where.connection.write_bytes(genuine)
        with pytest.raises(UnreachableError):
            Kernel(where=where)
        assert impostor.seen == []


def test_a_connection_belongs_to_its_thread(standin: StandIn) -> None:
    with Kernel(where=standin.where) as kernel, ThreadPoolExecutor() as pool, pytest.raises(RuntimeError, match="thread"):
        pool.submit(kernel.call, Ping()).result()


def test_what_is_no_call_is_refused_before_it_is_sent(standin: StandIn) -> None:
    class Dance(Call[Done], tag="dance.tango", frozen=True):
        """Nobody's call."""

    with Kernel(where=standin.where) as kernel, pytest.raises(UnknownCallError, match="Dance"):
        kernel.call(Dance())
    assert standin.seen == []


def test_an_interrupt_from_the_keyboard_cancels_the_call(standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    def press(*_: object) -> None:
        raise KeyboardInterrupt

    with Kernel(where=standin.where) as kernel:
        kernel.call(Ping(), urgent=True)
        with monkeypatch.context() as keyboard:
            keyboard.setattr(kernel._link._lines[False], "next", press)
            with pytest.raises(KeyboardInterrupt):
                kernel.call(GetPolicy())
    header = next(header for header, call in standin.seen if isinstance(call, GetPolicy))
    assert Cancel(id=header.id) in [call for _, call in standin.seen]
