"""The vectors of one branch's pages, to be searched by inner product. A cache: the rows of the database are the truth.

A page has a vector for each of its sentences, next to each other, and the nearest of them stands for the page.

A byte a number, half of what the rows hold: a search is as quick as its vectors can be read, and similarities are right to 0.003, where
those of pages differ by 0.1. A flat index up to `FLAT` vectors; from there inverted lists, where a search looks at an eighth of them. New
vectors wait in a small block beside the index, because an index that grew would hold room to grow on.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float16]
"""[n, dim], each of length one."""
Codes = NDArray[np.uint8]
"""The same as faiss holds them: a number is `_ONE` times as large, and `_ZERO` more."""

FLAT: Final = 50_000
"""Vectors of a flat index at most: 2 ms a search. Beyond, lists find 98 of the 100 nearest in 0.5 ms."""
ALL: Final = 4_000
"""Up to here all similarities are returned, beyond only the `NEAREST`: faiss sorts them, which takes longer than comparing."""
NEAREST: Final = 1_000
_SAMPLE: Final = 256
"""Pages that stand for all when what is usual is estimated: its deviation is then right to 5 %."""
_WAITING: Final = 64
"""Vectors that may wait beside the index, or a sixteenth of it if that is more."""
_ONE, _ZERO = np.float32(127), np.float32(128)
_CODED: Final = 4_096
"""Vectors that are coded at a time, as they are in full precision meanwhile."""


@dataclass(frozen=True)
class Moments:
    """What is usual among similarities: how many there are, their mean and their variance."""

    count: int
    mean: float
    variance: float

    @classmethod
    def of(cls, scores: NDArray[np.float32], count: int) -> "Moments":
        """Those of `count` scores, of which some are given."""
        return cls(count, float(scores.mean()), float(scores.var())) if len(scores) else cls(0, 0.0, 0.0)


def together(parts: Sequence[Moments]) -> tuple[float, float]:
    """Mean and standard deviation of all; the deviation of what does not vary is 1."""
    count = sum(part.count for part in parts) or 1
    mean = sum(part.count * part.mean for part in parts) / count
    variance = sum(part.count * (part.variance + (part.mean - mean) ** 2) for part in parts) / count
    return mean, math.sqrt(variance) if variance > 1e-9 else 1.0


@dataclass(frozen=True)
class Similarities:
    """How near pages are to a query: those that were looked at, each once, and what is usual among all."""

    pages: NDArray[np.int64]
    scores: NDArray[np.float32]
    usual: Moments
    complete: bool
    """All were looked at."""


class VectorIndex:
    """Vectors by page."""

    def __init__(self, pages: NDArray[np.int64], vectors: Vectors) -> None:
        """Building is quick while it is flat (4 ms for 10,000); lists take a second and more, so build large ones off the loop."""
        self._index: Any = None
        self._indexed = np.empty(0, np.int64)
        self._lists = len(pages) > FLAT
        self._built = len(pages)
        self._waiting, self._waiting_pages = _coded(vectors), pages
        self._sample: Codes = self._waiting[:0].copy()  # a view would keep all of them
        self._sample_pages = pages[:0].copy()
        if len(pages):
            self._merge()

    def __len__(self) -> int:
        """Vectors."""
        return len(self._indexed) + len(self._waiting_pages)

    @property
    def nbytes(self) -> int:
        """Bytes of memory, about."""
        ids = 8 * len(self) * (2 if self._lists else 1)
        return int(len(self) * self._waiting.shape[1] + ids + self._sample.nbytes)

    @property
    def crowded(self) -> bool:
        """It has outgrown what it was built for, and should be built anew."""
        return len(self) > max(FLAT, 4 * self._built if self._lists else 0)

    def add(self, pages: NDArray[np.int64], vectors: Vectors) -> None:
        """Add the vectors of new pages; those that are here already are passed over."""
        new = ~np.isin(pages, self._indexed) & ~np.isin(pages, self._waiting_pages)
        pages, codes = pages[new], _coded(vectors[new])
        self._waiting = np.concatenate([self._waiting, codes]) if len(self._waiting) else codes
        self._waiting_pages = np.concatenate([self._waiting_pages, pages])
        if len(self._waiting_pages) > max(_WAITING, len(self._indexed) // 16):
            self._merge()

    def remove(self, pages: NDArray[np.int64]) -> None:
        """Forget pages; those that are not here are passed over."""
        keep = ~np.isin(self._waiting_pages, pages)
        self._waiting, self._waiting_pages = self._waiting[keep], self._waiting_pages[keep]
        gone = np.isin(self._indexed, pages)
        if gone.any():
            self._index.remove_ids(self._indexed[gone] if self._lists else np.flatnonzero(gone))
            self._indexed = self._indexed[~gone]

    def compare(self, query: NDArray[np.float32]) -> Similarities:
        """Inner products with a query of length one."""
        pages, scores = self._search(query)
        if len(self._waiting):
            pages = np.concatenate([pages, self._waiting_pages])
            scores = np.concatenate([scores, _products(self._waiting, query)])
        complete = len(pages) == len(self)
        pages, scores = _nearest(pages, scores)
        if complete:
            return Similarities(pages, scores, Moments.of(scores, len(pages)), complete)
        usual = _nearest(self._sample_pages, _products(self._sample, query))[1]
        return Similarities(pages, scores, Moments.of(usual, len(self) * len(usual) // len(self._sample)), complete)

    def _search(self, query: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        indexed = len(self._indexed)
        if not indexed:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        sharp = 127 / max(float(np.abs(query).max()), 1e-9)  # faiss rounds a query to bytes too, towards zero
        scores, found = self._index.search(np.rint(query * sharp)[None], indexed if indexed <= ALL else NEAREST)
        there = found[0] >= 0  # the lists that were looked at may hold fewer
        found, scores = found[0][there], scores[0][there] / (sharp * _ONE)
        return (found if self._lists else self._indexed[found]), scores

    def _merge(self) -> None:
        if self._lists:
            self._merge_into_lists()
        else:
            old = self._waiting[:0] if self._index is None else _codes_of(self._index)
            self._index = _flat(np.concatenate([old, self._waiting]))
        self._indexed = np.concatenate([self._indexed, self._waiting_pages])
        self._waiting, self._waiting_pages = self._waiting[:0].copy(), self._waiting_pages[:0].copy()
        if len(self._indexed) > ALL and not self._lists:
            self._draw(self._indexed, _codes_of(self._index))

    def _draw(self, pages: NDArray[np.int64], codes: Codes) -> None:
        """Let some pages stand for all."""
        chosen = np.isin(pages, np.random.default_rng(0).permutation(np.unique(pages))[:_SAMPLE])
        self._sample, self._sample_pages = codes[chosen], pages[chosen]

    def _merge_into_lists(self) -> None:
        new = self._waiting.astype(np.float32) - _ZERO
        if self._index is None:
            self._index = _lists(new)
            self._draw(self._waiting_pages, self._waiting)  # of all there are: lists cannot be read by place later
        self._index.add_with_ids(new, self._waiting_pages)
        self._index = _faiss().clone_index(self._index)  # a copy has no spare room


@cache
def _faiss() -> Any:
    import faiss  # takes 0.4 s, so when first needed

    faiss.omp_set_num_threads(1)  # one query is too little to share, and waiting for a busy core costs ten times the search
    return faiss


def _nearest(pages: NDArray[np.int64], scores: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Each page once, with the best of its scores."""
    every, at = np.unique(pages, return_inverse=True)
    best = np.full(len(every), -np.inf, np.float32)
    np.maximum.at(best, at, scores)
    return every, best


