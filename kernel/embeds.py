"""Batches of texts on their way to an encoder, a piece at a time: who is next is for `core/pieces.py` to say.

Where a decoder shares the device, the two servers alternate (`devices/turnstile.py`), a piece and a step, as long as the texts are as
urgent as what is decoded. Less urgent ones get a share of the device (`core/shares.py`), and wait here for it; those that are two classes
less urgent pay twice for it, and get half.

A batch is a call's, charged to its payers, or the kernel's own, which nobody pays for. A piece that is with a device when it dies is sent
again to its successor.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kernos.syscalls.errors import DeviceError, KernosError
from kernos.syscalls.model import Embed, Embeddings

from .core.pieces import Job, Pieces
from .core.processes import Process
from .core.scheduler import RANK
from .core.shares import Share
from .devices import messages
from .host import Timer
from .limits import BESIDE_OWED_S, BESIDE_SAVED_S, BESIDE_SHARE, RESUMES
from .models import Entry
from .tickets import Ticket

if TYPE_CHECKING:
    from .system import System

Outcome = Embeddings | KernosError


@dataclass
class Batch:
    """Token ids of texts, what has come of their vectors, and who wants them."""

    id: int
    model: str
    inputs: list[list[int]]
    then: Callable[[Outcome], object]
    vectors: dict[int, bytes]
    """By number of the text."""


@dataclass
class Piece:
    """What a device computes now."""

    id: int
    batch: int
    numbers: list[int]
    """Of the texts in the batch."""
    command: messages.Embed
    behind: int
    """By how many classes it is less urgent than what is decoded beside it."""
    tries: int = 0


@dataclass
class Line:
    """The batches that wait for an encoder, and the piece that it is at."""

    waiting: Pieces
    piece: Piece | None = None


class Embeds:
    """All batches by id."""

    def __init__(self, system: "System") -> None:
        self.system = system
        self.batches: dict[int, Batch] = {}
        self._lines: dict[str, Line] = {}
        self._last_batch = 0
        self._last_piece = 0
        self._one_device = system.config.one_device
        self._share = Share(BESIDE_SHARE, BESIDE_SAVED_S, BESIDE_OWED_S, system.host.now)
        self._timer: Timer | None = None
        """While pieces wait for their share: when it is there."""

    def start(self, ticket: Ticket, call: Embed, entry: Entry) -> None:
        """Tokenize on a thread, then let it wait for its turn."""

        def begin(inputs: list[list[int]]) -> None:
            self._charged(ticket, entry, inputs)

        def tokenized(inputs: list[list[int]] | Exception) -> None:
            if isinstance(inputs, Exception):
                ticket.fail(_refused(entry, inputs))
            else:
                ticket.then(begin)(inputs)

        self._tokenize(call.texts, entry, tokenized)

    def own(self, texts: list[str], entry: Entry, then: Callable[[Outcome], object], agent: Process | None = None) -> None:
        """Embed for the kernel itself, as urgently as for the agent that waits for it, if one does.

        What a failing device or model makes of it comes to `then` as an error.
        """

        def tokenized(inputs: list[list[int]] | Exception) -> None:
            if isinstance(inputs, Exception):
                then(_refused(entry, inputs))
            else:
                pid, rank = (0, RANK["normal"]) if agent is None else (agent.pid, self.system.agents.rank(agent))
                self._begin(entry, inputs, then, pid, rank)

        self._tokenize(texts, entry, tokenized)

    def _tokenize(self, texts: list[str], entry: Entry, then: Callable[[list[list[int]] | Exception], None]) -> None:
        window = entry.window or entry.manifest.window
        tokenizer = entry.tokenizer
        self.system.host.offload(lambda: tokenizer.encode_all(texts, window), then)

    def _charged(self, ticket: Ticket, entry: Entry, inputs: list[list[int]]) -> None:
        tokens = sum(map(len, inputs))
        entry = self.system.registry.need(entry.name, "encoder")  # it may have failed meanwhile
        rank = self.system.agents.rank(ticket.agent)  # as it is without this call
        self.system.quotas.spend(ticket.payers, tokens, self.system.host.now)
        ticket.agent.prompt_tokens += tokens

        def done(outcome: Outcome) -> None:
            if isinstance(outcome, KernosError):  # not the caller's doing, so the tokens come back
                self.system.quotas.pour(ticket.payers, tokens, self.system.host.now)
                ticket.fail(outcome)
            else:
                ticket.reply(outcome)

        batch = self._begin(entry, inputs, done, ticket.agent.pid, rank)
        ticket.on_end = lambda: self._forget(batch)

    def _begin(self, entry: Entry, inputs: list[list[int]], then: Callable[[Outcome], object], pid: int, rank: int) -> Batch:
        self._last_batch += 1
        batch = self.batches[self._last_batch] = Batch(self._last_batch, entry.name, inputs, then, {})
        job = Job(batch.id, pid, rank, self.system.scheduler.weight(pid), [len(tokens) for tokens in inputs])
        self._line(entry.name).waiting.add(job, self.system.host.now)
        self._go_on(entry.name)
        return batch

    def _line(self, model: str) -> Line:
        return self._lines.setdefault(model, Line(Pieces()))

    def go_on(self) -> None:
        """The device may be free for pieces that wait for their share of it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            for model in self._lines:
                self._go_on(model)

    def _go_on(self, model: str) -> None:
        """Send the next piece, unless the encoder is at one or not ready, or the device is for others to use."""
        line = self._line(model)
        entry = self.system.registry.entries.get(model)
        if line.piece is not None or entry is None or entry.state != "ready":
            return
        behind = self._behind(line)
        if behind and self._must_wait():
            return
        taken = line.waiting.take(self.system.host.now)
        if taken is not None:
            batch, numbers = taken
            self._last_piece += 1
            inputs = self.batches[batch].inputs
            command = messages.Embed(self._last_piece, model, [inputs[number] for number in numbers])
            line.piece = Piece(self._last_piece, batch, numbers, command, behind)
            self._send(line.piece)

    def _behind(self, line: Line) -> int:
        """By how many classes the next piece is less urgent than what is decoded on its device."""
        waiting, decoded = line.waiting.urgency, self.system.scheduler.urgency
        if not self._one_device or waiting is None or decoded is None:
            return 0
        return max(0, waiting - decoded)

    def _must_wait(self) -> bool:
        """Whether the share is used up; then its time is waited for."""
        wait = self._share.wait(self.system.host.now)
        if wait and self._timer is None:
            self._timer = self.system.host.at(self.system.host.now + wait, self.go_on)
        return wait > 0

    def _send(self, piece: Piece) -> None:
        piece.tries += 1
        if piece.tries > RESUMES + 1:
            self.failed(piece.id, "its device died each time it was tried")
        else:
            self.system.host.command(self.system.registry.get(piece.command.model).server, piece.command)

    def send_waiting(self, model: str) -> None:
        """The model is ready, for the first time or again: send the piece that it was at, or the next."""
        line = self._line(model)
        if line.piece is not None and line.piece.batch in self.batches:
            self._send(line.piece)
        else:
            line.piece = None
            self._go_on(model)

    def done(self, report: messages.Embedded) -> None:
        """Vectors have come."""
        line, piece = self._ended(report.batch)
        if line is None or piece is None:
            return
        line.waiting.learn([len(tokens) for tokens in piece.command.inputs], report.seconds)
        self._share.take(report.seconds * max(1, piece.behind), self.system.host.now, free=not piece.behind)
        self._go_on(piece.command.model)
        batch = self.batches.get(piece.batch)
        if batch is not None:
            size = 4 * report.dim
            batch.vectors |= {number: report.data[row * size : (row + 1) * size] for row, number in enumerate(piece.numbers)}
            if len(batch.vectors) == len(batch.inputs):
                self._forget(batch)
                data = b"".join(batch.vectors[number] for number in range(len(batch.inputs)))
                batch.then(Embeddings(report.dim, len(batch.inputs), data))

    def failed(self, id_: int, reason: str) -> None:
        """The device could not serve a piece, and so its batch."""
        _, piece = self._ended(id_)
        if piece is None:
            return
        batch = self.batches.get(piece.batch)
        if batch is not None:
            self._forget(batch)
            batch.then(DeviceError(f"{batch.model} could not embed these texts: {reason}."))
        self._go_on(piece.command.model)

    def fail_all(self, model: str, error: KernosError) -> None:
        """The model will not be ready."""
        self._line(model).piece = None
        for batch in [batch for batch in self.batches.values() if batch.model == model]:
            self._forget(batch)  # it may have been given up, because an error before it could not be sent
            batch.then(error)

    def _ended(self, id_: int) -> tuple[Line, Piece] | tuple[None, None]:
        """The piece of this id, which its encoder is not at any more."""
        for line in self._lines.values():
            if line.piece is not None and line.piece.id == id_:
                piece, line.piece = line.piece, None
                return line, piece
        return None, None

    def _forget(self, batch: Batch) -> None:
        self.batches.pop(batch.id, None)
        self._line(batch.model).waiting.remove(batch.id)


def _refused(entry: Entry, error: Exception) -> DeviceError:
    return DeviceError(f"{entry.name} could not tokenize these texts: {error}.")
