"""What recall keeps in memory of each branch: where its pages are, how long, whose, and their vectors. Caches under one budget of bytes.

A shelf is made from rows when it is first needed and the one not used for longest goes first. A context reads the shelves of the branches
it is made of, so forks share them.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .keywords import Entry, common, holders
from .terms import Language
from .vectors import VectorIndex, Vectors

if TYPE_CHECKING:
    from sqlite3 import Connection

_OVERHEAD: Final = 6_144
"""Bytes of the objects of a shelf besides their arrays, and of what the allocator cannot use between them."""
_AUTHORS: Final = 32_000
"""Names of a shelf; pages of later ones have no author."""
_COMMON: Final = 1_000
"""Who holds a term that stands on more pages is remembered: to read 10,000 takes 1 ms, and common words are asked for all the time."""
_REMEMBERED: Final = 0.25
"""Memory for this, as a share of that of the places and vectors."""


class Places(NamedTuple):
    """Pages side by side: a column for each thing that is known of them."""

    page: NDArray[np.int64]
    seq: NDArray[np.int32]
    length: NDArray[np.int32]
    author: NDArray[np.int16]
    """A number that the shelf has given the name."""

    @classmethod
    def of(cls, rows: Sequence[tuple[int, int, int, int]]) -> "Places":
        """Columns of rows."""
        page, seq, length, author = zip(*rows, strict=True) if rows else ((), (), (), ())
        return cls(np.array(page, np.int64), np.array(seq, np.int32), np.array(length, np.int32), np.array(author, np.int16))

    def choose(self, which: Any) -> "Places":
        """Those that a slice, a mask or an array of places names."""
        return Places(self.page[which], self.seq[which], self.length[which], self.author[which])

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return sum(column.nbytes for column in self)


def joined(parts: Sequence[Places]) -> Places:
    """Places one behind the other."""
    if len(parts) == 1:
        return parts[0]
    every = [Places.of([]), *parts]
    return Places(
        np.concatenate([part.page for part in every]),
        np.concatenate([part.seq for part in every]),
        np.concatenate([part.length for part in every]),
        np.concatenate([part.author for part in every]),
    )


@dataclass
class Shelf:
    """The pages of a branch in order, and the vectors of those that have one."""

    vectors: VectorIndex
    places: Places = field(default_factory=lambda: Places.of([]))
    authors: list[str] = field(default_factory=list)
    """Names; `places` has their numbers."""
    languages: set[Language] = field(default_factory=set)
    _numbers: dict[str, int] = field(default_factory=dict)
    _common: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    """Who holds a term, of the first pages: those that were there when it was asked for last."""

    @classmethod
    def of(cls, entries: Sequence[Entry], pages: NDArray[np.int64], vectors: Vectors) -> "Shelf":
        """A shelf of pages; `vectors` [n, dim] are those of `pages` [n]: a page may have several, which stand together."""
        shelf = cls(VectorIndex(pages, vectors))
        shelf.add(entries)
        return shelf

    def add(self, entries: Sequence[Entry]) -> None:
        """Put new pages where they belong: nearly always at the end. Those that are here already are passed over."""
        known = np.isin([entry.page for entry in entries], self.places.page)
        entries = [entry for entry, here in zip(entries, known, strict=True) if not here]
        rows = [(entry.page, entry.seq, entry.length, self._number(entry.author)) for entry in entries]
        self.places = joined([self.places, Places.of(rows)])
        self.languages.update(entry.language for entry in entries)
        if np.any(self.places.seq[1:] < self.places.seq[:-1]):
            self.places = self.places.choose(np.lexsort((self.places.page, self.places.seq)))
            self._common.clear()

    def remove(self, pages: NDArray[np.int64]) -> None:
        """Forget pages; those that are not here are passed over."""
        self.places = self.places.choose(~np.isin(self.places.page, pages))
        self._common.clear()
        self.vectors.remove(pages)

    def learn(self, connection: "Connection", branch: int) -> None:
        """Remember the common terms of this branch, so that the first to ask for them do not wait for each."""
        if len(self.places.page) > _COMMON:
            for term in common(connection, branch, _COMMON):
                self.holders(connection, branch, term)

    def holders(self, connection: "Connection", branch: int, term: str) -> NDArray[np.bool_]:
        """Which pages of this branch hold a term, in the order of the pages."""
        held = self._common.get(term, np.empty(0, np.bool_))
        new = self.places.page[len(held) :]
        if len(new):
            held = np.concatenate([held, np.isin(new, holders(connection, branch, term, int(new.min())))])
            if np.count_nonzero(held) > _COMMON:
                self._remember(term, held)
        return held

    def _remember(self, term: str, held: NDArray[np.bool_]) -> None:
        self._common[term] = held
        room = _REMEMBERED * (self.vectors.nbytes + self.places.nbytes)
        while self._common and len(self._common) * len(held) > room:
            del self._common[next(iter(self._common))]

    @property
    def nbytes(self) -> int:
        """Bytes of memory, about."""
        return self.vectors.nbytes + self.places.nbytes + sum(held.nbytes for held in self._common.values()) + _OVERHEAD

    def number_of(self, author: str) -> int:
        """The number of a name, -1 if nobody here has it."""
        return self._numbers.get(author, -1)

    def _number(self, author: str) -> int:
        if author not in self._numbers and len(self.authors) == _AUTHORS:
            author = ""
        if author not in self._numbers:
            self._numbers[author] = len(self.authors)
            self.authors.append(author)
        return self._numbers[author]


def places_of(pages: NDArray[np.int64], among: NDArray[np.int64]) -> NDArray[np.intp]:
    """Where pages stand among others, -1 for those that do not."""
    if not len(among):
        return np.full(len(pages), -1, np.intp)
    order = None if np.all(among[1:] > among[:-1]) else np.argsort(among)  # what leaves in order has its ids in order
    at = np.minimum(np.searchsorted(among, pages, sorter=order), len(among) - 1)
    at = at if order is None else order[at]
    return np.where(among[at] == pages, at, -1)


class Shelves:
    """The shelves in memory, by branch."""

    def __init__(self, load: Callable[[int], Shelf], budget: int) -> None:
        """`load` makes the shelf of a branch from its rows; `budget` is in bytes."""
        self._load = load
        self._budget = budget
        self._shelves: OrderedDict[int, Shelf] = OrderedDict()
        self._sizes: dict[int, int] = {}
        self.bytes = 0

    def __contains__(self, branch: int) -> bool:
        return branch in self._shelves

    def get(self, branch: int) -> Shelf:
        """The shelf of a branch. One that is larger than the whole budget serves this once."""
        shelf = self._shelves.get(branch) or self._load(branch)
        self._shelves[branch] = shelf
        self._shelves.move_to_end(branch)
        self._weigh(branch, shelf)
        return shelf

    def add(self, branch: int, entries: Sequence[Entry]) -> None:
        """New pages of a branch. One that is not in memory will have them when it is loaded."""
        if shelf := self._shelves.get(branch):
            shelf.add(entries)
            self._weigh(branch, shelf)

    def embed(self, branch: int, pages: NDArray[np.int64], vectors: Vectors) -> None:
        """New vectors of a branch."""
        if shelf := self._shelves.get(branch):
            shelf.vectors.add(pages, vectors)
            self._weigh(branch, shelf)
            if shelf.vectors.crowded:
                self.drop(branch)

    def remove(self, branch: int, pages: NDArray[np.int64]) -> None:
        """Forget pages of a branch, because their rows were deleted."""
        if shelf := self._shelves.get(branch):
            shelf.remove(pages)
            self._weigh(branch, shelf)

    def drop(self, branch: int) -> None:
        """Forget a branch, because it is gone or was embedded by another model."""
        if self._shelves.pop(branch, None):
            self.bytes -= self._sizes.pop(branch)

    def _weigh(self, branch: int, shelf: Shelf) -> None:
        """Count its bytes anew, and let go what no longer fits."""
        size = shelf.nbytes
        self.bytes += size - self._sizes.get(branch, 0)
        self._sizes[branch] = size
        while self.bytes > self._budget:
            self.drop(next(iter(self._shelves)))
