"""`tool.*`."""

from kernos.syscalls.call import Done
from kernos.syscalls.tool import AnswerTool, CallTool, ListTools, ServeTool, Tool, Tools

from ..system import System
from ..tickets import LATER, Later, Ticket
from ..tools import Served


def serve(system: System, ticket: Ticket, call: ServeTool) -> Later:
    """Offer a tool for as long as the call is open."""
    system.tools.serve(ticket, call)
    return LATER


def answer(system: System, ticket: Ticket, call: AnswerTool) -> Done:
    """Route a result back."""
    system.tools.answer(ticket, call)
    return Done()


def call(system: System, ticket: Ticket, call: CallTool) -> Later:
    """Route a call to its server."""
    system.tools.call(ticket, call)
    return LATER


def list_(system: System, ticket: Ticket, call: ListTools) -> Tools:
    """What is being served, but for tools whose description may not reach the agent that asks."""
    found = [tool for name, tool in sorted(system.tools.served.items()) if name.startswith(call.prefix)]
    if ticket.process is not None:
        found = [tool for tool in found if system.flows.reaches(ticket.process, tool.labels)]
    return Tools([_view(system, tool) for tool in found], sorted({label for tool in found for label in tool.labels}))


def _view(system: System, served: Served) -> Tool:
    call = served.call
    labels = sorted({*call.labels, *system.law.policy.flows.given(f"tool/{call.tool}")})
    return Tool(call.tool, call.description, call.schema, served.ticket.principal, call.privileged, labels)
