"""The layout of a note: its sentences, and under what heading each stands.

Headings matter where they say what the text below does not: a drug under "Allergies" is not taken, a disease under "Family" is not the
patient's. A heading holds for the rest of its line, or, if nothing follows it there, for the lines up to the next heading or blank line.
"""

import re
from bisect import bisect_right
from typing import Final, Literal, NamedTuple

Section = Literal["allergies", "family", "past", "stopped", "other"]

_HEADING: Final = re.compile(r"(?:(?<=^)|(?<=[.;]\s)|(?<=\s{3}))\s*[-*#\d.)]*\s*(?P<title>[A-Za-z][A-Za-z /&'()-]{1,44}?)\s*:(?!\d)")
_TITLE_LINE: Final = re.compile(r"^\s*(?P<title>[A-Z][A-Z /&'-]{2,44})\s*$")
_END: Final = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9(+#?\-])")
_ABBREVIATION: Final = re.compile(r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|St|vs|approx|e\.g|i\.e|p\.o|No)|^\s*\d+)\.$")
_NONE: Final = re.compile(r"^\W*(NKDA|NKA|none|nil|no known)\b", re.IGNORECASE)

_SECTIONS: Final[list[tuple[Section, re.Pattern[str]]]] = [
    ("allergies", re.compile(r"allerg|intoleranc|adverse", re.IGNORECASE)),
    ("family", re.compile(r"\bfamily|\bf\.?hx?\b|\bfamhx", re.IGNORECASE)),
    ("stopped", re.compile(r"no longer|stopped|discontinued|\bprevious med|\bpast med(ication|s)|ceased|on hold|held", re.IGNORECASE)),
    ("past", re.compile(r"\bpast\b|\bpmhx?\b|\bpsh\b|\bhistory of\b|\bpmh", re.IGNORECASE)),
]


class Sentence(NamedTuple):
    """The characters `start` to `stop`, and the section that they stand in."""

    start: int
    stop: int
    section: Section


class Layout:
    """The sentences of a text, in order."""

    def __init__(self, text: str) -> None:
        self.sentences = list(_sentences(text))
        self._starts = [sentence.start for sentence in self.sentences]

    def at(self, place: int) -> Sentence:
        """The sentence that a character is in."""
        return self.sentences[max(0, bisect_right(self._starts, place) - 1)]


def _sentences(text: str) -> "list[Sentence]":
    found: list[Sentence] = []
    standing: Section = "other"  # of a heading on a line of its own
    start = 0
    for line in text.splitlines(keepends=True):
        section = standing
        first = True
        for begin, stop in _pieces(line):
            piece = line[begin:stop]
            title = _HEADING.match(piece) or _TITLE_LINE.match(piece)
            if title:
                section = _section(title["title"])
                if _NONE.match(piece[title.end() :]):
                    section = "other"
                if first:
                    standing = section if not piece[title.end() :].strip() else "other"
            found.append(Sentence(start + begin, start + stop, section))
            first = False
        if not line.strip():
            standing = "other"
        start += len(line)
    return found or [Sentence(0, len(text), "other")]


def _pieces(line: str) -> list[tuple[int, int]]:
    """Where sentences of a line begin and end."""
    cuts = [match.end() for match in _END.finditer(line) if not _ABBREVIATION.search(line[: match.start()])]
    return list(zip([0, *cuts], [*cuts, len(line)], strict=True))


def _section(title: str) -> Section:
    for section, pattern in _SECTIONS:
        if pattern.search(title):
            return section
    return "other"
