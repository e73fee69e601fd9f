"""Finding texts by meaning and by words at once.

Meaning is the similarity of vectors, words are BM25; each is taken in standard deviations above what is usual for the question, so that
they can be added. Words count little: where questions name a disease, every text on it has the word, and the sum of equals was worse than
meaning alone (recall@1 0.60 against 0.65 on a thousand pairs of MedQuAD; with this weight and `kinds.py` it was 0.75).
"""

import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer

Matrix = NDArray[np.float32]

_SATURATION: Final = 0.5
"""BM25's k1: a word said twice is hardly more than a word said once."""
_LENGTH: Final = 0.4
"""BM25's b: long texts are held back a little."""

WORDS: Final = 0.2
"""What a standard deviation in words counts of one in meaning."""

_WORD: Final = re.compile(r"[a-z0-9]+")
_ENDINGS: Final = ("ies", "es", "s", "ing", "ed", "ly")
_COMMON: Final = frozenset(
    """a about am an and are as at be been being but by can could did do does for from had has have he her hers him his how i if in into is
    it its me my no not of on or our s she should so t that the their them then there these they this to was we were what when where which
    who whom why will with would you your""".split()  # noqa: SIM905
)


class Index:
    """Texts with their vectors, float32 [texts, dim] of length one."""

    def __init__(self, texts: Sequence[str], vectors: Matrix) -> None:
        self._vectors = vectors
        make: Any = CountVectorizer  # its own annotations know no analyzer that is a function
        self._counter = make(analyzer=terms)
        self._words = _weighted(self._counter.fit_transform(texts))

    def by_meaning(self, vectors: Matrix) -> Matrix:
        """Similarities [questions, texts] to the vectors of questions."""
        return vectors @ self._vectors.T

    def by_words(self, questions: Sequence[str]) -> Matrix:
        """BM25 [questions, texts]."""
        asked = self._counter.transform(questions)
        asked.data[:] = 1
        return np.asarray((asked @ self._words.T).toarray(), dtype=np.float32)

    def together(self, questions: Sequence[str], vectors: Matrix) -> Matrix:
        """Both, in standard deviations [questions, texts]."""
        together = deviations(self.by_meaning(vectors)) + WORDS * deviations(self.by_words(questions))
        return together.astype(np.float32)


def terms(text: str) -> list[str]:
    """The words of a text without common ones and endings."""
    return [_stem(word) for word in _WORD.findall(text.lower()) if word not in _COMMON]


def deviations(scores: Matrix) -> Matrix:
    """Each row in standard deviations above its mean."""
    spread = scores.std(axis=1, keepdims=True)
    return np.asarray((scores - scores.mean(axis=1, keepdims=True)) / np.maximum(spread, 1e-6), dtype=np.float32)


def _stem(word: str) -> str:
    return next((word[: -len(end)] for end in _ENDINGS if word.endswith(end) and len(word) - len(end) >= 4), word)


def _weighted(counts: Any) -> Any:
    """The BM25 weight of each word in each text, sparse [texts, words]."""
    lengths = np.asarray(counts.sum(axis=1)).ravel()
    having = np.asarray((counts > 0).sum(axis=0)).ravel()
    rarity = np.log(1 + (len(lengths) - having + 0.5) / (having + 0.5))
    found = counts.tocoo()
    held_back = _SATURATION * (1 - _LENGTH + _LENGTH * lengths[found.row] / max(lengths.mean(), 1))
    weights = found.data * (_SATURATION + 1) / (found.data + held_back) * rarity[found.col]
    return sparse.csr_matrix((weights.astype(np.float32), (found.row, found.col)), found.shape)
