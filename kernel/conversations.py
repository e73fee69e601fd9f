"""Turns in a context: what the model sees of it, and how question and answer are kept."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from kernos.syscalls.model import Generate, Generation, Message

from .limits import INLINE_TEXT
from .memory import transcripts, window
from .memory.transcripts import ContextRow, NewMessage, StoredMessage
from .models import Entry
from .tickets import Ticket

if TYPE_CHECKING:
    from .system import System

BYTES_PER_TOKEN = 4
"""A guess for contexts that no model can count."""


class Conversations:
    """Between contexts and turns."""

    def __init__(self, system: "System") -> None:
        self.system = system

    def start(self, ticket: Ticket, call: Generate, id_: str, model: Entry) -> None:
        """Read what is in the window, then begin the turn."""
        actor = self.system.contexts.actor(id_, ticket.agent)

        def seen(messages: list[StoredMessage]) -> None:
            past = [Message(message.role, message.text) for message in messages]
            self.system.turns.start(ticket, call, self.system.registry.need(model.name, "decoder"), past)

        self.system.storage.fetch(ticket, lambda connection: window.resident(connection, actor, id_), seen)

    def keep(self, ticket: Ticket, call: Generate, id_: str, generation: Generation) -> None:
        """Append question and answer together; the reply leaves when they are durable."""
        messages = [*call.messages, Message("assistant", generation.text)]
        self.append(ticket, id_, messages, call.model, lambda _: generation)

    def append(self, ticket: Ticket, id_: str, messages: Sequence[Message], model: str, view: Callable[[ContextRow], Any]) -> None:
        """Count messages as a model does, on a thread if they are long, and put them at the end of a context."""
        registry, storage = self.system.registry, self.system.storage
        tokenizer = registry.get(model).tokenizer if model in registry.entries else None

        def count() -> list[int]:
            if tokenizer is None:
                return [len(message.text.encode()) // BYTES_PER_TOKEN + 1 for message in messages]
            return tokenizer.count([message.text for message in messages])

        def counted(tokens: list[int]) -> None:
            new = [
                NewMessage(message.role, message.text, size, tuple(message.labels), message.calls.encode())
                for message, size in zip(messages, tokens, strict=True)
            ]
            actor, now = self.system.contexts.actor(id_, ticket.agent), storage.clock
            storage.change(
                ticket,
                lambda connection: transcripts.append(connection, actor, id_, new, model, now),
                view,
                charge=(self.system.contexts.payers(id_), {"bytes": sum(transcripts.size_of(message) for message in new)}),
            )

        if sum(len(message.text) for message in messages) <= INLINE_TEXT:
            ticket.then(counted)(count())
        else:
            self.system.host.offload(count, ticket.then(counted))
