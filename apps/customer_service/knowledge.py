"""The knowledge base: what the shop says about itself, entry by entry, found by meaning.

A question is compared with each entry as it stands in the text and with the entry's question alone; the two count alike.
"""

from pathlib import Path
from typing import Annotated, Final, Self

import msgspec
import numpy as np
from msgspec import Meta

from kernos.agents.embedding import Embedding, Vectors

SHIPPED: Final = Path(__file__).with_name("data") / "knowledge.jsonl"

THRESHOLD: Final = 0.375
"""Similarity under which an entry has nothing to say to a question.

Measured with MiniLM on the shipped entries and the 126 questions of tests/apps/data/questions.jsonl: of 83 paraphrases, written to share
few words with the entry they mean, 89 % reach it; of 43 questions that are not the shop's business, 12 % do. At 0.35 it is 92 and
19 %, at 0.40 83 and 9 %. A customer sent to a person in vain costs less than an answer to a question that the shop cannot answer.
"""

MARGIN: Final = 0.1
"""How far an entry may lie behind the best one and still be used: a small model confuses entries more often than it combines them."""

MOST: Final = 2
"""Entries used for one answer."""


class Entry(msgspec.Struct, frozen=True):
    """A question and what the shop answers to it; `id` is what an answer names as its source."""

    id: Annotated[str, Meta(min_length=1, max_length=64)]
    topic: str
    question: Annotated[str, Meta(min_length=1)]
    answer: Annotated[str, Meta(min_length=1)]


class Knowledge:
    """Entries and a vector for each."""

    def __init__(self, entries: list[Entry], vectors: Vectors) -> None:
        self._entries = entries
        self._vectors = vectors

    @classmethod
    async def build(cls, embedding: Embedding, entries: list[Entry]) -> Self:
        """Embed all entries."""
        questions = await embedding.embed([entry.question for entry in entries])
        wholes = await embedding.embed([f"{entry.question} {entry.answer}" for entry in entries])
        return cls(entries, (questions + wholes) * np.float32(0.5))

    def search(self, vector: Vectors) -> list[Entry]:
        """The entries that answer the question of a vector [dim], best first; none if it is not the shop's business."""
        similarity = self._vectors @ vector
        least = max(THRESHOLD, float(similarity.max()) - MARGIN)
        return [self._entries[i] for i in np.argsort(-similarity)[:MOST] if similarity[i] >= least]
