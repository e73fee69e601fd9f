"""Cues: what a sentence of finance news says in its own grammar, where vectors and n-grams do not look.

"Operating profit was EUR 8.2 mn, compared to EUR 9.4 mn" is bad news, and none of its words is: the two numbers have to be compared, and
it has to be known that of a profit more is better and of a loss less. A text is cut into clauses. In each the nearest measure before a
movement says whether the movement is good; two amounts that are held against each other ("from X to Y", "X, compared to Y") are a movement
too. The result is a short vector of counts, each 0 or more, to stand beside the vector of the text.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray


def _words(text: str) -> str:
    """A pattern of any of these words; `*` stands for any ending."""
    return "|".join(word.replace("*", r"\w*") for word in text.split())


_GOOD: Final = _words(
    "profit* earning* eps sales turnover revenue* income ebit* margin* order* demand volume* dividend* share* stock* result* return* cash"
    " value asset* market* product* output capacity traffic passenger* deliver* rating* estimate* outlook forecast* index growth customer*"
)
_BAD: Final = _words("loss* debt* cost* expense* charge* unemployment gearing decline decrease impairment* write-down* write-off* claim*")
_UP: Final = _words(
    "rose rise* rising increas* grow grew grown growing growth climb* jump* surg* soar* gain* up higher doubl* tripl* improv* exceed*"
    " strengthen* stronger more better expand* accelerat* advanc* recover* rebound* record top*"
)
_DOWN: Final = _words(
    "fell fall falls falling fallen decreas* declin* drop* down lower* slip* slid* slump* plung* shrank shrink* shrunk contract* weak*"
    " worse* deteriorat* reduc* cut* diminish* tumbl* sank sink* dip* less halv* below negative"
)
_PRAISE: Final = _words(
    "strong* success* win* won award* best good excellent positive* profitable benefit* pleas* significant* competitive leading efficien*"
    " synerg* sav* upgrade* boost* enhanc* outperform* buy approval"
)
_BLAME: Final = _words(
    "warn* lay-off* layoff* lays laid redundan* dismiss* terminat* bankrupt* strike* sue* lawsuit* fine* fraud* recall* delay* downgrade*"
    " sell uncertain* difficult* challeng* crisis problem* risk* disappoint* unprofitable poor* restructur* burden* suspend* halt* clos*"
    " adverse* unfavo* scam* hack* attack* default* probe* investigat*"
)
_NOT: Final = r"not|no|n't|never|without|neither|nor|despite"

_KINDS: Final = {
    "bad": rf"loss\w*\s(?:\w+\s)?per\s(?:\w+\s)?share|{_BAD}",
    "good": _GOOD,
    "up": _UP,
    "down": _DOWN,
    "praise": _PRAISE,
    "blame": _BLAME,
    "not": _NOT,
}
_TOKEN: Final = re.compile("|".join(rf"(?P<{kind}>\b(?:{words})\b)" for kind, words in _KINDS.items()), re.IGNORECASE)
_CLAUSE: Final = re.compile(r"\s*(?:;|\.\s|\bwhile\b|\bwhereas\b|\bbut\b|\balthough\b|\bas well as\b)\s*", re.IGNORECASE)

_SCALE: Final = {"k": 1e3, "thousand": 1e3, "m": 1e6, "mn": 1e6, "mln": 1e6, "million": 1e6, "b": 1e9, "bn": 1e9, "billion": 1e9}
_AMOUNT: Final = re.compile(
    r"(?<![\w.,])(?P<sign>negative\s+)?(?:[A-Z]{3}|[$€£])?\s?(?P<minus>-\s?)?(?P<number>\d[\d,]*(?:\s?\.\s?\d+)?)"
    r"\s?(?P<unit>thousand|million|billion|mln|mn|bn|[kmb]|%|pct\b|per\s?cent)?(?![\w%])",
    re.IGNORECASE,
)
_CONVERTED: Final = re.compile(
    r"\(\s?(?:[A-Z]{2,3}\s?)?[$€£]?\s?[\d.,\s]+\w*\s?\)|(?<=[a-z])\s(?:[A-Z]{2})?[$]\s?[\d.,]+\s?\w*", re.IGNORECASE
)
"""An amount told again in another currency."""
_AGAINST: Final = re.compile(r"\b(from|compared (?:to|with)|against|versus|vs)\b", re.IGNORECASE)
_REACH: Final = 70
"""Characters between two amounts that are held against each other; further apart they are of different things."""
_NAMED: Final = 14
"""Characters behind an amount in which it is said what it is: "from a EUR 9.6 m loss"."""
_TO: Final = re.compile(r"[^,\d]{0,40}\bto\s+(?:\w+\s+){0,2}", re.IGNORECASE)
_ADVERB: Final = re.compile(r"\b(?:up|down|increase|decrease|growth|drop|lower|higher)\s*,?\s*$", re.IGNORECASE)
"""A movement right before "from", which tells of the same two amounts."""
_YEARS: Final = range(1950, 2100)

NAMES: Final = (
    *("good up", "good down", "bad up", "bad down", "up", "down", "praise", "blame", "not", "more", "less", "bad more", "bad less"),
    *("to profit", "to loss"),
)
"""What is counted, in the order of the vector. `more` and `less` are amounts held against an older one; `to loss` is a profit lost."""


class _Word(NamedTuple):
    kind: str
    at: int


def count_cues(texts: Sequence[str]) -> NDArray[np.float32]:
    """The cues of each text [len(texts), len(NAMES)], each count squeezed to 0 … 1 (1 - 2^-count)."""
    counts = np.zeros((len(texts), len(NAMES)), dtype=np.float32)
    for row, text in enumerate(texts):
        for cue in cues(text):
            counts[row, NAMES.index(cue)] += 1
    return np.asarray(1 - np.exp2(-counts), dtype=np.float32)


def cues(text: str) -> Iterator[str]:
    """The names of the cues in a text."""
    for clause in _CLAUSE.split(_CONVERTED.sub("", text)):
        words = [_Word(str(found.lastgroup), found.start()) for found in _TOKEN.finditer(clause)]
        yield from _movements(words)
        yield from _comparisons(clause, words)


def _movements(words: list[_Word]) -> Iterator[str]:
    for at, word in enumerate(words):
        if word.kind in ("up", "down"):
            measure = next((other.kind for other in reversed(words[:at]) if other.kind in ("good", "bad")), None)
            measure = measure or next((other.kind for other in words[at:] if other.kind in ("good", "bad")), None)
            yield f"{measure} {word.kind}" if measure else word.kind
        elif word.kind in ("praise", "blame", "not"):
            yield word.kind


def _comparisons(clause: str, words: list[_Word]) -> Iterator[str]:
    amounts = list(_amounts(clause))
    for link in _AGAINST.finditer(clause):
        old = next((amount for amount in amounts if 0 <= amount.start - link.end() <= _REACH), None)
        new = old and _newer(clause, amounts, old, link)
        if not old or not new or old.value == new.value:
            continue
        before = clause[: min(new.start, link.start())]
        measure = next((word.kind for word in reversed(words) if word.at < len(before) and word.kind in ("good", "bad")), "good")
        was = f"{clause[link.end() : old.start]} {clause[old.end : old.end + _NAMED]}".lower()
        if measure == "good" and "loss" in was:
            yield "to profit"
        elif measure == "bad" and ("profit" in was or "earnings" in was):
            yield "to loss"
        else:
            yield ("bad " if measure == "bad" else "") + ("more" if new.value > old.value else "less")


def _newer(clause: str, amounts: "list[_Amount]", old: "_Amount", link: "re.Match[str]") -> "_Amount | None":
    """The amount that the old one is held against: right behind it in "from X to Y", else before it and not of another movement."""
    alike = [amount for amount in amounts if amount.percent == old.percent]
    if link[1].lower() == "from":
        for amount in alike:
            if amount.start > old.end and _TO.fullmatch(clause[old.end : amount.start]):
                return amount
    before = next((amount for amount in reversed(alike) if 0 <= link.start() - amount.end <= _REACH), None)
    between = _ADVERB.sub("", clause[before.end : link.start()]) if before else ""
    return None if any(found.lastgroup in ("up", "down") for found in _TOKEN.finditer(between)) else before


class _Amount(NamedTuple):
    start: int
    end: int
    value: float
    percent: bool


def _amounts(clause: str) -> Iterator[_Amount]:
    """The amounts of a clause in order, without what must be a year."""
    for found in _AMOUNT.finditer(clause):
        unit = (found["unit"] or "").lower()
        value = float(re.sub(r"[,\s]", "", found["number"]))
        if unit or "," in found["number"] or value not in _YEARS:
            sign = -1.0 if found["sign"] or found["minus"] else 1.0
            yield _Amount(found.start(), found.end(), sign * value * _SCALE.get(unit, 1.0), unit[:1] in ("%", "p"))
