"""Tools: from the caller through the kernel to the server, and back."""

import pytest

from kernos.kernel import tools as tools_module
from kernos.kernel.host import Delivery
from kernos.kernel.limits import TOOL_TIMEOUT_S
from kernos.syscalls.errors import (
    BadRequestError,
    ConflictError,
    DeadlineError,
    LimitError,
    NotFoundError,
    ToolError,
)
from kernos.syscalls.process import Kill
from kernos.syscalls.system import Cancel
from kernos.syscalls.tool import AnswerTool, CallTool, Invocation, ListTools, ServeTool
from tests.kernel.fakes import App, Sent, World

SERVE = ServeTool(tool="shop/order", description="Orders.", schema='{"type": "object"}')


@pytest.fixture
def server(world: World) -> App:
    return world.connect("app:shop").spawn("server")


@pytest.fixture
def caller(world: World) -> App:
    return world.connect("app:bot").spawn("caller", user="user:anna")


@pytest.fixture
def serving(server: App) -> Sent:
    return server.send(SERVE, stream=True)


def call(caller: App, arguments: str = "{}", **options: int) -> Sent:
    return caller.send(CallTool(tool="shop/order", arguments=arguments), **options)  # type: ignore[arg-type]


def test_a_call_goes_to_the_server_and_its_answer_back(world: World, server: App, caller: App, serving: Sent) -> None:
    sent = call(caller, '{"number": 7}')
    (invocation,) = serving.events
    assert invocation == Invocation(invocation.invocation, "app:bot", caller.pid, "user:anna", '{"number": 7}')
    world.host.advance(1.5)
    server.call(AnswerTool(invocation=invocation.invocation, result='"sent"'))
    assert (sent.result().result, sent.result().seconds) == ('"sent"', 1.5)
    assert not world.system.tools.routed


def test_answers_may_come_in_any_order(server: App, caller: App, serving: Sent) -> None:
    first, second = call(caller, '{"n": 1}'), call(caller, '{"n": 2}')
    for invocation in reversed(serving.events):
        server.call(AnswerTool(invocation=invocation.invocation, result=invocation.arguments))
    assert [first.result().result, second.result().result] == ['{"n": 1}', '{"n": 2}']


def test_a_tool_that_fails(server: App, caller: App, serving: Sent) -> None:
    sent = call(caller)
    server.call(AnswerTool(invocation=serving.events[0].invocation, error="out of stock"))
    error = sent.error()
    assert isinstance(error, ToolError)
    assert "out of stock" in error.message


def test_only_the_serving_agent_answers(world: World, server: App, caller: App, serving: Sent) -> None:
    sent = call(caller)
    id_ = serving.events[0].invocation
    twin = App(world, server.client).spawn("twin")
    for other in (caller, twin, world.connect("app:thief").spawn()):
        assert isinstance(other.refused(AnswerTool(invocation=id_, result='"forged"')), NotFoundError)
    assert sent.open
    server.call(AnswerTool(invocation=id_))
    assert isinstance(server.refused(AnswerTool(invocation=id_)), NotFoundError), "once"


@pytest.mark.parametrize("how", ["cancel", "kill", "gone", "cut off", "deadline"])
def test_when_the_server_goes_its_calls_fail(world: World, server: App, caller: App, how: str) -> None:
    serving = server.send(SERVE, stream=True, timeout_ms=5_000 if how == "deadline" else None)
    sent = call(caller)
    if how == "cancel":
        server.call(Cancel(id=serving.id))
    elif how == "kill":
        App(world, server.client).call(Kill(pid=server.pid))
    elif how == "gone":
        world.gate.drop(server.client)
    elif how == "deadline":
        world.host.advance(6.0)
    else:
        world.host.deliver = lambda client: Delivery.FULL if client is server.client else Delivery.SENT
        assert isinstance(call(caller).error(), ToolError), "the very call that finds out"
    assert isinstance(sent.error(), ToolError)
    assert isinstance(caller.refused(CallTool(tool="shop/order")), NotFoundError)
    assert not world.system.tools.routed


def test_a_server_that_is_gone_is_found_out_by_the_next_call(world: World, server: App, caller: App, serving: Sent) -> None:
    world.host.deliver = lambda client: Delivery.GONE if client is server.client else Delivery.SENT
    assert isinstance(call(caller).error(), ToolError)
    assert not world.system.tools.served
    assert not world.gate.in_flight


def test_a_tool_has_a_time(world: World, caller: App, serving: Sent) -> None:
    sent = call(caller)
    world.host.advance(TOOL_TIMEOUT_S + 0.1)
    assert isinstance(sent.error(), DeadlineError)


def test_the_callers_deadline_counts(world: World, server: App, caller: App, serving: Sent) -> None:
    long, short = call(caller, timeout_ms=600_000), call(caller, timeout_ms=1_000)
    world.host.advance(2.0)
    assert isinstance(short.error(), DeadlineError)
    world.host.advance(TOOL_TIMEOUT_S * 2)
    assert long.open
    assert isinstance(server.refused(AnswerTool(invocation=serving.events[1].invocation)), NotFoundError), "too late"
    server.call(AnswerTool(invocation=serving.events[0].invocation))
    assert long.result().result == "null"


def test_a_name_is_served_once(world: World, server: App, serving: Sent) -> None:
    error = world.connect("app:thief").spawn().send(SERVE, stream=True).error()
    assert isinstance(error, ConflictError)
    server.call(Cancel(id=serving.id))
    assert world.connect("app:heir").spawn().send(SERVE, stream=True).open


def test_serving_needs_a_stream(server: App) -> None:
    assert isinstance(server.refused(SERVE), BadRequestError)


def test_the_number_of_tools_is_bounded(server: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools_module, "TOOLS", 1)
    server.send(SERVE, stream=True)
    error = server.send(ServeTool(tool="shop/more", description="", schema="{}"), stream=True).error()
    assert isinstance(error, LimitError)


def test_an_unknown_tool(caller: App) -> None:
    assert isinstance(caller.refused(CallTool(tool="no/body")), NotFoundError)


def test_the_list(server: App, caller: App, serving: Sent) -> None:
    server.send(ServeTool(tool="bank/pay", description="", schema="{}"), stream=True)
    assert [tool.tool for tool in caller.call(ListTools()).tools] == ["bank/pay", "shop/order"]
    (tool,) = caller.call(ListTools(prefix="shop/")).tools
    assert (tool.description, tool.schema, tool.server) == ("Orders.", '{"type": "object"}', "app:shop")


def test_an_agent_may_call_its_own_tool(server: App, serving: Sent) -> None:
    sent = call(server)
    server.call(AnswerTool(invocation=serving.events[0].invocation, result="1"))
    assert sent.result().result == "1"
