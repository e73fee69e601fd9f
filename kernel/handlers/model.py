"""`model.*`."""

from kernos.syscalls.call import Done
from kernos.syscalls.errors import DeviceError
from kernos.syscalls.model import CountTokens, Embed, Generate, ListModels, LoadModel, Model, Models, TokenCount, UnloadModel

from ..system import System
from ..tickets import LATER, Later, Ticket


def generate(system: System, ticket: Ticket, call: Generate) -> Later:
    """Begin a turn, in a context or without."""
    model = system.registry.need(call.model, "decoder")
    system.flows.begin_turn(ticket, call)
    if call.context is None:
        system.turns.start(ticket, call, model, call.messages)
    else:
        system.conversations.start(ticket, call, call.context, model)
    return LATER


def embed(system: System, ticket: Ticket, call: Embed) -> Later:
    """Begin a batch."""
    system.embeds.start(ticket, call, system.registry.need(call.model, "encoder"))
    return LATER


def count(system: System, ticket: Ticket, call: CountTokens) -> Later:
    """Count on a thread: a text may be long."""
    tokenizer = system.registry.get(call.model).tokenizer

    def counted(tokens: int | Exception) -> None:
        if isinstance(tokens, Exception):
            ticket.fail(DeviceError(f"{call.model} could not tokenize this text: {tokens!r}."))
        else:
            ticket.reply(TokenCount(tokens))

    system.host.offload(lambda: len(tokenizer.encode(call.text)), counted)
    return LATER


def list_(system: System, ticket: Ticket, call: ListModels) -> Models:
    """All models, and the defaults."""
    registry = system.registry
    registry.refresh()
    views = [registry.entries[name].view() for name in sorted(registry.entries)]
    return Models(views, registry.default("decoder"), registry.default("encoder"))


def load(system: System, ticket: Ticket, call: LoadModel) -> Model | Later:
    """Bring a model up; a failed one is tried again."""
    entry = system.registry.get(call.model)
    if entry.state == "ready":
        return entry.view()
    entry.waiting.append(ticket)
    ticket.on_end = lambda: entry.waiting.remove(ticket)
    if entry.state != "loading":
        system.fleet.revive(entry.server)
        system.registry.load(entry)
    return LATER


def unload(system: System, ticket: Ticket, call: UnloadModel) -> Done:
    """Take a model off its device."""
    system.registry.unload(system.registry.get(call.model))
    return Done()
