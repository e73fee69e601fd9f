"""Recall: which pages of a context have to do with a question, best first, and why.

Three things speak for a page, and their points are added:

- `meaning`: one of its sentences is near the question, in standard deviations above what is usual of pages in this context;
- `words`: it holds the question's terms. BM25, as a share of what a page with all of them and one more would get, and squared: half of
  the words is a quarter of the case. A share, because the deviations of BM25 grow with the context, until one rare word outweighs any
  likeness; and one more, the rarest there can be, because common words alone prove little even if all are there;
- `author`: it was said by somebody whom the question names.

A page speaks through its neighbours too, each step away counting half: "Yes, in May!" is found by what it answers. The names of authors
are taken out of what is embedded, as they make a question alike to everything these people said.

Measured on LoCoMo (`benchmarks/recall.py`). Rejected: the sum of z-scores over meaning and BM25 of the page and of the page with the one
before it, lower at every size and blind to questions asked in other words in a long context; rank fusion, lower still.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import numpy as np
import regex
from numpy.typing import NDArray

from .branches import Span
from .shelves import Places, Shelf, Shelves, joined, places_of
from .terms import Language, terms, without_names
from .vectors import Moments, together

if TYPE_CHECKING:
    from sqlite3 import Connection

Floats = NDArray[np.float32]
Messages = NDArray[np.int32] | None
"""The message of each page, where these are texts apart."""
S = TypeVar("S", str, list[str])

WORDS: Final = 60.0
"""Points of a page that holds all there is to hold. A good one holds a third of it and gets seven, as much as seven deviations in
meaning. With 80 LoCoMo gains 0.4 %, but of facts asked for in other words every fifteenth is no longer among the first five."""
AUTHOR: Final = 2.0
"""Points of a page by somebody the question names. The others stay: one is often told about by somebody else."""
STEPS: Final = (0.5, 0.25)
"""What the first and the second neighbour on each side count."""
AROUND: Final = 0.2
"""How much of `meaning` is the neighbours': they share words with a page more often than its point."""
SATURATION: Final = 0.5
"""BM25's k1: a term that the neighbours hold too is hardly more than one that the page holds alone."""
LENGTH: Final = 0.4
"""BM25's b: long pages are held back a little."""
TEXT: Final = 4_000
"""Characters of a question that are looked at: its beginning and its end. What is recalled for may be a whole document."""
TERMS: Final = 64
"""Terms that are looked up of these, at some 0.1 ms each."""
AUTHOR_SHARE: Final = 0.02
"""Who begins fewer of the pages with a name and a colon is no author here: it may be `Note:`."""
AUTHOR_PAGES: Final = 3
"""The same for contexts of few pages."""

_BEST: Final = 128
"""Pages that are sorted before the others: more than are read for most questions."""


class Recalled(NamedTuple):
    """A page, its points, and what they are made of."""

    page: int
    score: float
    meaning: float
    words: float
    author: float


@dataclass(frozen=True)
class Part:
    """The pages of a span: the places `begin` to `end` of a shelf."""

    branch: int
    shelf: Shelf
    begin: int
    end: int

    @property
    def places(self) -> Places:
        """Them."""
        return self.shelf.places.choose(slice(self.begin, self.end))

    def frequent(self, least: float) -> list[str]:
        """The authors of at least so many of them."""
        counts = np.bincount(self.places.author, minlength=len(self.shelf.authors))
        return [self.shelf.authors[number] for number in np.flatnonzero(counts >= least) if self.shelf.authors[number]]

    def said_by(self, name: str) -> NDArray[np.bool_]:
        """Which are by an author."""
        return np.asarray(self.places.author == self.shelf.number_of(name))


