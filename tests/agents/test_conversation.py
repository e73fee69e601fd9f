"""Conversations kept by the kernel."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from kernos.agents import Agent, Conversation
from kernos.agents.testing import FakeKernel
from kernos.syscalls.errors import DeviceError, KernosError
from kernos.syscalls.model import Generate, Message


async def _text(pieces: AsyncIterator[str]) -> str:
    return "".join([piece async for piece in pieces])


def test_asking_keeps_question_and_answer() -> None:
    async def body(fake: FakeKernel) -> list[Message]:
        async with Agent.spawn(fake, "talker", instructions="Be kind.") as agent:
            conversation = await Conversation.open(agent, "chat")
            assert await _text(conversation.ask("Hello")) == "Good morning!"
            assert conversation.answer.text == "Good morning!"
            await _text(conversation.ask("And now?"))
            return await conversation.last(10)

    fake = FakeKernel(["Good morning!", "Good evening!"])
    assert [message.text for message in asyncio.run(body(fake))] == ["Hello", "Good morning!", "And now?", "Good evening!"]
    first, second = (call for call in fake.made if isinstance(call, Generate))
    assert [message.role for message in first.messages] == ["system", "user"]
    assert [message.role for message in second.messages] == ["user"]


def test_a_draft_shows_the_last_messages_and_keeps_nothing() -> None:
    async def body(fake: FakeKernel) -> list[Message]:
        async with Agent.spawn(fake, "talker", instructions="Be kind.") as agent:
            conversation = await Conversation.open(agent, "chat")
            await conversation.keep("One?", "One.")
            await conversation.keep("Two?", "Two.")
            await _text(conversation.draft("A long page. Three?", history=2))
            return await conversation.last(10)

    fake = FakeKernel(["Three."])
    assert [message.text for message in asyncio.run(body(fake))] == ["One?", "One.", "Two?", "Two."]
    call = next(call for call in fake.made if isinstance(call, Generate))
    assert call.context is None
    assert [message.text for message in call.messages] == ["Be kind.", "Two?", "Two.", "A long page. Three?"]


def test_a_failed_answer_keeps_nothing() -> None:
    async def body(fake: FakeKernel) -> list[Message]:
        async with Agent.spawn(fake, "talker") as agent:
            conversation = await Conversation.open(agent, "chat")
            with pytest.raises(DeviceError):
                await _text(conversation.ask("Hello"))
            with pytest.raises(RuntimeError, match="no answer yet"):
                _ = conversation.answer
            return await conversation.last(10)

    assert asyncio.run(body(FakeKernel([DeviceError("broken")]))) == []


def test_what_is_about_to_leave_is_summarized_until_the_agent_ends() -> None:
    async def sum_up(messages: list[Message]) -> str:
        if messages[0].text == "Two?":
            raise ValueError("broken")
        return " ".join(message.text for message in messages)

    async def body(fake: FakeKernel) -> list[tuple[int, int, str]]:
        async with Agent.spawn(fake, "talker") as agent:
            conversation = await Conversation.open(agent, "chat", on_notice=sum_up)
            for number in ("One", "Two", "Three"):
                await conversation.keep(f"{number}?", f"{number}.")
            notices = fake.world.notices[conversation.id]
            for run in ((0, 2), (2, 4), (4, 4), (4, 6)):
                notices.put_nowait(run)
            while len(fake.world.summaries[conversation.id]) < 2:
                await asyncio.sleep(0)
            return fake.world.summaries[conversation.id]

    assert asyncio.run(asyncio.wait_for(body(FakeKernel()), 10)) == [(0, 2, "One? One."), (4, 6, "Three? Three.")]


def test_contexts_belong_to_users() -> None:
    async def body(fake: FakeKernel) -> tuple[str, str, str]:
        async with Agent.spawn(fake, "a", user="user:ana") as ana, Agent.spawn(fake, "b", user="user:ben") as ben:
            first = await Conversation.open(ana, "chat")
            again, other = await Conversation.open(ana, "chat"), await Conversation.open(ben, "chat")
            other.id, stolen = first.id, other.id
            with pytest.raises(KernosError, match="no context"):
                await other.keep("Mine?", "No.")
            return first.id, again.id, stolen

    first, again, other = asyncio.run(body(FakeKernel()))
    assert first == again != other
