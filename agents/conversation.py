"""`Conversation`: an agent's talk with somebody, kept by the kernel under a name, across restarts of app and kernel.

    conversation = await Conversation.open(agent, "chat")
    async for piece in conversation.ask("What did I say yesterday?"):
        print(piece, end="", flush=True)
    print(conversation.answer.usage)

There are two ways to ask. `ask` puts all that the context holds before the model and keeps question and answer in the same step.
`draft` answers a prompt of the app's making (say, with passages looked up for this question) after the last few messages and keeps
nothing; the app then puts the plain question and the answer it gave on record with `keep`. So the passages neither fill the window
nor are taken for something that the user said.

What no longer fits the model's window leaves it, and is recalled when a question needs it. With `on_notice`, a summary of it is kept too:

    async def sum_up(messages: list[Message]) -> str:
        text = "Sum up: " + " ".join(message.text for message in messages)
        return (await agent.call(Generate(model=agent.model, messages=agent.prompt(text), max_tokens=80))).text

    conversation = await Conversation.open(agent, "chat", on_notice=sum_up)
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Self

from kernos.syscalls.context import AppendContext, ContextInfo, OpenContext, ReadContext
from kernos.syscalls.model import Chunk, Generate, Generation, Message

from .agent import Agent
from .notices import Summarize, summarize_on_notice


class Conversation:
    """An open conversation. One question at a time: the next is asked when the answer to the one before is complete."""

    def __init__(self, agent: Agent, info: ContextInfo) -> None:
        self._agent = agent
        self._fresh = info.messages == 0
        self._answer: Generation | None = None
        self._noticing: asyncio.Task[None] | None = None
        self.id = info.context

    @classmethod
    async def open(cls, agent: Agent, name: str, *, on_notice: Summarize | None = None) -> Self:
        """The conversation of this name; a new one if there is none.

        `on_notice` is asked, in a task of its own until the agent ends, for a summary of messages that are about to leave the window. It
        must not ask in this conversation, where it would wait for itself.
        """
        conversation = cls(agent, await agent.call(OpenContext(name=name)))
        if on_notice is not None:
            conversation._noticing = asyncio.create_task(summarize_on_notice(agent, conversation.id, on_notice))
        return conversation

    @property
    def answer(self) -> Generation:
        """The whole of the last answer, once its last piece was taken."""
        if self._answer is None:
            raise RuntimeError("There is no answer yet. Take all pieces of `ask` before reading `answer`.")
        return self._answer

    async def ask(self, text: str, *, max_tokens: int = 256, temperature: float = 0.0) -> AsyncIterator[str]:
        """Answer `text` in the light of the whole conversation, piece by piece."""
        messages = self._agent.prompt(text) if self._fresh else [Message("user", text)]
        call = Generate(model=self._agent.model, context=self.id, messages=messages, max_tokens=max_tokens, temperature=temperature)
        async for piece in self._write(call):
            yield piece
        self._fresh = False

    async def draft(self, prompt: str, *, history: int = 4, max_tokens: int = 256) -> AsyncIterator[str]:
        """Answer `prompt` after the last `history` messages, piece by piece, and keep neither."""
        *instructions, question = self._agent.prompt(prompt)
        messages = [*instructions, *await self.last(history), question]
        async for piece in self._write(Generate(model=self._agent.model, messages=messages, max_tokens=max_tokens)):
            yield piece

    async def keep(self, question: str, answer: str) -> None:
        """Put a question and its answer at the end of the transcript."""
        await self.record(Message("user", question), Message("assistant", answer))

    async def record(self, *messages: Message) -> None:
        """Put messages at the end of the transcript, for instance with labels that whoever reads them shall carry."""
        await self._agent.call(AppendContext(context=self.id, messages=list(messages)))
        self._fresh = False

    async def last(self, count: int) -> list[Message]:
        """The last `count` messages of user and assistant; fewer if there are no more."""
        if count == 0:
            return []
        total = (await self._agent.call(ReadContext(context=self.id, limit=1))).total
        part = await self._agent.call(ReadContext(context=self.id, start=max(0, total - count), limit=count))
        return [message for message in part.messages if message.role in ("user", "assistant")]

    async def _write(self, call: Generate) -> AsyncIterator[str]:
        self._answer = None
        async for event in self._agent.stream(call):
            if isinstance(event, Chunk):
                yield event.text
            else:
                self._answer = event
