"""Tools being served, and calls of them on their way: from the caller through the kernel to the server, and back."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kernos.syscalls.errors import BadRequestError, ConflictError, KernosError, LimitError, NotFoundError, ToolError
from kernos.syscalls.tool import AnswerTool, CallTool, Invocation, ServeTool, ToolResult

from .core.processes import Process
from .limits import TOOL_TIMEOUT_S, TOOLS
from .tickets import Ticket

if TYPE_CHECKING:
    from .system import System


@dataclass(frozen=True)
class Served:
    """A tool and the open call that serves it."""

    call: ServeTool
    ticket: Ticket
    labels: tuple[str, ...]
    """Of its description: what the agent that serves it carried when it offered it."""


@dataclass(frozen=True)
class Routed:
    """A call of a tool that waits for its answer."""

    ticket: Ticket
    served: Served
    since: float
    labels: tuple[str, ...]
    """What the caller carried."""


class Tools:
    """The routes."""

    def __init__(self, system: "System") -> None:
        self.system = system
        self.served: dict[str, Served] = {}
        self.routed: dict[str, Routed] = {}

    def serve(self, ticket: Ticket, call: ServeTool) -> None:
        """Offer a tool until the serving call ends."""
        if not ticket.stream:
            raise BadRequestError("tool.serve streams its invocations; make it with `stream`, not with `call`.")
        if call.tool in self.served:
            raise ConflictError(f"The tool {call.tool} is being served by {self.served[call.tool].ticket.principal}. End that first.")
        if len(self.served) >= TOOLS:
            raise LimitError(f"{TOOLS} tools are being served. End one that is not needed.")
        self.served[call.tool] = Served(call, ticket, self.system.flows.marked(ticket.agent))
        ticket.on_end = lambda: self._withdraw(call.tool)

    def call(self, ticket: Ticket, call: CallTool) -> None:
        """Send an invocation to the server of a tool."""
        served = self.served.get(call.tool)
        if served is None:
            raise NotFoundError(f"Nobody serves the tool {call.tool}. `tool.list` shows what there is.")
        id_, agent = self.system.new_id(), ticket.agent
        labels = self.system.flows.marked(agent)
        if not served.call.stateless:
            self.system.flows.taint(served.ticket.agent, labels, f"a call of {call.tool} by agent {agent.pid}")
        self.routed[id_] = Routed(ticket, served, self.system.host.now, labels)
        if ticket.deadline is None:
            ticket.deadline = self.system.host.now + TOOL_TIMEOUT_S
        ticket.on_end = lambda: self.routed.pop(id_, None)
        served.ticket.event(Invocation(id_, agent.principal, agent.pid, agent.user, call.arguments, list(labels)))

    def answer(self, ticket: Ticket, call: AnswerTool) -> None:
        """Send a tool's result back; only the agent that serves the tool can."""
        routed = self.routed.get(call.invocation)
        if routed is None or routed.served.ticket.process is not ticket.process:
            raise NotFoundError(f"No invocation {call.invocation} waits for an answer of this agent; its caller may have given up.")
        del self.routed[call.invocation]
        try:
            labels = self._hand_over(routed, ticket.agent)
        except KernosError as error:
            routed.ticket.fail(error)
            return
        if call.error is not None:
            routed.ticket.fail(ToolError(f"{routed.served.call.tool} failed: {call.error}"))
        else:
            routed.ticket.reply(ToolResult(call.result, self.system.host.now - routed.since, labels))

    def _hand_over(self, routed: Routed, server: Process) -> list[str]:
        """Let the caller carry the labels of what the tool answers, also of an error; raises if they may not reach it."""
        flows, caller, name = self.system.flows, routed.ticket.agent, routed.served.call.tool
        flows.hand_over(server, caller, list(server.labels))
        given = {*routed.served.call.labels, *self.system.law.policy.flows.given(f"tool/{name}")}
        labels = flows.marked(server, {*routed.labels, *given})
        flows.taint(caller, labels, routed.ticket.source)
        return list(labels)

    def _withdraw(self, name: str) -> None:
        served = self.served.pop(name)
        for id_, routed in list(self.routed.items()):
            if routed.served is served:
                del self.routed[id_]
                routed.ticket.fail(ToolError(f"The agent that serves {name} went away. Try again when it is back."))
