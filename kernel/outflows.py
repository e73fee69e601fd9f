"""Which calls carry something away from their agent, what labels it has, and where it goes.

A call that is not in `OUTFLOWS` takes nothing where its owner's own agents could not read it. What an owner keeps for itself needs no
permission: it keeps its labels, and is checked when it is read.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from kernos.syscalls.call import Call
from kernos.syscalls.context import AppendContext, ForkContext, GrantContext, LabelContext, SnapshotContext, SummarizeContext
from kernos.syscalls.message import Reply, Send
from kernos.syscalls.model import Generate
from kernos.syscalls.process import Spawn
from kernos.syscalls.store import BeginUpload, MoveFile, PutFile, RollbackFile, ShareFiles
from kernos.syscalls.tool import CallTool

from .core.processes import Process

if TYPE_CHECKING:
    from .system import System


class Sink(NamedTuple):
    """Where something goes. It goes by several paths, as a principal does by those of its roles."""

    paths: tuple[str, ...]
    own: bool
    """It stays with whoever owns what goes there."""
    name: str
    """As people would say it."""


Outflow = tuple[Iterable[str], list[Sink]]
"""The labels of what goes, and everybody who gets it."""


def to_principal(system: "System", owner: str, principal: str) -> Sink:
    """What of an owner's goes to a principal."""
    paths = tuple(f"principal/{name}" for name in system.law.policy.index.names(principal))
    return Sink(paths, owner == principal, principal)


def to_agent(system: "System", owner: str, agent: Process) -> list[Sink]:
    """What of an owner's goes to an agent: its app sees it, and the user it acts for."""
    own = agent.owner == owner
    return [to_principal(system, owner, principal)._replace(own=own) for principal in agent.payers]


def _send(system: "System", process: Process, call: Send) -> Outflow:
    labels = {*process.labels, *call.labels}
    if not call.to.startswith("agent/"):
        return labels, [Sink((f"message/{call.to}",), False, call.to)]
    return labels, _to_box(system, process, call.to)


def _reply(system: "System", process: Process, call: Reply) -> Outflow:
    return process.labels, _to_box(system, process, call.sender)


def _to_box(system: "System", process: Process, box: str) -> list[Sink]:
    receiver = system.processes.rows.get(int(box.removeprefix("agent/")))
    return to_agent(system, process.owner, receiver) if receiver is not None else []


def _call_tool(system: "System", process: Process, call: CallTool) -> Outflow:
    served = system.tools.served.get(call.tool)
    if served is None:
        return (), []
    own = served.ticket.principal == process.principal
    paths = (f"tool/{call.tool}", f"privileged/{call.tool}") if served.call.privileged else (f"tool/{call.tool}",)
    return process.labels, [Sink(paths, own, f"the tool {call.tool} of {served.ticket.principal}")]


def _spawn(system: "System", process: Process, call: Spawn) -> Outflow:
    return process.labels, [to_principal(system, process.owner, call.user)] if call.user not in (None, process.user) else []


def _to_context(system: "System", process: Process, call: Any) -> Outflow:
    known = system.contexts.by_id.get(call.context) if call.context is not None else None
    if known is None or known.owner == process.owner:
        return (), []
    given = (label for message in getattr(call, "messages", ()) for label in message.labels)
    return {*process.labels, *given}, [to_principal(system, process.owner, known.owner)]


def _fork(system: "System", process: Process, call: ForkContext) -> Outflow:
    known = system.contexts.by_id.get(call.context)
    if known is None or known.owner == process.owner:
        return (), []
    return known.labels, [to_principal(system, known.owner, process.owner)]


def _grant(system: "System", process: Process, call: GrantContext) -> Outflow:
    known = system.contexts.by_id.get(call.context)
    if known is None or call.access is None:
        return (), []
    return known.labels | set(process.labels), [to_principal(system, known.owner, call.principal)]


def _share(system: "System", process: Process, call: ShareFiles) -> Outflow:
    return process.labels, [to_principal(system, process.owner, call.principal)] if call.access is not None else []


def _to_store(system: "System", process: Process, call: Any) -> Outflow:
    labels = {*process.labels, *getattr(call, "labels", ())}
    return labels, [to_principal(system, process.owner, call.owner)] if call.owner not in (None, process.owner) else []


OUTFLOWS: dict[type[Call[Any]], Callable[["System", Process, Any], Outflow]] = {
    Send: _send,
    Reply: _reply,
    CallTool: _call_tool,
    Spawn: _spawn,
    Generate: _to_context,
    AppendContext: _to_context,
    SnapshotContext: _to_context,
    LabelContext: _to_context,
    SummarizeContext: _to_context,
    ForkContext: _fork,
    GrantContext: _grant,
    ShareFiles: _share,
    PutFile: _to_store,
    RollbackFile: _to_store,
    MoveFile: _to_store,
    BeginUpload: _to_store,
}
