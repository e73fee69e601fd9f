"""How much of what answers a question is recalled from long conversations (LoCoMo).

For each question the turns of its conversation are ranked. `r5` and `r10` are the shares of its evidence among the first 5 and 10 turns,
`at1000` that among the best turns that fit 1,000 tokens; `dense_r5` ranks by the similarity of vectors alone. Means over all questions.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sqlcipher3 import dbapi2

from kernos.kernel.memory import keywords
from kernos.kernel.memory.branches import Span
from kernos.kernel.memory.ranking import Reach, Recalled, fit
from kernos.kernel.memory.shelves import Shelf, Shelves
from kernos.syscalls import Kernel
from kernos.syscalls.model import CountTokens, Embed, ListModels

from . import report
from .kernel import booted
from .locomo import Conversation, Question, Turn, conversations
from .report import Target

BUDGET: Final = 1_000
BATCH: Final = 64
TARGETS = {
    "r5": Target(0.66, at_least=True),
    "r10": Target(0.75, at_least=True),
    "at1000": Target(0.835, at_least=True),
}


class Memory:
    """One conversation and its recall: the only part that knows how recall is asked for."""

    def __init__(self, kernel: Kernel, turns: Sequence[Turn]) -> None:
        self._kernel = kernel
        models = kernel.call(ListModels())
        self._encoder, self._decoder = models.encoder, models.decoder
        self.vectors = self.embed([turn.text for turn in turns])
        self.tokens = [kernel.call(CountTokens(model=self._decoder, text=turn.text)).tokens for turn in turns]
        self._connection: sqlite3.Connection = dbapi2.connect(":memory:", isolation_level=None)  # pyright: ignore[reportAttributeAccessIssue]
        self._connection.execute("CREATE TABLE pages (id INTEGER PRIMARY KEY)")
        self._connection.executescript(keywords.SCHEMA)
        entries = [keywords.add(self._connection, 1, place, place, turn.text, turn.time) for place, turn in enumerate(turns)]
        shelf = Shelf.of(entries, np.arange(len(turns)), self.vectors.astype(np.float16))
        self._reach = Reach(Shelves(lambda _: shelf, 1 << 30), [Span(1, 0, len(turns))])

    def recall(self, question: str) -> list[Recalled]:
        """All turns, best first."""
        (vector,) = self.embed([self._reach.topic(question)])
        return list(self._reach.rank(self._connection, question, vector))

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """A vector per text, as rows."""
        parts = [list(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]
        return np.array([row for part in parts for row in self._kernel.call(Embed(model=self._encoder, texts=part)).rows()], np.float32)


def main() -> None:
    """Measure and publish."""
    given = report.options(__doc__)
    chosen = conversations()[: 1 if given.quick else None]
    with booted() as kernel:
        kernel.load_models()
        with kernel.connect() as handle:
            agent = handle.spawn("recall")
            shares = [share for conversation in chosen for share in measure(agent, conversation)]
    means = np.mean(shares, axis=0)
    report.publish("recall", given, dict(zip(("r5", "r10", "at1000", "dense_r5"), map(float, means), strict=True)), TARGETS)


def measure(kernel: Kernel, conversation: Conversation) -> Iterator[tuple[float, ...]]:
    """For each question the shares of its evidence that were found."""
    memory = Memory(kernel, conversation.turns)
    dense = memory.vectors @ memory.embed([question.text for question in conversation.questions]).T
    for question, similar in zip(conversation.questions, dense.T, strict=True):
        recalled = memory.recall(question.text)
        places = [found.page for found in recalled]
        fitting = [found.page for found in fit(recalled, memory.tokens.__getitem__, BUDGET)]
        nearest = np.argsort(-similar)[:5].tolist()
        yield tuple(_share(question, some) for some in (places[:5], places[:10], fitting, nearest))


def _share(question: Question, places: Sequence[int]) -> float:
    return len(question.evidence & set(places)) / len(question.evidence)


if __name__ == "__main__":
    main()
