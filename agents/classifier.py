"""`Classifier`: a linear head that tells the label of a text from its vector and, where that helps, from its n-grams.

    head = Classifier.fit(texts, vectors, labels, Settings(words=NGrams(1, 2)))
    chances = head.predict_proba(texts, vectors)         # float32 [len(texts), len(head.labels)], rows that add up to 1
    head.save(folder, Card("intent", "mine.csv", rows=len(texts), encoder="minilm"))
    head, card = Classifier.load(folder)

The head is multinomial logistic regression (L-BFGS, the same on every run) over the vector beside TF-IDF counts of word and character
n-grams (sublinear, each block of length one). A saved head is an artefact; see `artefact.py`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import log_softmax
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from . import artefact
from .rows import InputError

Matrix = NDArray[np.float32]

_STEPS: Final = 2_000
"""Of the optimiser, at most; it ends by itself after some hundreds."""


class NGrams(msgspec.Struct, frozen=True):
    """Which n-grams count: of `least` to `longest` words or characters, in at least `texts` texts, the `most` frequent of them."""

    least: int
    longest: int
    weight: float = 1.0
    """Beside the vector, whose weight is 1."""
    texts: int = 2
    most: int = 50_000


class Settings(msgspec.Struct, frozen=True):
    """How a head is fitted. Choose by cross-validation on the training rows alone."""

    strength: float = 10.0
    """Inverse of the regularisation (the C of scikit-learn): more follows the examples more closely."""
    words: NGrams | None = None
    characters: NGrams | None = None
    """Within words, as the `char_wb` of scikit-learn."""
    balanced: bool = False
    """Rare labels count as much as frequent ones."""


class Card(artefact.Card, frozen=True, kw_only=True):
    """What a head is: written beside it, for whoever finds it later."""

    settings: Settings = Settings()


class Classifier:
    """A fitted head. `labels` are in the order of the columns of what it predicts."""

    def __init__(self, labels: list[str], settings: Settings, blocks: "list[_Block]", coefficients: Matrix, intercepts: Matrix) -> None:
        self.labels = labels
        self.settings = settings
        self._blocks = blocks
        self._coefficients = coefficients
        self._intercepts = intercepts

    @classmethod
    def fit(cls, texts: Sequence[str], vectors: Matrix, labels: Sequence[str], settings: Settings = Settings()) -> Self:  # noqa: B008
        """A head for labelled texts and their vectors [len(texts), dim]; `InputError` unless there are two labels."""
        if len(set(labels)) < 2:
            raise InputError(f"A head needs rows of at least two labels to tell apart; these {len(labels)} rows have {len(set(labels))}.")
        blocks = [_Block.fit(analyzer, grams, texts) for analyzer, grams in _wanted(settings)]
        model: Any = LogisticRegression(C=settings.strength, max_iter=_STEPS, class_weight="balanced" if settings.balanced else None)
        with threadpool_limits(limits=1):  # the other cores are for the models; and small sums on many threads take longer
            model.fit(_features(blocks, texts, vectors), list(labels))
        coefficients, intercepts = model.coef_, model.intercept_
        if len(model.classes_) == 2:  # one row tells the second label from the first
            coefficients, intercepts = np.vstack([0 * coefficients, coefficients]), np.array([0.0, *intercepts])
        names = [str(label) for label in model.classes_]
        # Rounded here as when it is saved, so that a head says the same before and after.
        return cls(names, settings, blocks, coefficients.astype(np.float16).astype(np.float32), intercepts.astype(np.float32))

    def logits(self, texts: Sequence[str], vectors: Matrix) -> Matrix:
        """Scores [len(texts), len(labels)] before they are made probabilities."""
        scores = _features(self._blocks, texts, vectors) @ self._coefficients.T + self._intercepts
        return np.asarray(scores, dtype=np.float32)

    def predict_proba(self, texts: Sequence[str], vectors: Matrix) -> Matrix:
        """The probability of each label [len(texts), len(labels)]."""
        return np.asarray(np.exp(log_softmax(self.logits(texts, vectors), axis=1)), dtype=np.float32)

    def predict(self, texts: Sequence[str], vectors: Matrix) -> list[str]:
        """The most probable label of each text."""
        return [self.labels[at] for at in self.logits(texts, vectors).argmax(axis=1)]

    def save(self, folder: Path, card: Card) -> Card:
        """Keep the head in a folder, in place of what was there; the card as it was written."""
        numbers: dict[str, Any] = {"coefficients": self._coefficients.astype(np.float16), "intercepts": self._intercepts}
        for number, block in enumerate(self._blocks):
            numbers |= {f"terms_{number}": artefact.as_array(block.terms), f"idf_{number}": block.idf}
        return artefact.save(folder, msgspec.structs.replace(card, labels=self.labels, settings=self.settings), numbers)

    @classmethod
    def load(cls, folder: Path) -> tuple[Self, Card]:
        """The head in a folder and its card; `InputError` if there is none, or it is damaged."""
        card, numbers = artefact.load(folder, Card)
        blocks = [
            _Block(analyzer, grams, artefact.as_words(numbers[f"terms_{at}"]), numbers[f"idf_{at}"])
            for at, (analyzer, grams) in enumerate(_wanted(card.settings))
        ]
        return cls(card.labels, card.settings, blocks, numbers["coefficients"].astype(np.float32), numbers["intercepts"]), card


class _Block:
    """The TF-IDF counts of one kind of n-grams."""

    def __init__(self, analyzer: str, grams: NGrams, terms: list[str], idf: NDArray[np.float64]) -> None:
        self.terms = terms
        self.idf = idf
        self._weight = grams.weight
        self._vectorizer = _vectorizer(analyzer, grams, vocabulary=terms)
        self._vectorizer.idf_ = idf

    @classmethod
    def fit(cls, analyzer: str, grams: NGrams, texts: Sequence[str]) -> Self:
        try:
            fitted = _vectorizer(analyzer, grams).fit(texts)
        except ValueError as error:
            raise InputError(f"These {len(texts)} texts are too few or too short to count n-grams in: {error}") from None
        return cls(analyzer, grams, [str(term) for term in fitted.get_feature_names_out()], fitted.idf_)

    def count(self, texts: Sequence[str]) -> Any:
        """A sparse matrix [len(texts), len(terms)], each row of the length `weight`."""
        return self._vectorizer.transform(texts) * self._weight


def _vectorizer(analyzer: str, grams: NGrams, vocabulary: list[str] | None = None) -> Any:
    make: Any = TfidfVectorizer  # its own annotations know no other type of numbers than its default
    return make(
        analyzer=analyzer,
        ngram_range=(grams.least, grams.longest),
        min_df=grams.texts,
        max_features=grams.most,
        sublinear_tf=True,
        strip_accents="unicode",
        vocabulary=vocabulary,
        dtype=np.float32,
    )


def _wanted(settings: Settings) -> list[tuple[str, NGrams]]:
    kinds = (("word", settings.words), ("char_wb", settings.characters))
    return [(analyzer, grams) for analyzer, grams in kinds if grams is not None]


def _features(blocks: list[_Block], texts: Sequence[str], vectors: Matrix) -> Any:
    """Vectors and counts side by side; without counts the vectors as they are, which is much quicker."""
    return sparse.hstack([sparse.csr_array(vectors), *(block.count(texts) for block in blocks)], format="csr") if blocks else vectors
