"""Contexts: ordered lists of messages, each with one owner. Held in the kernel's memory; they end with it (see CAVEATS.md).

A context is charged to those on whose behalf it was made (its owner and the app that opened it first), whoever writes to it later.
"""

from dataclasses import dataclass, field

from kernos.syscalls.errors import LimitError, NotFoundError
from kernos.syscalls.model import Message

from ..core.quotas import Payers, Quotas
from ..limits import CONTEXT_BYTES


@dataclass
class Context:
    """One conversation."""

    id: str
    name: str
    owner: str
    payers: Payers
    quotas: Quotas
    messages: list[Message] = field(default_factory=list)
    size: int = 0
    """Bytes of its messages."""

    def append(self, messages: list[Message], now: float) -> None:
        """Put messages at the end, all or none."""
        size = sum(len(message.text.encode()) for message in messages)
        if self.size + size > CONTEXT_BYTES:
            raise LimitError(f"The context {self.name} would grow beyond {CONTEXT_BYTES} bytes. Open a new one.")
        self.quotas.take(self.payers, {"bytes": size}, now)
        self.messages.extend(messages)
        self.size += size


@dataclass
class Contexts:
    """All contexts, by id and by owner and name."""

    quotas: Quotas
    by_id: dict[str, Context] = field(default_factory=dict)
    by_owner: dict[str, dict[str, Context]] = field(default_factory=dict)

    def open(self, owner: str, name: str, new_id: str, payers: Payers, now: float) -> Context:
        """The owner's context of this name; made with `new_id` if there is none."""
        own = self.by_owner.setdefault(owner, {})
        if name not in own:
            self.quotas.take(payers, {"contexts": 1}, now)
            own[name] = self.by_id[new_id] = Context(new_id, name, owner, payers, self.quotas)
        return own[name]

    def get(self, id_: str) -> Context:
        """A context by id."""
        try:
            return self.by_id[id_]
        except KeyError:
            raise NotFoundError(f"There is no context {id_}. Open one by name with `context.open`.") from None

    def of(self, owner: str) -> list[Context]:
        """An owner's contexts by name."""
        own = self.by_owner.get(owner, {})
        return [own[name] for name in sorted(own)]

    def delete(self, id_: str) -> None:
        """Remove a context and its messages."""
        context = self.get(id_)
        del self.by_id[id_]
        del self.by_owner[context.owner][context.name]
        context.quotas.give(context.payers, {"contexts": 1, "bytes": context.size})
