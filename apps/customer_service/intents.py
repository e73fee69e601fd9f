"""What a customer wants, and whether it is the shop's business at all: both learned from examples.

The intent is told by a linear head over the vector of the text and its words. How familiar a text is shows in two things: how sure the
head is of an intent, and how near the ten most similar examples are. Each is measured in standard deviations of what texts scored that
the head had not seen (3 folds), and the two count alike. `in_scope` is what 95 % of those texts reach.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, NamedTuple, Self

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from kernos.agents import Agent, artefact
from kernos.agents.classifier import Card, Classifier, Matrix, NGrams, Settings
from kernos.agents.embedding import Embedding, Vectors
from kernos.agents.rows import InputError, read_rows

SHIPPED: Final = Path(__file__).with_name("data") / "intents.csv"

ORDER_STATUS: Final = "order_status"
REFUND_REQUEST: Final = "refund_request"
"""Intents that the desk acts on by a tool, where examples teach them; all others are for the knowledge base."""

SETTINGS: Final = Settings(strength=30.0, words=NGrams(1, 2, weight=0.7), characters=NGrams(2, 4, weight=0.7, texts=5))
"""Chosen on a fifth of the training rows of banking77 that was left out."""

SETTINGS_OF_FEW: Final = Settings(strength=10.0)
MANY: Final = 1_000
"""Examples from which on n-grams are counted: fewer hold too few that come up twice."""

NEAREST: Final = 10
FOLDS: Final = 3
REFUSED: Final = 0.05
"""Share of the shop's own questions that may be taken for strangers."""

_HEAD: Final = Path("intents", "head")
_SCOPE: Final = Path("intents", "scope")


class Text(msgspec.Struct, frozen=True):
    """Something a customer wrote."""

    text: Annotated[str, Meta(min_length=1, max_length=4_000)]


class Example(Text, frozen=True):
    """The same, and what it was about."""

    intent: Annotated[str, Meta(min_length=1, max_length=64)]


class Route(NamedTuple):
    """What a text was taken for."""

    intent: str
    chance: float
    """Of the intent, if it is one of those known."""
    familiarity: float
    """In standard deviations, 0 for the average of what customers ask."""
    in_scope: bool


class ScopeCard(artefact.Card, frozen=True, kw_only=True):
    """Of a scope that is kept."""

    head: str
    """The weights of the head that it goes with."""


class Scope:
    """Tells what is like the examples from what is not. `examples` are their vectors [rows, dim]."""

    def __init__(self, examples: Vectors, centre: Matrix, spread: Matrix, threshold: float) -> None:
        self.examples = examples
        self.centre = centre
        self.spread = spread
        self.threshold = threshold

    @classmethod
    def fit(cls, examples: Vectors, unseen: Matrix) -> Self:
        """By the evidence [rows, 2] of examples that the head had not seen."""
        scope = cls(examples, unseen.mean(axis=0), unseen.std(axis=0) + np.float32(1e-6), 0.0)
        scope.threshold = float(np.quantile(scope._total(unseen), REFUSED))
        return scope

    def familiarity(self, vectors: Vectors, chances: Matrix) -> Matrix:
        """How familiar texts are [rows], by their vectors and what the head makes of them."""
        return self._total(evidence(vectors, chances, self.examples))

    def _total(self, found: Matrix) -> Matrix:
        return np.asarray(((found - self.centre) / self.spread).mean(axis=1), dtype=np.float32)


def evidence(vectors: Vectors, chances: Matrix, examples: Vectors) -> Matrix:
    """How sure the head is, and the mean similarity of the nearest examples [rows, 2]."""
    similarity = vectors @ examples.T
    nearest = np.partition(similarity, -min(NEAREST, len(examples)), axis=1)[:, -NEAREST:]
    return np.stack([chances.max(axis=1), nearest.mean(axis=1)], axis=1)


