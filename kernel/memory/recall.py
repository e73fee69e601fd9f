"""Recall in the database's contexts: the pages that have to do with a question, and what is kept in memory to find them quickly.

Everything here runs in the threads that read, one at a time under a lock that is taken before the first row is read: so what is in memory
never misses a change that was told of (`added`, `embedded`), and what it has heard of already does it no harm to hear again.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from threading import Lock
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from kernos.syscalls.context import Source
from kernos.syscalls.model import Role

from . import filestore, keywords, library, window
from .branches import reach
from .connection import Connection
from .keywords import Entry
from .library import Change, Passage
from .ranking import Reach, Recalled
from .shelves import Shelf, Shelves
from .transcripts import ContextRow, find
from .window import Made, PageText

Vector = NDArray[np.float32] | None


class Found(NamedTuple):
    """A page that was recalled: what it says, of which message, and its points."""

    context: str
    seq: int
    role: Role
    text: str
    time: float
    labels: str
    points: Recalled
    source: Source | None = None
    """Of a summary, whose `seq` is the first of them."""


class Ranked(Protocol):
    """Something that was ranked."""

    @property
    def points(self) -> Recalled:
        """Its points."""
        ...


R = TypeVar("R", bound=Ranked)


class Memory:
    """What contexts have let go and can recall. `model` makes the vectors, of `dim` numbers; what is held of them fits `budget` bytes."""

    def __init__(self, model: str, dim: int, budget: int) -> None:
        self.model = model
        self._dim = max(dim, 1)
        self._lock = Lock()
        self._connection: Connection
        self._shelves = Shelves(self._load, budget)

    def topic(self, connection: Connection, actor: str, id_: str, question: str) -> str | None:
        """What to embed of a question to a context; `None` if nothing has left its window."""
        with self._lock:
            reach = self._reach(connection, find(connection, actor, id_, "read"))
            return reach.topic(question) if len(reach.pages) else None

    def rank(self, connection: Connection, actor: str, id_: str, question: str, vector: Vector, *, whole: bool = False) -> Iterator[Found]:
        """The pages that have left a context's window, best first. `vector` is that of the topic; without one, by words alone.

        With `whole`, also those of what is in the window, as far as it has pages.
        """
        with self._lock:
            row = find(connection, actor, id_, "read")
            pinned = set() if whole else set(window.pins(connection, row))
            ranked = self._reach(connection, row, whole=whole).rank(connection, question, vector)
        for points, page in window.told(connection, ranked):  # of numbers that are nobody else's: the lock need not be held
            if page.seq not in pinned:
                yield _found(id_, page, points)

    def search(
        self, connection: Connection, actor: str, owner: str, prefix: str, keys: Collection[int], query: str, vector: Vector
    ) -> Iterator[Passage]:
        """The pages of an owner's files, of those that the actor may read and that are among `keys`, best first."""
        with self._lock:
            files = [file for file in filestore.of(connection, actor, owner, prefix) if file.key in keys]
            branch = library.branch_of(connection, owner)
            if not files or branch is None:
                return
            self._connection = connection
            spans = library.spans(connection, owner, branch, {file.key for file in files})
            ranked = Reach(self._shelves, spans, apart=True).rank(connection, query, vector)
        yield from library.passages(connection, files, ranked)

    def shelved(self, change: Change) -> None:
        """A file was written or deleted."""
        with self._lock:
            self._shelves.remove(change.branch, np.array(change.gone, np.int64))
            self._shelves.add(change.branch, [entry for _, entry in change.made])

    def added(self, made: Made) -> None:
        """Pages were made."""
        by_branch: dict[int, list[Entry]] = {}
        for branch, entry in made:
            by_branch.setdefault(branch, []).append(entry)
        with self._lock:
            for branch, entries in by_branch.items():
                self._shelves.add(branch, entries)

    def embedded(self, branches: Sequence[int], pages: NDArray[np.int64], vectors: NDArray[np.float16]) -> None:
        """Pages have got vectors; `branches` [n] and `pages` [n] say of which branch and page each of `vectors` [n, dim] is."""
        with self._lock:
            for branch in dict.fromkeys(branches):
                mine = np.array([other == branch for other in branches])
                self._shelves.embed(branch, pages[mine], vectors[mine])

    def forget(self, branch: int) -> None:
        """A branch was deleted."""
        with self._lock:
            self._shelves.drop(branch)

    def _reach(self, connection: Connection, row: ContextRow, *, whole: bool = False) -> Reach:
        self._connection = connection
        return Reach(self._shelves, reach(connection, row.branch, row.length if whole else row.resident))

    def _load(self, branch: int) -> Shelf:
        return shelf_of(self._connection, branch, self.model, self._dim)


def shelf_of(connection: Connection, branch: int, model: str, dim: int) -> Shelf:
    """The shelf of a branch from its rows, with the vectors that `model` made."""
    rows = window.vectors_of(connection, branch, model)
    pages = np.repeat(np.array([page for page, _ in rows], np.int64), [len(vectors) // (2 * dim) for _, vectors in rows])
    vectors = np.frombuffer(b"".join(vectors for _, vectors in rows), np.float16).reshape(len(pages), dim)
    shelf = Shelf.of(keywords.entries(connection, branch), pages, vectors)
    shelf.learn(connection, branch)
    return shelf


def matching(
    found: Iterator[Found], *, roles: Sequence[str] = (), labels: Sequence[str] = (), since: float | None = None, until: float | None = None
) -> Iterator[Found]:
    """Those said in one of these roles, with all these labels, in this time."""
    return (
        page
        for page in found
        if (not roles or page.role in roles)
        and all(f'"{label}"' in page.labels for label in labels)
        and (since is None or page.time >= since)
        and (until is None or page.time < until)
    )


def distinct(found: Iterable[Found], shown: Iterable[str] = ()) -> Iterator[Found]:
    """Of pages that say the same the best one, and none that says what is shown already."""
    told = set(shown)
    for page in found:
        if page.text not in told:
            told.add(page.text)
            yield page


def fitting(found: Iterator[R], tokens: Callable[[R], int], budget: int, limit: int, least: float) -> Iterator[tuple[R, int]]:
    """The best pages that fit a budget of tokens, at most `limit`, with at least so many points; and the tokens of each.

    One that is too large is left out and smaller ones after it may come, but not far behind.
    """
    missed = 0
    for page in found:
        if page.points.score < least or not limit or missed == _MISSES:
            return
        if (size := tokens(page)) > budget:
            missed += 1
            continue
        budget, limit = budget - size, limit - 1
        yield page, size


_MISSES = 4
"""Pages too large for what is left before no more are read: on LoCoMo 16 found no evidence that 4 did not."""


def _found(id_: str, page: PageText, points: Recalled) -> Found:
    source = None if page.source_start is None or page.source_stop is None else Source(page.source_start, page.source_stop)
    return Found(id_, source.start if source else page.seq, page.role, page.text, page.time, page.labels, points, source)
