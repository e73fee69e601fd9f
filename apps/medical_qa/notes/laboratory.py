"""Laboratory values: a name with a number behind it, its unit, and whether it is high or low.

A flag is the note's own word; else it follows from the range that the note gives; else, if the unit is the usual one, from the usual
range of adults in `data/lexicon/labs.csv`. A value behind another one ("was 7.8 %", "-> 2.9") is of the same name.
"""

import re
from collections.abc import Iterator
from typing import Final, get_args

from .fields import Flag, Laboratory, Sourced
from .vocabulary import Mention, rows

_VALUE: Final = r"(?P<value>[<>]?\s?\d[\d,]*(?:\.\d+)?)(?![\d/]|-\d|\s*(?:y/?o|years?|days?|weeks?|months?)\b)"
_UNIT: Final = (
    r"(?P<unit>%|(?:x\s?)?10\^?\d+/[uµ]?L|cells/[uµ]L|(?:[KM]|k|thou)/(?:[uµ]L|mm3)|m[Ll]/min(?:/1\.73\s?m2)?|mm/(?:hr?|hour)\b"
    r"|(?:[mkunpµ]|mc)?(?:g|mol|Eq|IU|U)/(?:d|m|u|µ)?[Lg]\b|mEq/L|IU/m?L|fL|seconds|secs?\b|mmHg)"
)
_FIRST: Final = re.compile(
    rf"^\s*\+?\s*(?:\((?![HL]\))[^)\d]{{0,15}}\)\s*)?(?:level|result|today|now|was|is|of|at|came back(?: at)?"
    rf"|:|=|\s|-(?=\s))*\s*{_VALUE}\s*{_UNIT}?",
    re.IGNORECASE,
)
_NEXT: Final = re.compile(
    rf"^\s*(?P<flag_before>\(?[HL]\)?)?[\s,;(]*(?:previously|prev|was|from|->|→|to|up from|down from)+\s*(?:was\s*)?{_VALUE}\s*{_UNIT}?",
    re.IGNORECASE,
)
_RANGE: Final = re.compile(
    r"^[\s,]*(?:[(\[]\s*)?(?:ref[:.]?\s*|normal\s*|range[:\s]*)?(?P<low>\d+(?:\.\d+)?)\s*[-\u2013]\s*(?P<high>\d+(?:\.\d+)?)\s*[)\]]?"
)
_MARK: Final = re.compile(
    r"^[\s,]*[(\[]?(?:(?P<high>H{1,2}\b|HIGH\b|high\b|elevated\b|raised\b|↑)|(?P<low>L{1,2}\b|LOW\b|low\b|decreased\b|↓)|(?P<normal>N\b|normal\b|wnl\b|WNL\b))"
)
_BEFORE: Final = re.compile(r"(?:(?P<high>elevated|raised|high)|(?P<low>low|decreased|reduced)|(?P<normal>normal))\s+$", re.IGNORECASE)

_UNITS: Final = {
    "mmol/l": "mmol/L",
    "meq/l": "mEq/L",
    "miu/l": "mIU/L",
    "uiu/ml": "uIU/mL",
    "miu/ml": "mIU/mL",
    "iu/l": "IU/L",
    "u/l": "U/L",
}
_FORMS: Final = [
    (re.compile(r"^(x\s?)?10\^?(\d+)/(u|µ)?l$"), r"10^\2/\3L"),
    (re.compile(r"^(k|thou)/(ul|µl|mm3)$"), "K/uL"),
    (re.compile(r"^cells/[uµ]l$"), "cells/uL"),
    (re.compile(r"^(?:u|µ|mc)g/"), "mcg/"),
    (re.compile(r"^µ"), "u"),
    (re.compile(r"^mm/(h|hr|hour)$"), "mm/hr"),
    (re.compile(r"^(seconds|secs?)$"), "seconds"),
    (re.compile(r"^ml/min.*"), "mL/min"),
    (re.compile(r"dl$"), "dL"),
    (re.compile(r"ml$"), "mL"),
    (re.compile(r"/l$"), "/L"),
    (re.compile(r"^fl$"), "fL"),
]
_SAME: Final = {"mEq/L": "mmol/L", "uIU/mL": "mIU/L", "10^9/L": "K/uL", "10^3/uL": "K/uL", "IU/L": "U/L", "mcg/L": "ng/mL"}
"""Units that are the same quantity for the names that have them."""


def read_laboratory(text: str, found: list[Mention]) -> list[Laboratory]:
    """All values of a note, in order."""
    return [value for mention in found for name in mention.names("laboratory")[:1] for value in _values(text, mention, name)]


def _values(text: str, mention: Mention, name: str) -> Iterator[Laboratory]:
    place, match = mention.stop, _FIRST.match(text[mention.stop : mention.stop + 60])
    if match is None or _is_a_dose(mention, match["unit"]):
        return
    while match is not None:
        unit = Sourced(_unit(match["unit"]), place + match.start("unit"), place + match.end("unit")) if match["unit"] else None
        after = text[place + match.end() : place + match.end() + 40].partition("\n")[0]
        yield Laboratory(
            Sourced(name, mention.start, mention.stop),
            Sourced(match["value"].replace(",", "").replace(" ", ""), place + match.start("value"), place + match.end("value")),
            unit,
            _flag(text, mention, name, match, place, after),
        )
        place += match.end()
        match = _NEXT.match(text[place : place + 60])


def _is_a_dose(mention: Mention, unit: str | None) -> bool:
    """A name that is also a drug's has a laboratory unit where it is a value."""
    return bool(mention.names("drug")) and (unit is None or ("/" not in unit and unit != "%"))


def _unit(written: str) -> str:
    unit = written.lower().replace(" ", "")
    for form, usual in _FORMS:
        unit = form.sub(usual, unit)
    return _UNITS.get(unit.lower(), unit)


def _flag(text: str, mention: Mention, name: str, match: re.Match[str], place: int, after: str) -> Sourced[Flag] | None:
    stop = place + match.end()
    range_ = _RANGE.match(after)
    shift = range_.end() if range_ else 0
    if mark := _MARK.match(after[shift:]):
        return _marked(mark, stop + shift)
    if before := _BEFORE.search(text[: mention.start][-12:]):
        return _marked(before, max(0, mention.start - 12))
    limits = (range_["low"], range_["high"]) if range_ else _usual(name, match["unit"])
    if limits is None:
        return None
    return Sourced(_compared(match["value"], float(limits[0]), float(limits[1])), place + match.start("value"), stop + shift)


def _marked(mark: re.Match[str], place: int) -> Sourced[Flag]:
    flag = next(flag for flag in get_args(Flag) if mark[flag])
    return Sourced(flag, place + mark.start(flag), place + mark.end(flag))


def _usual(name: str, written: str | None) -> tuple[str, str] | None:
    row = rows("laboratory")[name]
    unit = _unit(written) if written else ""
    same = _SAME.get(unit, unit) == _SAME.get(row["unit"], row["unit"])
    return (row["low"], row["high"]) if same else None


def _compared(written: str, low: float, high: float) -> Flag:
    value = float(written.lstrip("<> ").replace(",", ""))
    if value > high or (written.startswith(">") and value >= high):
        return "high"
    return "low" if value < low or (written.startswith("<") and 0 < value <= low) else "normal"