def _coded(vectors: Vectors) -> Codes:
    """Vectors as they are held."""
    codes = np.empty(vectors.shape, np.uint8)
    for start in range(0, len(vectors), _CODED):
        codes[start : start + _CODED] = np.rint(vectors[start : start + _CODED] * _ONE) + _ZERO
    return codes


def _products(codes: Codes, query: NDArray[np.float32]) -> NDArray[np.float32]:
    """Inner products of vectors with a query."""
    products: NDArray[np.float32] = (codes.astype(np.float32) @ query - _ZERO * query.sum()) / _ONE
    return products


def _flat(codes: Codes) -> Any:
    """A flat index. Its codes are put in as they are; `add` would want them in full precision, four times the memory on the way."""
    faiss = _faiss()
    index = faiss.IndexScalarQuantizer(codes.shape[1], faiss.ScalarQuantizer.QT_8bit_direct_signed, faiss.METRIC_INNER_PRODUCT)
    faiss.copy_array_to_vector(codes.ravel(), index.codes)
    index.ntotal = len(codes)
    return index


def _codes_of(flat: Any) -> Codes:
    """The codes of a flat index, in its own memory."""
    codes: Codes = _faiss().rev_swig_ptr(flat.codes.data(), flat.ntotal * flat.code_size)
    return codes.reshape(flat.ntotal, flat.d)


def _lists(vectors: NDArray[np.float32]) -> Any:
    """Empty inverted lists, as many as the root of the vectors' number, around centres fit for these."""
    faiss = _faiss()
    count, dim = int(len(vectors) ** 0.5), vectors.shape[1]
    index = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(dim), dim, count, faiss.ScalarQuantizer.QT_8bit_direct_signed, faiss.METRIC_INNER_PRODUCT, False
    )
    index.cp.niter, index.cp.min_points_per_centroid = 8, 1
    index.nprobe = max(8, count // 8)
    index.train(vectors[np.random.default_rng(0).permutation(len(vectors))[: 40 * count]])
    return index
