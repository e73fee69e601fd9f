"""`FakeKernel`: a kernel in memory for unit tests. No process, no socket, no model.

    fake = FakeKernel(["Good morning!", BusyError("The queue is full.", retry_after=0)])
    async with Agent.spawn(fake, "greeter", user="user:ana") as agent:
        ...
    assert [type(call) for call in fake.made] == [Spawn, ListModels, Exit]

`answers` are given to `model.generate` one after the other, or by a function of the request; an error among them is raised. Embeddings
count words, so texts that share words are near each other. Contexts, mail, tools and files have owners and behave as in the kernel,
errors included. There is no policy and no limit; `fail` makes a call fail as they would.
"""

import asyncio
import re
from collections import defaultdict
from collections.abc import AsyncGenerator
from copy import copy
from typing import Any, TypeVar, cast

from kernos.syscalls import ROWS, AsyncKernel, AsyncStream, Call, Done, StreamingCall
from kernos.syscalls.errors import ConflictError, DeadlineError, KernosError, NotYoursError
from kernos.syscalls.model import Chunk
from kernos.syscalls.tool import Invocation, ServeTool, Tool

from .world import Answers, Caller, Work, World

R = TypeVar("R")
E = TypeVar("E")


class FakeKernel(AsyncKernel):
    """A handle on a kernel that is not there. `made` lists the calls in order, whichever agent made them."""

    def __init__(self, answers: Answers = (), *, principal: str = "app:test") -> None:
        self.world = World(answers)
        self.made: list[Call[Any]] = []
        self.pid = 0
        self._principal = principal
        self._failures: dict[type[Call[Any]], list[KernosError]] = defaultdict(list)

    @property
    def principal(self) -> str:
        """Whose kernel this is."""
        return self._principal

    def fail(self, call: type[Call[Any]], *errors: KernosError) -> None:
        """Let the next calls of a kind fail, each with one of these errors."""
        self._failures[call].extend(errors)

    def act_as(self, pid: int) -> "FakeKernel":
        """A handle of another agent on the same world."""
        other = copy(self)
        other.pid = pid
        return other

    async def call(self, call: Call[R], *, timeout: float | None = None, **_: Any) -> R:
        """Make a system call."""
        caller = self.admit(call)
        try:
            async with asyncio.timeout(timeout):
                return cast(R, await Work(self.world, caller).do(call))
        except TimeoutError:
            raise DeadlineError(f"{ROWS[type(call)].name} was not answered within {timeout} s.") from None

    def stream(self, call: StreamingCall[E, R], **_: Any) -> AsyncStream[E, R]:
        """Make a system call and iterate over its events."""
        return _FakeStream(self, call)

    async def cancel(self, call_id: int) -> None:
        """Nothing to do: a fake call ends with its task."""

    async def close(self) -> None:
        """Nothing to close."""

    def admit(self, call: Call[Any]) -> Caller:
        """Record a call, and refuse it as the kernel would."""
        self.made.append(call)
        if self._failures[type(call)]:
            raise self._failures[type(call)].pop(0)
        if self.pid not in self.world.agents and (self.pid or ROWS[type(call)].agent):
            raise NotYoursError(f"The agent {self.pid} does not run. Spawn one first.")
        return Caller(self.principal, self.pid, self.world.agents.get(self.pid))


class _FakeStream(AsyncStream[E, R]):
    """The events of `model.generate` or `tool.serve`."""

    def __init__(self, kernel: FakeKernel, call: StreamingCall[E, R]) -> None:
        self._fake, self._call = kernel, call
        self._events = self._serve(call) if isinstance(call, ServeTool) else self._generate()
        self._reply: Any = Done()

    @property
    def id(self) -> int:
        """Fake calls have no numbers."""
        return 0

    @property
    def key(self) -> None:
        """Nor keys."""
        return None

    async def __anext__(self) -> E:
        return cast(E, await anext(self._events))

    async def result(self) -> R:
        """The reply, when the events have been taken."""
        async for _ in self:
            pass
        return cast(R, self._reply)

    async def close(self) -> None:
        """End the call."""
        await self._events.aclose()

    async def _generate(self) -> AsyncGenerator[Any, None]:
        self._reply = await self._fake.call(self._call)
        for piece in re.findall(r"\S+\s*|\s+", self._reply.text):
            yield Chunk(piece, 1)

    async def _serve(self, call: ServeTool) -> AsyncGenerator[Any, None]:
        self._fake.admit(call)
        world = self._fake.world
        if call.tool in world.tools:
            raise ConflictError(f"The tool {call.tool} is served already.")
        invocations: asyncio.Queue[Invocation] = asyncio.Queue()
        world.tools[call.tool] = (Tool(call.tool, call.description, call.schema, self._fake.principal), invocations)
        try:
            while True:
                yield await invocations.get()
        finally:
            del world.tools[call.tool]
