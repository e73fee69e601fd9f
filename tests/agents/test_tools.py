"""Tools: schemas from signatures, serving through the kernel, and the loop that uses them."""

import asyncio
from typing import Annotated, Any

import msgspec
import pytest
from msgspec import Meta

from kernos.agents import Agent, Event, ToolAnswered, Toolbox, ToolCall, ToolCalled, tool
from kernos.agents.testing import FakeKernel
from kernos.syscalls.errors import ConflictError, NotFoundError, ToolError
from kernos.syscalls.model import Chunk, Generate
from kernos.syscalls.tool import CallTool


@tool
def add(a: int, b: Annotated[int, Meta(ge=0)] = 2) -> int:
    """Adds two whole numbers.

    The second one is not negative.
    """
    return a + b


@tool
async def who(call: ToolCall) -> str:
    """Tells who calls."""
    await asyncio.sleep(0)
    return f"{call.caller} for {call.user}"


@tool
def fail(reason: str) -> None:
    """Fails."""
    raise ValueError(reason)


def test_the_signature_becomes_the_schema() -> None:
    schema = msgspec.json.decode(add.schema)
    assert schema["properties"] == {"a": {"type": "integer"}, "b": {"type": "integer", "minimum": 0, "default": 2}}
    assert schema["required"] == ["a"]
    assert schema["additionalProperties"] is False
    assert "$ref" not in schema
    assert "$defs" not in schema
    assert add.description == "Adds two whole numbers."
    assert msgspec.json.decode(who.schema)["properties"] == {}


def test_a_tool_is_still_a_function() -> None:
    assert add(1, b=5) == 6
    assert add.path("app:sums") == "sums/add"


def test_a_function_that_cannot_be_a_tool_is_refused() -> None:
    def silent(a: int) -> int:
        return a

    def loose(a) -> int:  # type: ignore[no-untyped-def]
        """No type."""
        return int(a)

    def many(*a: int) -> int:
        """Any number."""
        return sum(a)

    unfit: list[tuple[Any, str]] = [(silent, "no docstring"), (loose, "no type"), (many, "by name")]
    for function, reason in unfit:
        with pytest.raises(TypeError, match=reason):
            tool(function)


async def _with_tools(fake: FakeKernel, use: Any) -> Any:
    async with (
        Agent.spawn(fake, "toolbox") as host,
        Toolbox(host.kernel, [add, who, fail]),
        Agent.spawn(fake, "caller", user="user:ana", tools=[add, "test/fail"]) as agent,
    ):
        return await use(agent)


def test_calls_go_through_the_kernel() -> None:
    async def use(agent: Agent) -> list[str]:
        return list(await asyncio.gather(agent.use(add, {"a": 1}), agent.use("test/who", {}), agent.use(add, {"a": 1, "b": 1})))

    fake = FakeKernel()
    assert asyncio.run(_with_tools(fake, use)) == ["3", '"app:test for user:ana"', "2"]
    assert sum(isinstance(call, CallTool) for call in fake.made) == 3
    assert not fake.world.tools


@pytest.mark.parametrize(
    ("path", "arguments", "told"),
    [
        ("test/add", {"a": "one"}, r"Expected `int`, got `str` - at `\$.a`"),
        ("test/add", {"a": 1, "c": 1}, "unknown field `c`"),
        ("test/add", {}, "missing required field `a`"),
        ("test/fail", {"reason": "out of lamps"}, "test/fail failed: out of lamps"),
    ],
)
def test_failures_are_told_to_the_caller(path: str, arguments: dict[str, Any], told: str) -> None:
    async def use(agent: Agent) -> None:
        await agent.use(path, arguments)

    with pytest.raises(ToolError, match=told):
        asyncio.run(_with_tools(FakeKernel(), use))


def test_a_tool_that_nobody_serves_is_told() -> None:
    async def body() -> None:
        async with Agent.spawn(FakeKernel(), "caller", tools=[add]):
            pass

    with pytest.raises(NotFoundError, match="test/add"):
        asyncio.run(body())


def test_a_refused_tool_fails_the_toolbox() -> None:
    async def body() -> None:
        fake = FakeKernel()
        async with Agent.spawn(fake, "toolbox") as host, Toolbox(host.kernel, [add]), Toolbox(host.kernel, [who, add]):
            pass

    with pytest.raises(ConflictError):
        asyncio.run(body())


async def _events(agent: Agent) -> list[Event]:
    return [event async for event in agent.run("What is 1 and 2?", rounds=2)]


def test_the_loop_calls_tools_and_answers() -> None:
    fake = FakeKernel(['"test/add"', '{"a":1,"b":2}', '"answer"', "It is 3."])
    called, answered, *rest = asyncio.run(_with_tools(fake, _events))
    assert called == ToolCalled("test/add", '{"a":1,"b":2}')
    assert answered == ToolAnswered("test/add", "3")
    assert "".join(event.text for event in rest if isinstance(event, Chunk)) == "It is 3."
    last = [call for call in fake.made if isinstance(call, Generate)][-1]
    assert last.schema is None
    assert last.messages[-1].role == "tool"
    assert last.messages[-1].text == "3"


def test_the_loop_tells_the_model_of_failures_and_ends() -> None:
    def answer(call: Generate) -> str:
        if call.schema is None:
            return "I give up."
        return '"test/fail"' if "enum" in call.schema else '{"reason": "no"}'

    events = asyncio.run(_with_tools(FakeKernel(answer), _events))
    assert [event.failed for event in events if isinstance(event, ToolAnswered)] == [True, True]
    assert events[-1].text == "I give up."
