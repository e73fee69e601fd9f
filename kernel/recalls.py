"""Recall, asked for in three steps: what of the question is embedded, its vector from the encoder, and the ranking by both.

Reading and ranking are done by the threads that read. Without an encoder that is ready, or if it fails, words alone decide.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from kernos.syscalls.context import Points
from kernos.syscalls.errors import KernosError
from kernos.syscalls.model import Embeddings

from .limits import INDEX_BATCH
from .memory import window
from .memory.recall import Ranked
from .memory.window import Made
from .memory.writer import Job
from .tickets import Ticket

if TYPE_CHECKING:
    from .embeds import Outcome
    from .system import System

T = TypeVar("T")

Vector = Any
"""float32 [dim] of length one, or `None`. Untyped, as numpy is not loaded before it is needed."""


class Recalls:
    """Asks the memory on behalf of calls."""

    def __init__(self, system: "System") -> None:
        self.system = system

    def ask(
        self,
        ticket: Ticket,
        topic: Job[str | None],
        rank: Callable[[Any, Vector], list[T]],
        then: Callable[[list[T], bool], object],
    ) -> None:
        """Hand what `rank` finds to `then`, and whether meaning counted. `topic` says what to embed; `None`: there is nothing to find."""

        def asked(text: str | None) -> None:
            encoder = self.system.embedder.encoder
            if text is None:
                then([], False)
            elif encoder is None or not text.strip():
                search(None)
            else:
                self.system.embeds.own([text], encoder, lambda outcome: ticket.then(search)(_vector(outcome)), ticket.process)

        def search(vector: Vector) -> None:
            self.system.storage.read(
                lambda connection: rank(connection, vector), ticket.then(lambda found: then(found, vector is not None))
            )

        # Not `fetch`: the memory takes its lock before the first row is read.
        self.system.storage.read(topic, ticket.then(asked))

    def index(self, ticket: Ticket, owner: str, then: Callable[[], object]) -> None:
        """See to it that what is still in an owner's windows is found too, a few messages at a time so that others can write between."""
        storage, memory = self.system.storage, self.system.embedder.memory

        def looked(unpaged: bool) -> None:
            if unpaged:
                storage.write(lambda connection: window.index(connection, owner, INDEX_BATCH), ticket.then(made, anyway=True))
            else:
                then()

        def made(pages: Made) -> None:
            self.system.embedder.wake()
            storage.tell(lambda: memory.added(pages), ticket.then(lambda _: self.index(ticket, owner, then)))

        storage.read(lambda connection: window.unpaged(connection, owner), ticket.then(looked))


def points_of(found: Ranked) -> Points:
    """Why a page was recalled, for the caller."""
    points = found.points
    return Points(points.score, points.meaning, points.words, points.author)


def _vector(outcome: "Outcome") -> Vector:
    return None if isinstance(outcome, KernosError) else vectors_of(outcome)[0]


def vectors_of(embeddings: Embeddings) -> Any:
    """The rows of a batch, float32 [count, dim]."""
    import numpy as np

    return np.frombuffer(embeddings.data, "<f4").reshape(embeddings.count, embeddings.dim)
