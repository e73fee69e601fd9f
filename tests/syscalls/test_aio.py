"""The asyncio client against a stand-in for the kernel."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic

import pytest

from kernos.syscalls import AsyncKernel, Key, requests, transport
from kernos.syscalls.errors import CancelledError, CutOffError, DeadlineError, KernelRestartedError, UnreachableError
from kernos.syscalls.keys import make_key
from kernos.syscalls.model import Chunk, Generate, ListModels, Message
from kernos.syscalls.policy import GetPolicy
from kernos.syscalls.process import Spawn
from kernos.syscalls.system import Cancel, Ping, Pong
from tests.syscalls.standin import StandIn, standing_in

HELLO = Generate(model="m", messages=[Message("user", "hello")])
FOREVER = Generate(model="m", messages=[Message("user", "forever")])


def run(standin: StandIn, body: Callable[[AsyncKernel], Awaitable[None]]) -> None:
    """Run a test's coroutine with a connected kernel, closed afterwards."""

    async def session() -> None:
        async with AsyncKernel(where=standin.where) as kernel:
            await body(kernel)

    asyncio.run(session())


def test_a_call_gets_its_reply(standin: StandIn) -> None:
    async def body(kernel: AsyncKernel) -> None:
        assert await kernel.call(Ping(payload=b"x")) == Pong(b"x")
        assert await kernel.call(Ping(payload=b"y"), urgent=True) == Pong(b"y")
        assert (await kernel.spawn("greeter")).pid == 7

    run(standin, body)


def test_many_calls_go_at_once(standin: StandIn) -> None:
    async def body(kernel: AsyncKernel) -> None:
        payloads = [str(number).encode() for number in range(200)]
        answers = await asyncio.gather(*(kernel.call(Ping(payload=payload)) for payload in payloads))
        assert [answer.payload for answer in answers] == payloads

    run(standin, body)


def test_a_stream_gives_events_and_then_its_result(standin: StandIn) -> None:
    async def body(kernel: AsyncKernel) -> None:
        async with kernel.stream(HELLO) as stream:
            assert [event async for event in stream] == [Chunk("Good ", 1), Chunk("morning", 1), Chunk("!", 1)]
            assert (await stream.result()).text == "Good morning!"

    run(standin, body)
    assert not any(isinstance(call, Cancel) for _, call in standin.seen)


@pytest.mark.parametrize("stream", [True, False])
def test_a_message_of_tomorrow_is_skipped(standin: StandIn, stream: bool) -> None:
    async def body(kernel: AsyncKernel) -> None:
        call = Generate(model="m", messages=[Message("user", "tomorrow")])
        assert (await (kernel.stream(call).result() if stream else kernel.call(call))).text == "Good morning!"

    run(standin, body)


def test_a_stream_left_early_is_cancelled(standin: StandIn) -> None:
    async def body(kernel: AsyncKernel) -> None:
        async with kernel.stream(FOREVER) as stream:
            assert (await anext(stream)).text == "one"
        assert Cancel(id=stream.id) in [call for _, call in standin.seen]

    run(standin, body)


def test_a_stream_never_begun_asks_for_nothing(standin: StandIn) -> None:
    async def body(kernel: AsyncKernel) -> None:
        async with kernel.stream(FOREVER):
            pass

    run(standin, body)
    assert standin.seen == []


