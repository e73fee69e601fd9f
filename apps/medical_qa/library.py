"""The library: passages that answers may rest on, found by meaning and by words (`retrieval.py`)."""

from pathlib import Path
from typing import Annotated, Final, NamedTuple, Self

import msgspec
import numpy as np
from msgspec import Meta

from kernos.agents import Agent
from kernos.agents.embedding import Embedding

from .kinds import Kinds, alike
from .retrieval import Index, Matrix

SHIPPED: Final = Path(__file__).with_name("data") / "library.jsonl"

THRESHOLD: Final = 0.45
"""Similarity that the best passage must have; below it the evidence is thin and nothing is answered."""

MARGIN: Final = 0.1
"""How far a passage may lie behind the best one, in similarity, and still be shown."""

MOST: Final = 2
"""Passages of one answer: a small model confuses passages more often than it combines them."""


class Passage(msgspec.Struct, frozen=True):
    """A piece of the library that can be understood by itself; `id` is what an answer cites."""

    id: Annotated[str, Meta(min_length=1, max_length=64)]
    title: Annotated[str, Meta(min_length=1, max_length=200)]
    text: Annotated[str, Meta(min_length=1, max_length=20_000)]


class Found(NamedTuple):
    """A passage, and how near in meaning it is to the question: 1 is the same."""

    passage: Passage
    similarity: float


class Library:
    """Passages and their index; with heads of kinds also the kinds of the passages."""

    def __init__(self, passages: list[Passage], encoder: str, index: Index, kinds: tuple[Kinds, Matrix] | None) -> None:
        self.passages = passages
        self._encoder = encoder
        self._index = index
        self._kinds = kinds

    @classmethod
    async def open(cls, embedding: Embedding, passages: list[Passage], kinds: Kinds | None = None) -> Self:
        """Index passages; their vectors are kept by `embedding`."""
        texts = [f"{passage.title}. {passage.text}" for passage in passages]
        vectors = await embedding.embed(texts)
        return cls(passages, embedding.model, Index(texts, vectors), (kinds, kinds.of_texts(texts, vectors)) if kinds else None)

    async def search(self, agent: Agent, question: str) -> list[Found]:
        """The passages that answer an agent's question, the best first; none where the evidence is thin. No vector of it is kept."""
        vectors = np.asarray(await agent.embed([question], model=self._encoder), dtype=np.float32)
        scores = self._index.together([question], vectors)
        if self._kinds:
            heads, texts = self._kinds
            scores = scores + alike(heads.of_questions([question], vectors), texts)
        order = np.argsort(-scores[0], kind="stable")[:MOST]
        near = self._index.by_meaning(vectors)[0]
        best = float(near[order[0]])
        if best < THRESHOLD:
            return []
        return [Found(self.passages[at], float(near[at])) for at in order if near[at] >= max(THRESHOLD, best - MARGIN)]
