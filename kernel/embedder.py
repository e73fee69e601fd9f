"""Gives vectors to the sentences of pages that have left a window: in small batches, one at a time, on the encoder's device server.

Nobody waits for it: a page without a vector is found by its words. When an encoder takes another's place its pages are embedded anew.
"""

import logging
from typing import TYPE_CHECKING, Final

from kernos.syscalls.errors import KernosError

from .limits import EMBED_BATCH, EMBED_RETRY_S
from .memory import window
from .memory.library import Change
from .memory.recall import Memory
from .memory.sentences import sentences
from .memory.window import Unembedded
from .models import Entry
from .recalls import vectors_of

if TYPE_CHECKING:
    from .embeds import Outcome
    from .system import System

log = logging.getLogger(__name__)

_NO_MODEL: Final = ""


class Embedder:
    """Embeds until no page waits, then until it is woken."""

    def __init__(self, system: "System") -> None:
        self.system = system
        self._budget = system.config.recall_mb << 20
        self.memory = Memory(_NO_MODEL, 0, self._budget)
        self._busy = False
        self._again = False

    def start(self) -> None:
        """Begin, when the models are known: what another encoder embedded is embedded anew."""
        name = self.system.registry.default("encoder")
        if name in self.system.registry.entries:
            self.memory = Memory(name, self.system.registry.get(name).manifest.dim, self._budget)
            self.system.storage.write(lambda connection: window.forget_vectors(connection, name), lambda _: self.wake())

    @property
    def encoder(self) -> Entry | None:
        """The encoder, if it can be used at once."""
        entry = self.system.registry.entries.get(self.memory.model)
        return entry if entry is not None and entry.state == "ready" else None

    def wake(self) -> None:
        """There may be pages that wait."""
        self._again = self._busy
        if not self._busy and self.encoder is not None and not self.system.draining:
            self._busy = True
            try:
                self.system.storage.read(lambda connection: window.unembedded(connection, EMBED_BATCH), self._take)
            except KernosError:  # too much waits for the disk
                self._rest(failed=True)

    def shelved(self, change: Change) -> None:
        """A file was written or deleted: what it says is found by its words now, and by meaning soon."""
        self.system.storage.tell(lambda: self.memory.shelved(change))
        self.wake()

    def _take(self, pages: list[Unembedded] | Exception) -> None:
        encoder = self.encoder
        if isinstance(pages, Exception) or not pages or encoder is None:
            self._rest(failed=isinstance(pages, Exception))
        else:
            parts = [sentences(page.text) for page in pages]
            texts, counts = [text for part in parts for text in part], [len(part) for part in parts]
            self.system.embeds.own(texts, encoder, lambda outcome: self._keep(pages, counts, outcome))

    def _keep(self, pages: list[Unembedded], counts: list[int], outcome: "Outcome") -> None:
        """Keep the vectors of pages, of which each has so many."""
        import numpy as np  # first needed long after the start

        if isinstance(outcome, KernosError):
            log.warning("%d pages were not embedded (%s); they are tried again", len(pages), outcome)
            self._rest(failed=True)
            return
        vectors = vectors_of(outcome).astype(np.float16)
        model = self.memory.model
        rows = [(page.id, own.tobytes()) for page, own in zip(pages, np.split(vectors, np.cumsum(counts[:-1])), strict=True)]

        def kept(result: object) -> None:
            if isinstance(result, Exception):
                self._rest(failed=True)
                return
            every = [page for page, count in zip(pages, counts, strict=True) for _ in range(count)]
            ids = np.array([page.id for page in every], np.int64)
            self.system.storage.tell(lambda: self.memory.embedded([page.branch for page in every], ids, vectors))
            self._rest(failed=False, more=True)

        try:
            self.system.storage.write(lambda connection: window.embedded(connection, model, rows), kept)
        except KernosError:
            self._rest(failed=True)

    def _rest(self, *, failed: bool, more: bool = False) -> None:
        again, self._busy, self._again = self._again or more, False, False
        if failed:
            self.system.host.at(self.system.host.now + EMBED_RETRY_S, self.wake)
        elif again:
            self.wake()
