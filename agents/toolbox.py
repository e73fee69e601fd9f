"""`Toolbox`: serves tool functions through the kernel, many calls at once on one connection.

    async with Agent.spawn(kernel, "toolbox") as host, Toolbox(host.kernel, [order_status]):
        ...  # here every agent whose policy allows it can call `shop/order_status`

The kernel routes, checks and times every call, also those of this process's own agents: a tool called past it would be a tool that the
policy never saw.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from kernos.syscalls import AsyncKernel
from kernos.syscalls.errors import KernelRestartedError, KernosError, StoppingError
from kernos.syscalls.tool import AnswerTool, Invocation, ListTools, ServeTool

from .functions import ToolCall, ToolFunction

_LOOK_S: Final = 0.01
"""How often it is looked whether the kernel lists the tools yet."""


class Toolbox:
    """Serves tools while it is entered. `kernel` is the handle of the agent that serves them."""

    def __init__(self, kernel: AsyncKernel, tools: Sequence[ToolFunction[..., Any]]) -> None:
        self._kernel = kernel
        self._tools = {tool.path(kernel.principal): tool for tool in tools}
        self._servers: list[asyncio.Task[None]] = []
        self._running: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._servers = [asyncio.create_task(self._serve(path, tool)) for path, tool in self._tools.items()]
        try:
            await self._until_listed()
        except BaseException:
            await self._end(self._servers)
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._end([*self._servers, *self._running])

    async def _until_listed(self) -> None:
        listed: set[str] = set()
        while not self._tools.keys() <= listed:
            await asyncio.sleep(_LOOK_S)
            for server in self._servers:
                if server.done():
                    server.result()  # raises why the tool is not served
            listed = {tool.tool for tool in (await self._kernel.call(ListTools())).tools}

    async def _end(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, path: str, tool: ToolFunction[..., Any]) -> None:
        while True:
            # Served anew by the next kernel: invocations stand each for itself, so that nothing is missing between the two.
            with suppress(KernelRestartedError, StoppingError):
                async with self._kernel.stream(ServeTool(path, tool.description, tool.schema, **tool.marks)) as invocations:
                    async for invocation in invocations:
                        task = asyncio.create_task(self._answer(tool, invocation))
                        self._running.add(task)  # the loop keeps weak references only
                        task.add_done_callback(self._running.discard)

    async def _answer(self, tool: ToolFunction[..., Any], invocation: Invocation) -> None:
        try:
            result = msgspec.json.encode(await _invoke(tool, invocation)).decode()
            answer = AnswerTool(invocation=invocation.invocation, result=result)
        except msgspec.ValidationError as error:
            answer = AnswerTool(invocation=invocation.invocation, error=f"The arguments do not fit its schema: {error}."[:1_024])
        except Exception as error:
            answer = AnswerTool(invocation=invocation.invocation, error=(str(error) or type(error).__name__)[:1_024])
        with suppress(KernosError):  # the caller may have gone, or its deadline passed: nobody waits for this answer
            await self._kernel.call(answer)


async def _invoke(tool: ToolFunction[..., Any], invocation: Invocation) -> Any:
    arguments = msgspec.structs.asdict(msgspec.json.decode(invocation.arguments, type=tool.arguments))
    if tool.call_parameter is not None:
        arguments[tool.call_parameter] = ToolCall(invocation.caller, invocation.pid, invocation.user, tuple(invocation.labels))
    if asyncio.iscoroutinefunction(tool.function):
        return await tool.function(**arguments)
    return await asyncio.to_thread(tool.function, **arguments)
