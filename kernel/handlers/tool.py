"""`tool.*`."""

from kernos.syscalls.call import Done
from kernos.syscalls.tool import AnswerTool, CallTool, ListTools, ServeTool, Tool, Tools

from ..system import System
from ..tickets import LATER, Later, Ticket


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
    """What is being served."""
    served = system.tools.served
    return Tools(
        [
            Tool(name, served[name].call.description, served[name].call.schema, served[name].ticket.principal)
            for name in sorted(served)
            if name.startswith(call.prefix)
        ]
    )