class Intents:
    """The head and its scope, fitted on the same examples."""

    def __init__(self, head: Classifier, scope: Scope) -> None:
        self.head = head
        self.scope = scope

    @classmethod
    def fit(cls, texts: Sequence[str], vectors: Vectors, intents: Sequence[str]) -> tuple[Self, float]:
        """Learn from examples; also the accuracy on those that were left out in turn. `InputError` if an intent has one example."""
        found, right = _unseen(texts, vectors, intents)
        return cls(Classifier.fit(texts, vectors, intents, settings_for(len(texts))), Scope.fit(vectors, found)), right

    @classmethod
    async def load(cls, embedding: Embedding, folder: Path) -> Self:
        """What was trained last and kept in the app's folder; else learned from the shipped examples, in a second."""
        if (folder / _HEAD).exists():
            return cls._read(folder)
        rows = read_rows(SHIPPED, Example).rows
        texts = [row.text for row in rows]
        return cls.fit(texts, await embedding.embed(texts), [row.intent for row in rows])[0]

    @classmethod
    def _read(cls, folder: Path) -> Self:
        head, card = Classifier.load(folder / _HEAD)
        scope, numbers = artefact.load(folder / _SCOPE, ScopeCard)
        if scope.head != card.weights:
            raise InputError(f"{folder / _SCOPE} belongs to another head than {folder / _HEAD}. Train again.")
        examples = numbers["examples"].astype(np.float32)
        return cls(head, Scope(examples, numbers["centre"], numbers["spread"], float(numbers["threshold"])))

    def save(self, folder: Path, card: Card) -> Card:
        """Keep both in the app's folder."""
        written = self.head.save(folder / _HEAD, card)
        scope = ScopeCard(task="scope", data=card.data, rows=card.rows, encoder=card.encoder, head=written.weights)
        numbers = {"centre": self.scope.centre, "spread": self.scope.spread, "threshold": np.array(self.scope.threshold)}
        artefact.save(folder / _SCOPE, scope, numbers | {"examples": self.scope.examples.astype(np.float16)})
        return written

    def routes(self, texts: Sequence[str], vectors: Vectors) -> list[Route]:
        """What each text is taken for; `vectors` are [len(texts), dim]."""
        chances = self.head.predict_proba(texts, vectors)
        familiar = self.scope.familiarity(vectors, chances)
        return [
            Route(self.head.labels[int(row.argmax())], float(row.max()), float(score), bool(score >= self.scope.threshold))
            for row, score in zip(chances, familiar, strict=True)
        ]


async def train(agent: Agent, examples: Sequence[Example], data: str, folder: Path) -> Card:
    """Learn intents from examples, and keep them for the desk; the card says how well examples were told that were left out in turn."""
    embedding = await Embedding.open(agent, folder / "vectors")
    texts, intents = [example.text for example in examples], [example.intent for example in examples]
    fitted, right = Intents.fit(texts, await embedding.embed(texts), intents)
    figures = {"accuracy_on_examples_left_out": right}
    return fitted.save(folder, Card(task="intents", data=data, rows=len(texts), encoder=embedding.model, figures=figures))


async def route_all(agent: Agent, texts: Sequence[str], folder: Path) -> list[Route]:
    """What each text is taken for, by what was trained last."""
    embedding = await Embedding.open(agent, folder / "vectors")
    return (await Intents.load(embedding, folder)).routes(texts, await embedding.embed(texts))


def settings_for(examples: int) -> Settings:
    """How a head is fitted on so many examples."""
    return SETTINGS if examples >= MANY else SETTINGS_OF_FEW


def _unseen(texts: Sequence[str], vectors: Vectors, intents: Sequence[str]) -> tuple[Matrix, float]:
    """The evidence of each example by a head that had not seen it, and how many of them that head told right."""
    names = np.asarray(intents)
    counts = dict(zip(*np.unique(names, return_counts=True), strict=True))
    if few := [str(name) for name, count in counts.items() if count < 2]:
        raise InputError(f"One example is not enough to learn from. Give at least two of: {', '.join(few[:5])}.")
    found, right = np.empty((len(texts), 2), dtype=np.float32), np.empty(len(texts), dtype=bool)
    folds = StratifiedKFold(min(FOLDS, *counts.values()), shuffle=True, random_state=0)
    for kept, left in folds.split(vectors, names):
        head = Classifier.fit(_chosen(texts, kept), vectors[kept], _chosen(intents, kept), settings_for(len(texts)))
        chances = head.predict_proba(_chosen(texts, left), vectors[left])
        found[left] = evidence(vectors[left], chances, vectors[kept])
        right[left] = np.asarray(head.labels)[chances.argmax(axis=1)] == names[left]
    return found, float(right.mean())


def _chosen(values: Sequence[str], places: "NDArray[np.intp]") -> list[str]:
    return [values[int(place)] for place in places]
