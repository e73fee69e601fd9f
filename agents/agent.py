"""`Agent`: a process of the operating system, with instructions, a model and tools.

    async with AsyncKernel() as kernel, Agent.spawn(kernel, "greeter", instructions="Be brief.") as agent:
        async for event in agent.run("Good morning!"):
            if isinstance(event, Chunk):
                print(event.text, end="")

Entering spawns the process, leaving ends it: with code 0, or with code 1 and the reason where an exception leaves the block. All calls
wait and try again while the kernel is busy.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, Literal, Self, TypeVar

import msgspec

from kernos.syscalls import AsyncKernel, Call
from kernos.syscalls.errors import BusyError, KernosError, NotFoundError
from kernos.syscalls.model import Chunk, Embed, Generate, Generation, ListModels, Message
from kernos.syscalls.process import Priority
from kernos.syscalls.tool import CallTool, ListTools, Tool

from .functions import ToolFunction
from .loop import Event, run
from .patience import patiently, pause
from .schemas import read_answer, schema_of, schema_of_choice

R = TypeVar("R")
T = TypeVar("T")

EMBED_BATCH: Final = 64
"""Texts per call: large enough to fill the encoder, small enough that others get their turn in between."""


class Agent:
    """A running agent. `kernel` is the handle that calls as this agent; it stands behind everything here."""

    def __init__(self, kernel: AsyncKernel, instructions: str, model: str, tools: Sequence[Tool] = ()) -> None:
        self.kernel = kernel
        self.instructions = instructions
        self.model = model
        self.tools = {tool.tool: tool for tool in tools}

    @classmethod
    @asynccontextmanager
    async def spawn(
        cls,
        kernel: AsyncKernel,
        name: str,
        *,
        user: str | None = None,
        priority: Priority = "normal",
        instructions: str = "",
        model: str | None = None,
        tools: Sequence[ToolFunction[..., Any] | str] = (),
    ) -> AsyncIterator[Self]:
        """Run an agent, on behalf of `user` where one is named, for as long as the block lasts.

        `model` defaults to the machine's own decoder. `tools` may be functions that a `Toolbox` of this app serves, or full names of
        the tools of others.
        """
        handle = await patiently(lambda: kernel.spawn(name, user=user, priority=priority))
        try:
            yield cls(handle, instructions, model or await _default(handle, "decoder"), await _find(handle, tools))
        except BaseException as error:
            await _exit(handle, 1, f"{type(error).__name__}: {error}")
            raise
        await _exit(handle, 0, "")

    async def call(self, call: Call[R], *, timeout: float | None = None) -> R:
        """Make a system call as this agent."""
        return await patiently(lambda: self.kernel.call(call, timeout=timeout))

    async def stream(self, call: Generate) -> AsyncIterator[Chunk | Generation]:
        """The pieces of an answer as they come, and at the end the whole."""
        tried = 0
        while True:
            try:
                async with self.kernel.stream(call) as stream:
                    async for chunk in stream:
                        yield chunk
                    yield await stream.result()
                    return
            except BusyError as error:  # comes before the first piece or not at all
                tried += 1
                await pause(error, tried)

    def prompt(self, text: str) -> list[Message]:
        """The instructions and a user's message."""
        return [*([Message("system", self.instructions)] if self.instructions else []), Message("user", text)]

    async def extract(self, text: str | Sequence[Message], returns: type[T], *, max_tokens: int = 256) -> T:
        """What `text` says, as a value of the type `returns`; `UnfinishedError` if `max_tokens` do not suffice."""
        return await self.fill(text, schema_of(returns), returns, max_tokens)

    async def choose(self, text: str | Sequence[Message], options: Sequence[str]) -> str:
        """The one of `options` that answers `text`."""
        return await self.fill(text, schema_of_choice(options), str, max_tokens=64)

    async def embed(self, texts: Sequence[str], *, model: str | None = None) -> "list[memoryview[float]]":
        """A vector of length one per text; by the machine's own encoder unless a model is named."""
        model = model or await self.encoder()
        batches = [list(texts[start : start + EMBED_BATCH]) for start in range(0, len(texts), EMBED_BATCH)]
        return [row for batch in batches for row in (await self.call(Embed(model=model, texts=batch))).rows()]

    async def encoder(self) -> str:
        """The machine's own encoder; `NotFoundError` if it has none."""
        return await _default(self.kernel, "encoder")

    async def use(self, tool: ToolFunction[..., Any] | str, arguments: Any, *, timeout: float = 60.0) -> str:
        """Call a tool through the kernel with arguments that make a JSON object; its result is JSON text."""
        call = CallTool(tool=_path(tool, self.kernel), arguments=msgspec.json.encode(arguments).decode())
        return (await self.call(call, timeout=timeout)).result

    def run(self, text: str, *, rounds: int = 4, max_tokens: int = 256) -> AsyncIterator[Event]:
        """Answer with the help of the tools; see `loop.py`."""
        return run(self, text, rounds=rounds, max_tokens=max_tokens)

    async def fill(self, text: str | Sequence[Message], schema: str, kind: type[T], max_tokens: int) -> T:
        """An answer that follows a JSON schema, as a `kind`."""
        messages = self.prompt(text) if isinstance(text, str) else list(text)
        return read_answer(await self.call(Generate(model=self.model, messages=messages, schema=schema, max_tokens=max_tokens)), kind)


async def _default(kernel: AsyncKernel, kind: Literal["decoder", "encoder"]) -> str:
    name = getattr(await kernel.call(ListModels()), kind)
    if not name:
        raise NotFoundError(f"This machine has no {kind} that could serve as the default. See `kernos models`, or name a model.")
    return str(name)


async def _find(kernel: AsyncKernel, wanted: Sequence[ToolFunction[..., Any] | str]) -> list[Tool]:
    if not wanted:
        return []
    served = {tool.tool: tool for tool in (await kernel.call(ListTools())).tools}
    paths = [_path(tool, kernel) for tool in wanted]
    for path in paths:
        if path not in served:
            raise NotFoundError(f"Nobody serves the tool {path}. Start its app, or enter the `Toolbox` before the agent.")
    return [served[path] for path in paths]


def _path(tool: ToolFunction[..., Any] | str, kernel: AsyncKernel) -> str:
    return tool if isinstance(tool, str) else tool.path(kernel.principal)


async def _exit(kernel: AsyncKernel, code: int, reason: str) -> None:
    with suppress(KernosError):  # an agent that was killed, or whose kernel is gone, has ended already
        await kernel.exit(code, reason[:1_024])
