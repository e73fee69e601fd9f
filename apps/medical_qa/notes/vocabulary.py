"""The words of notes: names of problems, drugs and laboratory values, with their abbreviations and brands (`data/lexicon`).

Where names overlap the longest counts: "iron deficiency anemia" is no anemia, and "calcium carbonate" no calcium. Names of one or two
letters, and those that are words of another meaning in small letters, are known only as they are written.
"""

import csv
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final, Literal, NamedTuple

Kind = Literal["problem", "drug", "laboratory"]
Course = Literal["chronic", "episode", "symptom"]

LEXICON: Final = Path(__file__).parents[1] / "data" / "lexicon"

_FILES: Final[dict[Kind, str]] = {"problem": "problems.csv", "drug": "drugs.csv", "laboratory": "labs.csv"}
_WORDS: Final = {"cap", "hap", "add", "aids", "fits", "loc", "pad", "ida", "pid", "dm", "chol"}
"""Abbreviations that mean something else in small letters."""


class Mention(NamedTuple):
    """A name in a text. Some have several meanings: `N/V` is nausea and vomiting, vitamin D a drug and a laboratory value."""

    start: int
    stop: int
    meanings: tuple[tuple[Kind, str], ...]

    def names(self, kind: Kind) -> list[str]:
        """What it means among one kind of things."""
        return [name for other, name in self.meanings if other == kind]


def mentions(text: str) -> list[Mention]:
    """All names in a text, in order; none overlap."""
    pattern, meanings = _names()
    return [
        Mention(match.start(), match.end(), meanings[_key(match.group())])
        for match in pattern.finditer(text)
        if not _means_something_else(text, match)
    ]


@cache
def rows(kind: Kind) -> dict[str, dict[str, str]]:
    """The lexicon of a kind, by name."""
    with (LEXICON / _FILES[kind]).open(encoding="utf-8", newline="") as lines:
        return {row["name"]: row for row in csv.DictReader(lines)}


@cache
def _names() -> tuple[re.Pattern[str], dict[str, tuple[tuple[Kind, str], ...]]]:
    known: dict[str, list[tuple[Kind, str]]] = {}
    written: dict[str, bool] = {}
    for kind, word, name in _entries():
        known.setdefault(_key(word), []).append((kind, name))
        written[word] = len(word) <= 2 or word.lower() in _WORDS
    by_length = sorted(written, key=len, reverse=True)
    names = "|".join(_pattern(word) if written[word] else f"(?i:{_pattern(word)})" for word in by_length)
    return re.compile(rf"(?<![\w+])(?:{names})(?![\w+])(?!-\w)"), {key: tuple(dict.fromkeys(found)) for key, found in known.items()}


def _entries() -> Iterator[tuple[Kind, str, str]]:
    for kind in _FILES:
        for name, row in rows(kind).items():
            for word in (name, *filter(None, row["synonyms"].split("|"))):
                yield kind, word, name


def _pattern(word: str) -> str:
    return re.escape(word).replace(r"\-", "[-/ ]").replace(r"\ ", r"[\s-]+").replace("'", "['\u2019]?")


def _key(word: str) -> str:
    return re.sub(r"[\s/-]+", " ", word.replace("\u2019", "'").replace("'", "")).lower()


def _means_something_else(text: str, match: re.Match[str]) -> bool:
    """`RA` behind an oxygen saturation is room air, and `PE:` an examination."""
    word, before, after = match.group(), text[: match.start()], text[match.end() :]
    if word == "RA":
        return re.search(r"(%|\bon|\d)\s*$", before) is not None
    return word == "PE" and re.match(r"\s*(:|exam)", after) is not None
