#!/usr/bin/env python
"""A conversation that outgrows the model's window: what is about to leave it is summed up by the model, and recalled beside the rest."""

import asyncio

from kernos.agents import Agent, Conversation
from kernos.syscalls import AsyncKernel
from kernos.syscalls.context import Recall
from kernos.syscalls.model import Generate, Message


async def main() -> None:
    """Tell the agent more than its model can see, then ask what is kept of the beginning."""
    async with AsyncKernel() as kernel, Agent.spawn(kernel, "chronicler") as agent:

        async def sum_up(messages: list[Message]) -> str:
            text = " ".join(message.text for message in messages)[:4_000]  # this takes its time on a processor
            answer = await agent.call(Generate(model=agent.model, messages=agent.prompt(f"Sum up: {text}"), max_tokens=60))
            print(f"({len(messages)} messages are about to leave: {answer.text})")
            return answer.text

        diary = await Conversation.open(agent, "diary", on_notice=sum_up)
        for day in range(240):
            await diary.keep(f"Day {day}: we sailed {day % 7 + 3} miles and saw {day % 5} whales.", "I have written it down.")
        async for piece in diary.ask("How was the journey?", max_tokens=60):
            print(piece, end="", flush=True)
        for page in (await agent.call(Recall(context=diary.id, query="How was the journey?"))).pages:
            if page.source is not None:
                print(f"\nof messages {page.source.start} to {page.source.stop - 1}: {page.text}")


asyncio.run(main())
