"""Problems, and whether the patient has them.

The words around a name decide, as in NegEx (Chapman et al., 2001) and ConText (Harkema et al., 2009): by cues before and behind it with a
reach of a few words, which goes on along a list.

A "history of" means by the kind of problem: a chronic disease is still there, an episode is over.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from .dates import Dated, near
from .fields import Problem, Sourced, Status
from .layout import Layout, Sentence
from .vocabulary import Mention, rows

_BORDER: Final = re.compile(
    r"\b(?:but|however|although|except|though|complain(?:s|ed|ing)? of|c/o|presents? with|now|yes|still)\b|;|\(\+\)|\n|\s\+\s",
    re.IGNORECASE,
)
_REFUSED: Final = re.compile(
    r"\b(?:no|not|denie[sd]|deny|denying|without|never|neg(?:ative)? for|free of|absence of|nor|does(?: not|n't) have|non|neither)\b"
    r"|\(-\)|(?<!\w)-ve\b",
    re.IGNORECASE,
)
_SUPPOSED: Final = re.compile(
    r"\b(?:likely|probabl[ey]|possibl[ey]|suspect(?:ed|s)?|suspicio(?:us|n) (?:for|of)|r/o|rule out|query|consistent with|"
    r"concern(?:ing)? for|may have|might have|presumed|differential|ddx|evaluate for)\b|\?",
    re.IGNORECASE,
)
_FEARED: Final = re.compile(
    r"\b(?:if|should|in case of|watch(?:ing)? for|return for|risk (?:of|for)|screen(?:ed|ing)? for|prevent(?:s|ion of)?|prophylaxis|"
    r"monitor(?:ing)? for|warned (?:about|of)|advised (?:about|of))\b",
    re.IGNORECASE,
)
_OVER: Final = re.compile(
    r"\b(?:s/p|status post|h/o|hx(?: of)?|history of|hx|prior|previous(?:ly)?|past|childhood|old|recovered from"
    r"|treated for|remote|had an?)\b",
    re.IGNORECASE,
)
_REFUSED_AFTER: Final = re.compile(
    r"^(?:\s*[:\-]?\s*|:\s*\w{1,10}\s+|\s*(?:is|was|were|are|has been|have been)\s+)"
    r"(?:ruled out|excluded|negative|neg\b|absent|denied|none\b|not present|nil\b|unlikely|denies)",
    re.IGNORECASE,
)
_SUPPOSED_AFTER: Final = re.compile(
    r"^(?:\s*\?|\s+(?:is |was )?(?:suspected|possible|likely|(?:cannot be|not) excluded|vs\b))", re.IGNORECASE
)
_OVER_AFTER: Final = re.compile(r"^[^.;,]{0,25}?\b(?:resolved|cured|healed|treated(?! with))\b", re.IGNORECASE)
_REMISSION_AFTER: Final = re.compile(r"^[^.;]{0,40}?\bin remission\b", re.IGNORECASE)

_RELATIVES: Final = {
    "mother": "mother|mom|mum",
    "father": "father|dad",
    "grandmother": "grandmother|grandma",
    "grandfather": "grandfather|grandpa",
    "sister": "sisters?",
    "brother": "brothers?",
    "daughter": "daughters?",
    "son": "sons?",
    "aunt": "aunts?",
    "uncle": "uncles?",
    "cousin": "cousins?",
}
_RELATIVE: Final = re.compile("|".join(rf"(?P<{name}>\b(?:{words})\b)" for name, words in _RELATIVES.items()), re.IGNORECASE)
_TOLD: Final = re.compile(
    r"\b(?:says?|said|reports?|reported|states?|stated|calls?|called|notic\w+|found|thinks?|denie[sd]"
    r"|worr\w+|brought|gives|confirms?|that|patient|pt|he|she|has been(?! diagnosed))\b",
    re.IGNORECASE,
)
"""Behind a relative: she speaks of the patient."""

_ALLERGIC: Final = re.compile(r"allerg(?:ic|y) to\b", re.IGNORECASE)
_FILLERS: Final = frozenset("and or nor any of the a an further new recent significant history evidence family".split())  # noqa: SIM905
"""Words that do not use up a cue's reach."""
_ENDS_REACH: Final = re.compile(r"\b(?:has|have|had|with|since|due to|because of|for|is|was|on)\b|:", re.IGNORECASE)

