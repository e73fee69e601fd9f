"""Batches of texts on their way to an encoder. A batch that is with a device when it dies is sent again to its successor."""

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


@dataclass
class Batch:
    """Token ids of texts, and who wants their vectors."""

    id: int
    ticket: Ticket
    model: str
    inputs: list[list[int]]
    tries: int = 0


class Embeds:
    """All batches by id."""

    def __init__(self, system: "System") -> None:
        self.system = system
        self.batches: dict[int, Batch] = {}
        self._last = 0

    def start(self, ticket: Ticket, call: Embed, entry: Entry) -> None:
        """Tokenize on a thread, then send."""
        window = entry.window or entry.manifest.window
        tokenizer = entry.tokenizer
        self.system.host.offload(lambda: tokenizer.encode_all(call.texts, window), lambda inputs: self._tokenized(ticket, entry, inputs))

    def _tokenized(self, ticket: Ticket, entry: Entry, inputs: list[list[int]] | Exception) -> None:
        if isinstance(inputs, Exception):
            ticket.fail(DeviceError(f"{entry.name} could not tokenize these texts: {inputs}."))
            return
        if not ticket.open:
            return
        tokens = sum(map(len, inputs))
        try:
            entry = self.system.registry.need(entry.name, "encoder")  # it may have failed meanwhile
            self.system.quotas.spend(ticket.payers, tokens, self.system.host.now)
        except KernosError as error:
            ticket.fail(error)
            return
        self._last += 1
        batch = self.batches[self._last] = Batch(self._last, ticket, entry.name, inputs)
        ticket.on_end = lambda: self.batches.pop(batch.id, None)
        ticket.agent.prompt_tokens += tokens
        if entry.state == "ready":
            self._send(batch)

    def send_waiting(self, model: str) -> None:
        """The model is ready, for the first time or again: send every batch for it."""
        for batch in list(self.batches.values()):
            if batch.model == model:
                self._send(batch)

    def done(self, report: messages.Embedded) -> None:
        """Vectors have come."""
        batch = self.batches.pop(report.batch, None)
        if batch is not None:
            batch.ticket.reply(Embeddings(report.dim, len(batch.inputs), report.data))

    def failed(self, id_: int, reason: str) -> None:
        """The device could not serve a batch."""
        batch = self.batches.get(id_)
        if batch is not None:
            self._fail(batch, DeviceError(f"{batch.model} could not embed these texts: {reason}."))

    def fail_all(self, model: str, error: KernosError) -> None:
        """The model will not be ready."""
        for batch in [batch for batch in self.batches.values() if batch.model == model]:
            self._fail(batch, error)

    def _fail(self, batch: Batch, error: KernosError) -> None:
        """It was not the caller's doing, so the tokens come back."""
        self.batches.pop(batch.id, None)
        self.system.quotas.pour(batch.ticket.payers, sum(map(len, batch.inputs)), self.system.host.now)
        batch.ticket.fail(error)

    def _send(self, batch: Batch) -> None:
        batch.tries += 1
        if batch.tries > RESUMES + 1:
            self.failed(batch.id, "its device died each time it was tried")
        else:
            self.system.host.command(self.system.registry.get(batch.model).server, messages.Embed(batch.id, batch.model, batch.inputs))