def test_a_cancelled_task_cancels_its_call(standin: StandIn) -> None:
    async def body(kernel: AsyncKernel) -> None:
        task = asyncio.create_task(kernel.call(GetPolicy()))
        await asyncio.to_thread(standin.idle.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await kernel.call(Ping()) == Pong(b"")

    run(standin, body)
    header, _ = standin.seen[0]
    assert Cancel(id=header.id) in [call for _, call in standin.seen]


def test_a_cancelled_call_says_so(standin: StandIn) -> None:
    async def body(kernel: AsyncKernel) -> None:
        stream = kernel.stream(FOREVER)
        assert (await anext(stream)).text == "one"
        await kernel.cancel(stream.id)
        with pytest.raises(CancelledError):
            await anext(stream)

    run(standin, body)


def test_cut_off_ends_every_call(standin: StandIn) -> None:
    async def body(kernel: AsyncKernel) -> None:
        stream = kernel.stream(FOREVER)
        await anext(stream)
        with pytest.raises(CutOffError):
            await kernel.call(ListModels())
        with pytest.raises(CutOffError):
            await anext(stream)

    run(standin, body)


def test_a_silent_kernel_is_given_up(standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "GRACE_S", 0.1)

    async def body(kernel: AsyncKernel) -> None:
        with pytest.raises(DeadlineError, match=r"policy\.status"):
            await kernel.call(GetPolicy(), timeout=0.1)
        assert await kernel.call(Ping()) == Pong(b"")

    run(standin, body)


def test_a_lost_connection_ends_every_call(standin: StandIn) -> None:
    async def body(kernel: AsyncKernel) -> None:
        stream = kernel.stream(FOREVER)
        await anext(stream)
        waiting = asyncio.create_task(kernel.call(GetPolicy(), retry=False))
        await asyncio.to_thread(standin.idle.wait)
        standin.die()
        with pytest.raises(KernelRestartedError):
            await waiting
        with pytest.raises(KernelRestartedError):
            await anext(stream)

    run(standin, body)


def test_a_restart_amid_traffic_ends_what_was_in_flight(standin: StandIn, key: Key) -> None:
    async def body(kernel: AsyncKernel) -> None:
        stream = kernel.stream(FOREVER)
        await anext(stream)
        waiting = asyncio.ensure_future(anext(stream))
        standin.die()
        with standing_in(standin.where, key, pair=standin.pair):
            for _ in range(20):
                await kernel.call(Ping())
            done = waiting.done()
            waiting.cancel()
            assert done
            with pytest.raises(KernelRestartedError):
                await waiting

    run(standin, body)


def test_a_kernel_that_does_not_come_back_is_given_up(standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "HANDSHAKE_S", 0.2)

    async def body(kernel: AsyncKernel) -> None:
        waiting = asyncio.create_task(kernel.call(GetPolicy(), timeout=1))
        await asyncio.to_thread(standin.idle.wait)
        standin.die()
        with pytest.raises(UnreachableError):
            await waiting
        with pytest.raises(UnreachableError):
            await kernel.call(GetPolicy(), timeout=1)

    run(standin, body)


def test_calls_are_made_again_of_the_next_kernel_with_their_keys(standin: StandIn, key: Key) -> None:
    async def body(kernel: AsyncKernel) -> None:
        await kernel.call(Ping())
        stream = kernel.stream(Generate(model="m", messages=[Message("user", "silent")]))
        answer = asyncio.create_task(stream.result())
        spawns = [asyncio.create_task(kernel.call(Spawn(name="silent"))) for _ in range(20)]
        await asyncio.to_thread(standin.idle.wait)
        await kernel.call(Ping())  # by then all have been taken in
        standin.die()
        with standing_in(standin.where, key, pair=standin.pair, talkative=True) as successor:
            assert [spawned.pid for spawned in await asyncio.gather(*spawns)] == [7] * 20
            assert (await answer).text == "Good morning!"
        keys = [{header.key for header, call in kernel.seen if not isinstance(call, Ping)} for kernel in (standin, successor)]
        assert keys[0] == keys[1]
        assert len(keys[0]) == 21
        assert stream.key in keys[0]

    run(standin, body)


def test_a_stream_that_was_cut_says_so(standin: StandIn, key: Key) -> None:
    async def body(kernel: AsyncKernel) -> None:
        stream = kernel.stream(FOREVER)
        await anext(stream)
        standin.die()
        with standing_in(standin.where, key, pair=standin.pair), pytest.raises(KernelRestartedError):
            await anext(stream)

    run(standin, body)


def test_a_refused_key_is_known_at_once(standin: StandIn) -> None:
    async def connect() -> None:
        async with AsyncKernel(make_key("app:stranger"), where=standin.where) as kernel:
            await kernel.call(Ping())

    started = monotonic()
    with pytest.raises(UnreachableError, match="refused app:stranger"):
        asyncio.run(connect())
    assert monotonic() - started < 2


def test_nobody_listening_is_known_in_time(standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "HANDSHAKE_S", 0.2)
    standin.die()

    async def body(kernel: AsyncKernel) -> None:
        with pytest.raises(UnreachableError, match="did not answer"):
            await kernel.call(Ping())

    run(standin, body)