_DATED: Final = 15
"""Characters between an episode and the date that puts it into the past."""


class _Around(NamedTuple):
    """What stands before and behind a name in its sentence, other names taken out of what is before."""

    before: str
    gap_words: re.Pattern[str]
    after: str


def read_problems(text: str, layout: Layout, found: list[Mention], dated: Sequence[Dated]) -> list[Problem]:
    """All problems of a note that are said of the patient or of a relative, in order."""
    return [problem for mention in found for problem in _problems(text, layout.at(mention.start), mention, found, dated)]


def _problems(text: str, sentence: Sentence, mention: Mention, found: list[Mention], dated: Sequence[Dated]) -> Iterator[Problem]:
    names = mention.names("problem")
    if not names or sentence.section == "allergies" or _ALLERGIC.search(text, sentence.start, mention.start):
        return
    before = _before(text, sentence, mention, found)
    after = text[mention.stop : sentence.stop]
    for name in names:
        judged = _status(name, before, after, sentence, mention, dated)
        if judged is not None:
            status, relative = judged
            source = mention.start, mention.stop
            yield Problem(Sourced(name, *source), Sourced(status, *source), Sourced(relative, *source) if relative else None)


def _before(text: str, sentence: Sentence, mention: Mention, found: list[Mention]) -> str:
    """The sentence up to a name, with other names of problems as `_`, from the last border on."""
    parts, place = [], sentence.start
    for other in found:
        if sentence.start <= other.start < mention.start and other.names("problem"):
            parts += [text[place : other.start], "_"]
            place = other.stop
    before = "".join([*parts, text[place : mention.start]])
    borders = [border.end() for border in _BORDER.finditer(before)]
    return before[borders[-1] :] if borders else before


def _status(
    name: str, before: str, after: str, sentence: Sentence, mention: Mention, dated: Sequence[Dated]
) -> tuple[Status, str | None] | None:
    course = rows("problem")[name]["course"]
    if _reaches(_FEARED, before, 5):
        return None
    if _OVER_AFTER.match(after) or (course == "episode" and _REMISSION_AFTER.match(after)):
        return "past", None
    if _REFUSED_AFTER.match(after) or _reaches(_REFUSED, before, 4):
        return "absent", None
    if (relative := _relative(before, after)) or sentence.section == "family":
        return "family", relative
    if _SUPPOSED_AFTER.match(after) or _reaches(_SUPPOSED, before, 3):
        return "suspected", None
    if course == "episode" and _is_over(before, sentence, mention, dated):
        return "past", None
    return "present", None


def _is_over(before: str, sentence: Sentence, mention: Mention, dated: Sequence[Dated]) -> bool:
    told = sentence.section == "past" or _reaches(_OVER, before, 3)
    return told or any(sentence.start <= one.start < sentence.stop for one in near(dated, mention.start, mention.stop, _DATED))


def _reaches(cue: re.Pattern[str], before: str, most: int) -> bool:
    """Whether a cue reaches the name behind `before`: few other words are between, names in a list not counted."""
    matches = list(cue.finditer(before))
    if not matches:
        return False
    between = before[matches[-1].end() :]
    words = [word for word in re.findall(r"[^\W_][\w'/-]*", between) if word.lower() not in _FILLERS]
    return len(words) <= most and not _ENDS_REACH.search(between)


def _relative(before: str, after: str) -> str | None:
    behind = re.match(r"\s*\((?:maternal |paternal )?(\w+)", after)
    if behind and (match := _RELATIVE.fullmatch(behind[1])):
        return match.lastgroup
    matches = list(_RELATIVE.finditer(before))
    if not matches or _TOLD.search(before[matches[-1].end() :]) or len(before) - matches[-1].end() > 60:
        return None
    return matches[-1].lastgroup
