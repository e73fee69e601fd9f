"""The same story told again: by another paper, with another ending, or by the same feed read twice.

Two items are one story if they share most of their words and pairs of words (Jaccard), and if one has all the figures and all the companies
that the other has: "profit rose 5 %" and "profit rose 7 %" share nearly all words and are two stories.
"""

import re
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Final, NamedTuple

ALIKE: Final = 0.6
"""Share of words and pairs from which two titles are one story. On 60 pairs written for this (tests/apps/data/duplicates.csv) every value
from 0.5 to 0.65 tells the most of them right."""

REMEMBERED: Final = 3_000
"""Stories that a new one is compared with: some weeks of a newspaper's finance pages."""

_COMMON: Final = 0.02
"""Words that more than this share of the stories have do not bring two together; they still count in the comparison."""

_WORD: Final = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+")


class _Story(NamedTuple):
    shingles: frozenset[str]
    marks: frozenset[str]
    """Its figures and companies."""


class Stories:
    """The stories of late, by the words they share. `companies` finds those in a text."""

    def __init__(self, companies: Callable[[str], list[str]], titles: Iterable[str] = ()) -> None:
        self._companies = companies
        self._told: OrderedDict[str, _Story] = OrderedDict()
        self._having: defaultdict[str, set[str]] = defaultdict(set)
        for title in titles:
            self.add(title)

    def find(self, title: str) -> str | None:
        """The title of the story that this is, if it was told."""
        story = self._story(title)
        limit = max(50, int(_COMMON * len(self._told)))
        rare = [each for each in story.shingles if len(self._having.get(each, ())) <= limit]
        shared = Counter(other for each in rare for other in self._having.get(each, ()))
        return next((other for other, _ in shared.most_common() if _alike(story, self._told[other])), None)

    def add(self, title: str) -> None:
        """Remember a story; the oldest is forgotten."""
        self._forget(title)
        self._told[title] = self._story(title)
        for each in self._told[title].shingles:
            self._having[each].add(title)
        if len(self._told) > REMEMBERED:
            self._forget(next(iter(self._told)))

    def titles(self) -> list[str]:
        """What is remembered, the oldest first."""
        return list(self._told)

    def _forget(self, title: str) -> None:
        story = self._told.pop(title, None)
        for each in story.shingles if story else ():
            self._having[each].discard(title)
            if not self._having[each]:
                del self._having[each]

    def _story(self, title: str) -> _Story:
        words = [word.lower() for word in _WORD.findall(title)]
        pairs = (" ".join(pair) for pair in pairwise(words))
        figures = (word for word in words if word[0].isdigit())
        return _Story(frozenset([*words, *pairs]), frozenset([*figures, *self._companies(title)]))


def _alike(one: _Story, other: _Story) -> bool:
    same = one.marks <= other.marks or other.marks <= one.marks
    return same and len(one.shingles & other.shingles) >= ALIKE * len(one.shingles | other.shingles)