class Reach:
    """The pages that a context can read, side by side in the order of their messages.

    With `apart` the messages have nothing to do with each other, as files: a page is no neighbour of another message's, and nobody speaks.
    """

    def __init__(self, shelves: Shelves, spans: Sequence[Span], *, apart: bool = False) -> None:
        self._shelves = {branch: shelves.get(branch) for branch in dict.fromkeys(span.branch for span in spans)}
        self._parts = [_part(span, self._shelves[span.branch]) for span in spans]
        places = joined([part.places for part in self._parts])
        self.pages = places.page
        self._lengths: Floats = places.length.astype(np.float32)
        self._messages: Messages = places.seq if apart else None
        self._said = {} if apart else self._authors()

    def topic(self, question: str) -> str:
        """What to embed of a question: all but the names of those who speak here."""
        return without_names(question, self._named(question))

    def rank(
        self, connection: "Connection", question: str, vector: Floats | None = None, allowed: NDArray[np.int64] | None = None
    ) -> Iterator[Recalled]:
        """All pages, best first. `vector` is that of the topic, float32 [dim] of length one; pages without one are found by words.

        Of pages that are not `allowed` none comes, though they count as neighbours.
        """
        meaning = np.zeros(len(self.pages), np.float32) if vector is None else around(self._meaning(vector), AROUND, self._messages)
        words = WORDS * self._words(connection, question) ** 2
        author = AUTHOR * self._by(self._named(question))
        total = meaning + words + author
        among = np.arange(len(total)) if allowed is None else np.flatnonzero(np.isin(self.pages, allowed))
        return (
            Recalled(int(self.pages[at]), float(total[at]), float(meaning[at]), float(words[at]), float(author[at]))
            for at in descending(total, among)
        )

    def _meaning(self, vector: Floats) -> Floats:
        """Standard deviations above the mean; zero for a page that was not compared."""
        points = np.zeros(len(self.pages), np.float32)
        known = np.zeros(len(self.pages), bool)
        usual = []
        for shelf in self._shelves.values():
            near = shelf.vectors.compare(vector)
            at = places_of(near.pages, self.pages)
            scores, at = near.scores[at >= 0], at[at >= 0]
            points[at], known[at] = scores, True
            usual.append(Moments.of(scores, len(scores)) if near.complete else near.usual)
        mean, deviation = together(usual)
        return np.where(known, (points - mean) / deviation, 0).astype(np.float32)

    def _words(self, connection: "Connection", question: str) -> Floats:
        languages = set[Language]().union(*(shelf.languages for shelf in self._shelves.values()))
        text = ends(question, TEXT)
        asked = dict.fromkeys(term for language in sorted(languages) for term in terms(text, language))
        return share((self._holders(connection, term) for term in ends(list(asked), TERMS)), self._lengths, self._messages)

    def _holders(self, connection: "Connection", term: str) -> Floats:
        """One for each page that holds a term, else zero."""
        held = {branch: shelf.holders(connection, branch, term) for branch, shelf in self._shelves.items()}
        found = [held[part.branch][part.begin : part.end] for part in self._parts]
        return np.concatenate([np.empty(0, np.bool_), *found]).astype(np.float32)

    def _authors(self) -> dict[str, Floats]:
        """Who begins many of the pages with a name, and which (one or zero for each page)."""
        least = max(AUTHOR_PAGES, AUTHOR_SHARE * len(self.pages))
        names = {name for part in self._parts for name in part.frequent(least / len(self._parts))}
        said = {name: np.concatenate([part.said_by(name) for part in self._parts]).astype(np.float32) for name in names}
        return {name: pages for name, pages in said.items() if pages.sum() >= least}

    def _named(self, question: str) -> set[str]:
        """The words of a question that are names of authors."""
        return set(regex.findall(r"\w+", ends(question, TEXT).lower())) & {word for name in self._said for word in name.split()}

    def _by(self, names: set[str]) -> Floats:
        """One for the pages of authors with such a name, else zero."""
        said = [pages for name, pages in self._said.items() if names & set(name.split())]
        return np.maximum.reduce(said) if said else np.zeros(len(self.pages), np.float32)


def descending(points: NDArray[np.floating[Any]], among: NDArray[np.intp]) -> Iterator[int]:
    """Of these places those with most points first, equal ones in order.

    The best are found and sorted first, as the others are hardly ever asked for: to sort 10,000 takes a millisecond.
    """
    least = -np.inf if len(among) <= _BEST else np.partition(points[among], -_BEST)[-_BEST]
    best = points[among] >= least
    for some in (among[best], among[~best]):
        yield from some[np.argsort(-points[some], kind="stable")].tolist()


def ends(sequence: S, most: int) -> S:
    """The first and the last of a sequence, together at most so many."""
    return sequence if len(sequence) <= most else sequence[: most // 2] + sequence[-(most // 2) :]


def around(points: Floats, weight: float, messages: Messages = None) -> Floats:
    """The points of each page and, with a weight, those of its neighbours; if messages are told, only those of the same message."""
    total = points.copy()
    for step, worth in enumerate(STEPS, 1):
        near = weight * worth if messages is None else np.float32(weight * worth) * (messages[step:] == messages[:-step])
        total[step:] += near * points[:-step]
        total[:-step] += near * points[step:]
    return total


def share(holders: Iterable[Floats], lengths: Floats, messages: Messages = None) -> Floats:
    """BM25 of pages and their neighbours as one text, as a share of what a page with all terms and one more would get: 0 to 1.

    `holders` say for each term which pages hold it (one or zero), `lengths` how many terms a page has. A term that stands nowhere counts
    in what was asked.
    """
    pages = len(lengths)
    if not pages:
        return lengths
    span = around(lengths, 1, messages)
    room = SATURATION * (1 - LENGTH + LENGTH * span / max(float(span.mean()), 1e-9))
    points, asked = np.zeros_like(lengths), rarity(0, pages)
    for held in holders:
        rare = rarity(int(np.count_nonzero(held)), pages)
        near = around(held, 1, messages)
        points += rare * near / (near + room)
        asked += rare
    return points / asked


def rarity(holders: int, pages: int) -> float:
    """What a term tells that so many of the pages hold: BM25's inverse document frequency."""
    return math.log(1 + (pages - holders + 0.5) / (holders + 0.5))


def fit(recalled: Iterable[Recalled], tokens: Callable[[int], int], budget: int) -> Iterator[Recalled]:
    """The best pages that fit a budget of tokens together: one that is too large is left out, smaller ones after it may come."""
    for page in recalled:
        if (size := tokens(page.page)) <= budget:
            budget -= size
            yield page


def _part(span: Span, shelf: Shelf) -> Part:
    begin, end = np.searchsorted(shelf.places.seq, (span.start, span.stop))
    return Part(span.branch, shelf, int(begin), int(end))
