"""The agent loop: decide, call a tool, read its result, and at last answer.

Each round the model first decides, kept to a schema, between the tools and answering; then it writes the arguments, kept to that tool's
schema. So even a small model never calls a tool that does not exist or with arguments of the wrong type. After `rounds` tool calls
it has to answer. A tool's own failure is told to the model; a denial is not its business and ends the loop.
"""

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from kernos.syscalls.errors import ToolError
from kernos.syscalls.model import Chunk, Generate, Generation, Message
from kernos.syscalls.tool import Tool

if TYPE_CHECKING:
    from .agent import Agent

ANSWER: Final = "answer"
"""What the model chooses when it needs no (further) tool."""

_ARGUMENT_TOKENS: Final = 256


class ToolCalled(msgspec.Struct, frozen=True):
    """The agent calls a tool; `arguments` is a JSON object."""

    tool: str
    arguments: str


class ToolAnswered(msgspec.Struct, frozen=True):
    """The tool's result as JSON text, or why it failed."""

    tool: str
    result: str
    failed: bool = False


Event = ToolCalled | ToolAnswered | Chunk | Generation
"""Tool calls in order, the answer in pieces, and at the end the whole answer."""


async def run(agent: "Agent", text: str, *, rounds: int, max_tokens: int) -> AsyncIterator[Event]:
    """Answer `text` with the help of the agent's tools."""
    messages = _introduce(agent.prompt(text), list(agent.tools.values()))
    while agent.tools and rounds > 0:
        rounds -= 1
        called = await _decide(agent, messages)
        if called is None:
            break
        yield called
        answered = await _call(agent, called)
        yield answered
        messages += [Message("assistant", _written(called)), Message("tool", answered.result)]
    async for event in agent.stream(Generate(model=agent.model, messages=messages, max_tokens=max_tokens)):
        yield event


def _introduce(messages: list[Message], tools: Sequence[Tool]) -> list[Message]:
    if not tools:
        return messages
    lines = "\n".join(f"- {tool.tool}: {tool.description} Arguments: {tool.schema}" for tool in tools)
    return [Message("system", f"You can call these tools:\n{lines}\nChoose `{ANSWER}` when you need no tool."), *messages]


async def _decide(agent: "Agent", messages: list[Message]) -> ToolCalled | None:
    chosen = await agent.choose([*messages, Message("system", "Which tool do you call next?")], [*agent.tools, ANSWER])
    if chosen == ANSWER:
        return None
    ask = Message("system", f"Write the arguments of {chosen} as JSON.")
    arguments = await agent.fill([*messages, ask], agent.tools[chosen].schema, msgspec.Raw, _ARGUMENT_TOKENS)
    return ToolCalled(chosen, bytes(arguments).decode())


async def _call(agent: "Agent", called: ToolCalled) -> ToolAnswered:
    try:
        return ToolAnswered(called.tool, await agent.use(called.tool, msgspec.Raw(called.arguments.encode())))
    except ToolError as error:
        return ToolAnswered(called.tool, f"The tool failed: {error.message}", failed=True)


def _written(called: ToolCalled) -> str:
    return f'{{"tool": {msgspec.json.encode(called.tool).decode()}, "arguments": {called.arguments}}}'
