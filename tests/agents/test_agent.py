"""The runtime of agents against a kernel in memory."""

import asyncio

import msgspec
import pytest

from kernos.agents import Agent, UnfinishedError
from kernos.agents.testing import FakeKernel
from kernos.syscalls.errors import BusyError, NotFoundError
from kernos.syscalls.model import Chunk, Embed, Generate, Generation, ListModels, Message, Usage
from kernos.syscalls.process import Exit, Spawn

BUSY = BusyError("The queue is full.", retry_after=0.0)


class Person(msgspec.Struct):
    name: str
    age: int


def test_an_agent_exits_with_its_block() -> None:
    async def body() -> FakeKernel:
        fake = FakeKernel()
        async with Agent.spawn(fake, "greeter", user="user:ana", priority="interactive") as agent:
            assert agent.model == "fake-decoder"
        return fake

    spawn, listed, exit_ = asyncio.run(body()).made
    assert spawn == Spawn(name="greeter", user="user:ana", priority="interactive")
    assert listed == ListModels()
    assert exit_ == Exit(pid=1, code=0)


def test_an_exception_is_the_exit_reason() -> None:
    async def body(fake: FakeKernel) -> None:
        async with Agent.spawn(fake, "greeter", model="m"):
            raise ValueError("no such lamp")

    fake = FakeKernel()
    with pytest.raises(ValueError, match="no such lamp"):
        asyncio.run(body(fake))
    assert fake.made[-1] == Exit(pid=1, code=1, reason="ValueError: no such lamp")


def test_an_agent_that_has_ended_leaves_its_block_quietly() -> None:
    async def body() -> None:
        async with Agent.spawn(FakeKernel(), "greeter") as agent:
            await agent.kernel.exit()

    asyncio.run(body())


def test_no_default_model_is_told() -> None:
    async def body() -> None:
        fake = FakeKernel()
        fake.fail(ListModels, NotFoundError("none"))
        async with Agent.spawn(fake, "greeter"):
            pass

    with pytest.raises(NotFoundError):
        asyncio.run(body())


def test_a_stream_ends_with_the_whole_answer() -> None:
    async def body() -> list[Chunk | Generation]:
        async with Agent.spawn(FakeKernel(["Good morning!"]), "greeter") as agent:
            return [event async for event in agent.stream(Generate(model="m", messages=agent.prompt("Hello")))]

    *pieces, whole = asyncio.run(body())
    assert [piece.text for piece in pieces] == ["Good ", "morning!"]
    assert isinstance(whole, Generation)
    assert whole.text == "Good morning!"


def test_a_busy_kernel_is_asked_again() -> None:
    async def body() -> list[object]:
        async with Agent.spawn(FakeKernel([BUSY, BUSY, "Here I am."]), "greeter") as agent:
            return [event async for event in agent.stream(Generate(model="m"))]

    assert len(asyncio.run(body())) == 4


def test_patience_ends() -> None:
    async def body(fake: FakeKernel) -> None:
        async with Agent.spawn(fake, "greeter") as agent:
            await agent.call(Generate(model="m"))

    fake = FakeKernel(lambda _: BUSY)
    with pytest.raises(BusyError):
        asyncio.run(body(fake))
    assert sum(isinstance(call, Generate) for call in fake.made) == 8


def test_extract_gives_a_value_of_the_type() -> None:
    async def body(fake: FakeKernel) -> Person:
        async with Agent.spawn(fake, "reader", instructions="Be exact.") as agent:
            return await agent.extract("Ana is 31.", Person)

    fake = FakeKernel(['{"name": "Ana", "age": 31}'])
    assert asyncio.run(body(fake)) == Person("Ana", 31)
    call = next(call for call in fake.made if isinstance(call, Generate))
    assert call.messages == [Message("system", "Be exact."), Message("user", "Ana is 31.")]
    assert call.schema is not None
    assert msgspec.json.decode(call.schema)["required"] == ["name", "age"]


def test_an_unfinished_document_is_told() -> None:
    from kernos.agents.schemas import read_answer

    with pytest.raises(UnfinishedError, match="after 3 tokens"):
        read_answer(Generation('{"name": "A', "length", Usage(5, 3), [], 0), Person)


def test_choose_gives_one_of_the_options() -> None:
    async def body(fake: FakeKernel) -> str:
        async with Agent.spawn(fake, "chooser") as agent:
            return await agent.choose("Which?", ["red", "blue"])

    assert asyncio.run(body(FakeKernel(['"blue"']))) == "blue"


def test_embedding_goes_in_batches() -> None:
    async def body(fake: FakeKernel) -> int:
        async with Agent.spawn(fake, "reader") as agent:
            return len(await agent.embed([f"text {i}" for i in range(130)]))

    fake = FakeKernel()
    assert asyncio.run(body(fake)) == 130
    assert [len(call.texts) for call in fake.made if isinstance(call, Embed)] == [64, 64, 2]
