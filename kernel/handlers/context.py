"""`context.*`. The gate has asked the policy about the owner already; what is left is to do it."""

from kernos.syscalls.call import Done
from kernos.syscalls.context import (
    AppendContext,
    ContextInfo,
    ContextList,
    ContextPart,
    DeleteContext,
    ListContexts,
    OpenContext,
    ReadContext,
)

from ..memory.contexts import Context
from ..system import System
from ..tickets import Ticket


def open_(system: System, ticket: Ticket, call: OpenContext) -> ContextInfo:
    """Open or make."""
    return _info(system.contexts.open(ticket.agent.owner, call.name, system.new_id(), ticket.payers, system.host.now))


def append(system: System, ticket: Ticket, call: AppendContext) -> ContextInfo:
    """Put messages at the end."""
    context = system.contexts.get(call.context)
    context.append(call.messages, system.host.now)
    return _info(context)


def read(system: System, ticket: Ticket, call: ReadContext) -> ContextPart:
    """A run of messages."""
    messages = system.contexts.get(call.context).messages
    return ContextPart(messages[call.start : call.start + call.limit], call.start, len(messages))


def list_(system: System, ticket: Ticket, call: ListContexts) -> ContextList:
    """The owner's contexts."""
    return ContextList([_info(context) for context in system.contexts.of(ticket.agent.owner)])


def delete(system: System, ticket: Ticket, call: DeleteContext) -> Done:
    """Remove for good."""
    system.contexts.delete(call.context)
    return Done()


def _info(context: Context) -> ContextInfo:
    return ContextInfo(context.id, context.name, context.owner, len(context.messages))
