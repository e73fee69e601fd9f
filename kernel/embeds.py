"""Batches of texts on their way to an encoder. A batch that is with a device when it dies is sent again to its successor.

A batch is a call's, charged to its payers, or the kernel's own, which nobody pays for.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kernos.syscalls.errors import DeviceError, KernosError
from kernos.syscalls.model import Embed, Embeddings

from .devices import messages
from .limits import RESUMES
from .models import Entry
from .tickets import Ticket

if TYPE_CHECKING:
    from .system import System

Outcome = Embeddings | KernosError


@dataclass
class Batch:
    """Token ids of texts, and who wants their vectors."""

    id: int
    model: str
    inputs: list[list[int]]
    then: Callable[[Outcome], object]
    tries: int = 0


class Embeds:
    """All batches by id."""

    def __init__(self, system: "System") -> None:
        self.system = system
        self.batches: dict[int, Batch] = {}
        self._last = 0

    def start(self, ticket: Ticket, call: Embed, entry: Entry) -> None:
        """Tokenize on a thread, then send."""

        def begin(inputs: list[list[int]]) -> None:
            self._charged(ticket, entry, inputs)

        def tokenized(inputs: list[list[int]] | Exception) -> None:
            if isinstance(inputs, Exception):
                ticket.fail(_refused(entry, inputs))
            else:
                ticket.then(begin)(inputs)

        self._tokenize(call.texts, entry, tokenized)

    def own(self, texts: list[str], entry: Entry, then: Callable[[Outcome], object]) -> None:
        """Embed for the kernel itself. What a failing device or model makes of it comes to `then` as an error."""

        def tokenized(inputs: list[list[int]] | Exception) -> None:
            if isinstance(inputs, Exception):
                then(_refused(entry, inputs))
            else:
                self._begin(entry, inputs, then)

        self._tokenize(texts, entry, tokenized)

    def _tokenize(self, texts: list[str], entry: Entry, then: Callable[[list[list[int]] | Exception], None]) -> None:
        window = entry.window or entry.manifest.window
        tokenizer = entry.tokenizer
        self.system.host.offload(lambda: tokenizer.encode_all(texts, window), then)

    def _charged(self, ticket: Ticket, entry: Entry, inputs: list[list[int]]) -> None:
        tokens = sum(map(len, inputs))
        entry = self.system.registry.need(entry.name, "encoder")  # it may have failed meanwhile
        self.system.quotas.spend(ticket.payers, tokens, self.system.host.now)
        ticket.agent.prompt_tokens += tokens

        def done(outcome: Outcome) -> None:
            if isinstance(outcome, KernosError):  # not the caller's doing, so the tokens come back
                self.system.quotas.pour(ticket.payers, tokens, self.system.host.now)
                ticket.fail(outcome)
            else:
                ticket.reply(outcome)

        batch = self._begin(entry, inputs, done)
        ticket.on_end = lambda: self.batches.pop(batch.id, None)

    def _begin(self, entry: Entry, inputs: list[list[int]], then: Callable[[Outcome], object]) -> Batch:
        self._last += 1
        batch = self.batches[self._last] = Batch(self._last, entry.name, inputs, then)
        if entry.state == "ready":
            self._send(batch)
        return batch

    def send_waiting(self, model: str) -> None:
        """The model is ready, for the first time or again: send every batch for it."""
        for batch in list(self.batches.values()):
            if batch.model == model:
                self._send(batch)

    def done(self, report: messages.Embedded) -> None:
        """Vectors have come."""
        batch = self.batches.pop(report.batch, None)
        if batch is not None:
            batch.then(Embeddings(report.dim, len(batch.inputs), report.data))

    def failed(self, id_: int, reason: str) -> None:
        """The device could not serve a batch."""
        batch = self.batches.pop(id_, None)
        if batch is not None:
            batch.then(DeviceError(f"{batch.model} could not embed these texts: {reason}."))

    def fail_all(self, model: str, error: KernosError) -> None:
        """The model will not be ready."""
        for batch in [batch for batch in self.batches.values() if batch.model == model]:
            self.batches.pop(batch.id, None)  # it may have been given up, because an error before it could not be sent
            batch.then(error)

    def _send(self, batch: Batch) -> None:
        batch.tries += 1
        if batch.tries > RESUMES + 1:
            self.failed(batch.id, "its device died each time it was tried")
        else:
            self.system.host.command(self.system.registry.get(batch.model).server, messages.Embed(batch.id, batch.model, batch.inputs))


def _refused(entry: Entry, error: Exception) -> DeviceError:
    return DeviceError(f"{entry.name} could not tokenize these texts: {error}.")
