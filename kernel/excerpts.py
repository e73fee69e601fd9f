"""What is shown of messages that are larger than what a model can see at once. Pure, and no model is asked.

What may leave the window has left it before. If that does not make room enough, the longest messages that have to stay are cut: shown are
the beginning and the end, as what is to be done stands in one of them, and between them the parts that hold most of the words of the
question (BM25, see `ranking.py`), of equals the later. What is left out is marked. The context keeps such a message whole, and when it
leaves the window its parts are recalled like any other.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Final

import numpy as np

from .limits import HIGH_WATER
from .memory.ranking import ends, share
from .memory.sentences import cuts
from .memory.terms import language_of, terms
from .memory.window import PAGE_CHARACTERS
from .prompts import Line

LEFT_OUT: Final = "\n[… left out …]\n"
"""Stands for the parts that are not shown."""

PARTS: Final = 8
"""At least so many parts are shown of a message, so that its beginning and its end do not take all the room."""

Count = Callable[[str], int]
"""Tokens of a text."""


def fitted(lines: Sequence[Line], window: int, count: Count) -> list[Line]:
    """The lines, with the longest of those that cannot leave cut if they are too much for a window. Pinned ones stay as they are."""
    cuttable = [line for line in lines if line.why == "new"] or list(lines[-1:])
    pinned = sum(line.tokens for line in lines if line.why == "pinned" and line not in cuttable)
    most = level([line.tokens for line in cuttable], int(HIGH_WATER * window) - pinned)
    question = ends(lines[-1].text, PAGE_CHARACTERS) if lines else ""
    return [_cut(line, question, most, count) if line in cuttable and line.tokens > most > 0 else line for line in lines]


def level(sizes: Sequence[int], room: int) -> int:
    """The most that each may have so that all have room together; what is smaller leaves more to the others."""
    for left, size in zip(range(len(sizes), 0, -1), sorted(sizes), strict=True):
        if size * left > room:
            return room // left
        room -= size
    return max(sizes, default=0)


def excerpt(text: str, question: str, most: int, count: Count) -> str:
    """At most so many tokens of a text: its beginning, its end, and of the rest what has to do with a question."""
    part = most / PARTS * len(text) / max(count(text), 1)
    parts = [text[start:stop] for start, stop in pairwise(cuts(text, max(1, min(PAGE_CHARACTERS, int(part)))))]
    left, chosen = most - count(LEFT_OUT), set[int]()
    for at in _by_need(parts, question):
        left -= count(parts[at]) + count(LEFT_OUT)
        if left < 0:
            break
        chosen.add(at)
    return "".join(_joined(parts, sorted(chosen)))


def _cut(line: Line, question: str, most: int, count: Count) -> Line:
    around = line.tokens - count(line.text)
    text = excerpt(line.text, question, most - around, count)
    return replace(line, text=text, tokens=count(text) + around, whole=False)


def _by_need(parts: Sequence[str], question: str) -> list[int]:
    """The parts, those first that are to be shown: the ends, then the best."""
    language = language_of(question)
    # A part that is in the question itself would speak for its neighbours.
    found = [[] if part in question else terms(part, language) for part in parts]
    asked = dict.fromkeys(terms(question, language))
    lengths = np.array([len(held) for held in found], np.float32)
    points = share((np.array([held.count(term) for held in found], np.float32) for term in asked), lengths)
    return sorted(range(len(parts)), key=lambda at: (at not in (0, len(parts) - 1), -points[at], -at))


def _joined(parts: Sequence[str], chosen: Sequence[int]) -> Iterator[str]:
    for before, at in pairwise((-1, *chosen, len(parts))):
        if at > before + 1:
            yield LEFT_OUT
        if at < len(parts):
            yield parts[at]
