"""Kinds of questions: "What causes …?" wants a text about causes, not any text about the disease.

Two heads tell the kind of a question and the kind of question that a text answers; how likely both are the same is one more reason for a
text, beside meaning and words, which cannot tell the texts on one disease apart. They are trained on questions, answers and kinds of
others (`train`), such as MedQuAD with its column `qtype`; without them the library is searched by meaning and words.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Self

import msgspec
import numpy as np
from msgspec import Meta

from kernos.agents.classifier import Card, Classifier, Matrix, NGrams, Settings
from kernos.agents.rows import InputError

_QUESTIONS: Final = Settings(strength=10.0)
_TEXTS: Final = Settings(strength=10.0, words=NGrams(1, 2, texts=3, most=8_000))
_DOUBT: Final = 0.01
"""Added to each chance: no text is out of the question because a head is sure."""


class Pair(msgspec.Struct, frozen=True):
    """A question, a text that answers it, and its kind; `focus` is what it is about, where that is known."""

    question: Annotated[str, Meta(min_length=1)]
    answer: Annotated[str, Meta(min_length=1)]
    qtype: str = ""
    focus: str = ""


class Kinds:
    """The two heads."""

    def __init__(self, questions: Classifier, texts: Classifier) -> None:
        self._questions = questions
        self._texts = texts

    @classmethod
    def fit(cls, pairs: Sequence[Pair], questions: Matrix, texts: Matrix) -> Self:
        """Learn from pairs and the vectors of both sides [len(pairs), dim]; `InputError` unless they are of two kinds."""
        kinds = [pair.qtype for pair in pairs]
        return cls(
            Classifier.fit([pair.question for pair in pairs], questions, kinds, _QUESTIONS),
            Classifier.fit([pair.answer for pair in pairs], texts, kinds, _TEXTS),
        )

    @property
    def labels(self) -> list[str]:
        """The kinds, in the order of the columns."""
        return self._questions.labels

    def of_questions(self, questions: Sequence[str], vectors: Matrix) -> Matrix:
        """The chance of each kind [len(questions), kinds]."""
        return self._questions.predict_proba(questions, vectors)

    def of_texts(self, texts: Sequence[str], vectors: Matrix) -> Matrix:
        """The chance that a text answers questions of each kind [len(texts), kinds]."""
        return self._texts.predict_proba(texts, vectors)

    def save(self, folder: Path, card: Card) -> None:
        """Keep both heads."""
        self._questions.save(folder / "questions", card)
        self._texts.save(folder / "texts", card)

    @classmethod
    def load(cls, folder: Path, encoder: str) -> Self:
        """The heads in a folder; `InputError` if there are none, or they were trained with another encoder than this."""
        questions, card = Classifier.load(folder / "questions")
        if card.encoder != encoder:
            raise InputError(f"The heads in {folder} were trained with the encoder {card.encoder}, this is {encoder}. Train them again.")
        return cls(questions, Classifier.load(folder / "texts")[0])


def alike(questions: Matrix, texts: Matrix) -> Matrix:
    """The logarithm of the chance that question and text are of one kind [questions, texts]."""
    return np.asarray(np.log(questions @ texts.T + _DOUBT), dtype=np.float32)
