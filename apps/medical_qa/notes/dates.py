"""Dates in notes, and the timeline made of them.

A date is written down as far as it is known: a day, a month or a year. Without a year it is none, and neither is the patient's birthday.
03/04/2024 is read as in the United States, in March, and 14/04/2024 as what it can only be.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from .fields import Event, Sourced
from .layout import Layout

MOST: Final = 120
"""Characters of an event: a clause, not a paragraph."""

_MONTHS: Final = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_MONTH: Final = (
    r"(?P<name>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?"
    r"|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
)
_YEAR: Final = r"(?P<year>(?:19|20)\d\d)"
_SHORT: Final = r"(?P<year>(?:19|20)?\d\d)"
_FORMS: Final = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"(?<![\d/.-]){_YEAR}-(?P<month>\d\d)-(?P<day>\d\d)(?!\d)",
        rf"(?<![\d/.-])(?P<first>\d{{1,2}})(?P<mark>[/.-])(?P<second>\d{{1,2}})(?P=mark){_SHORT}(?![\d/])",
        rf"(?<![\d/.-])(?P<day>\d{{1,2}})(?:st|nd|rd|th)?[\s-]+{_MONTH}\.?,?[\s-]+{_YEAR}(?!\d)",
        rf"\b{_MONTH}\.?\s+(?P<day>\d{{1,2}})(?:st|nd|rd|th)?,?\s+{_YEAR}(?!\d)",
        rf"\b{_MONTH}\.?,?\s+{_YEAR}(?!\d)",
        rf"(?<![\d/.-]){_YEAR}-(?P<month>\d\d)(?![\d-])",
        rf"(?<![\d/.-])(?P<month>\d{{1,2}})/{_YEAR}(?!\d)",
        rf"(?<![\w/.,-]){_YEAR}(?![\w/%-]|\.\d|,\d|\s*(?:mg|mcg|ml|iu|units?|u|hrs?|h|hours|kcal|calories|steps|x)\b)",
    )
]
_BIRTH: Final = re.compile(r"\b(dob|born|date of birth|birth ?date)\b[:\s]*(?:on\s*)?$", re.IGNORECASE)
_CLOCK: Final = re.compile(r"\b(at|by|around|@)\s*$", re.IGNORECASE)
_BORDER: Final = re.compile(r"[;\n]|,\s|\s{3,}|\.\s(?=[A-Z])|\.$")


class Dated(NamedTuple):
    """A date and where it stands."""

    date: str
    start: int
    stop: int


def dates(text: str) -> list[Dated]:
    """All dates of a text, in its order; none overlap."""
    found: list[Dated] = []
    for form in _FORMS:
        for match in form.finditer(text):
            free = all(match.end() <= other.start or other.stop <= match.start() for other in found)
            if free and (date := _iso(match)) is not None and not _is_none(text, match):
                found.append(Dated(date, match.start(), match.end()))
    return sorted(found, key=lambda dated: dated.start)


def timeline(text: str, layout: Layout, found: Sequence[Dated]) -> list[Event]:
    """The clause that each date stands in, by date."""
    events = []
    for dated in found:
        sentence = layout.at(dated.start)
        start, stop = _clause(text, dated, sentence.start, sentence.stop)
        events.append(Event(Sourced(dated.date, dated.start, dated.stop), Sourced(text[start:stop], start, stop)))
    return sorted(events, key=lambda event: event.date.value)


def _iso(match: re.Match[str]) -> str | None:
    parts = match.groupdict()
    year = parts["year"] if len(parts["year"]) == 4 else f"{'19' if parts['year'] > '40' else '20'}{parts['year']}"
    if "first" in parts:
        first, second = int(parts["first"]), int(parts["second"])
        day_first = first > 12 or (parts["mark"] == "." and second <= 12)
        month, day = (second, first) if day_first else (first, second)
    else:
        month = _MONTHS.index(parts["name"][:3].lower()) + 1 if "name" in parts else int(parts.get("month") or 0)
        day = int(parts.get("day") or 0)
    if not 0 <= month <= 12 or day > 31 or (day and not month):
        return None
    return "-".join([year, *(f"{part:02}" for part in (month, day) if part)])


def _is_none(text: str, match: re.Match[str]) -> bool:
    before = text[max(0, match.start() - 20) : match.start()]
    return bool(_BIRTH.search(before)) or (len(match.group()) == 4 and bool(_CLOCK.search(before)))


def _clause(text: str, dated: Dated, start: int, stop: int) -> tuple[int, int]:
    """The words between two borders around a date; the next clause as well where the first is nothing but the date."""
    borders = [*_BORDER.finditer(text, start, stop)]
    left = max((border.end() for border in borders if border.end() <= dated.start), default=start)
    rights = [border.start() for border in borders if border.start() >= dated.stop and border.start() > left]
    right = next((one for one in rights if _letters(text[left : dated.start] + text[dated.stop : one]) >= 2), stop)
    left = max(left, dated.stop - MOST)
    right = min(right, left + MOST)
    return _trimmed(text, left, right)


def _letters(text: str) -> int:
    return sum(map(str.isalpha, text))


def _trimmed(text: str, start: int, stop: int) -> tuple[int, int]:
    inner = text[start:stop]
    return start + len(inner) - len(inner.lstrip(" \t\n-*:")), start + len(inner.rstrip(" \t\n.:"))


def near(found: Sequence[Dated], start: int, stop: int, reach: int) -> Iterator[Dated]:
    """The dates at most so many characters away from a span."""
    yield from (dated for dated in found if dated.start - stop <= reach and start - dated.stop <= reach)
