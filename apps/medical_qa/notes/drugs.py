"""Drugs: their names, and behind each what the note says of dose, route and frequency, up to the next drug or the end of the sentence."""

import re
from typing import Final

from .fields import Drug, Sourced, Use
from .layout import Layout, Sentence
from .vocabulary import Mention

_NUMBERS: Final = {"half": "0.5", "one": "1", "two": "2", "three": "3", "four": "4"}
_AMOUNT: Final = r"\d[\d,]*(?:\.\d+)?"
_MEASURE: Final = (
    r"mcg/kg/min|mg/kg/day|mg/kg|mcg/hr?|mg/hr?|units?/hr?|milligrams?|micrograms?|grams?|mg|mcgs?|[uµ]g|gm?|iu|units?|u|meq|mmol|mls?|cc|%"
    r"|tablets?|tabs?|capsules?|caps?|puffs?|sprays?|drops?|gtts?|inhalations?|patch(?:es)?|suppositor(?:y|ies)|sachets?|lozenges?"
)
_DOSE: Final = re.compile(
    rf"(?<![\w./])(?:from\s+{_AMOUNT}\s*(?:{_MEASURE})?\s+to\s+)?"
    rf"(?P<amount>{_AMOUNT}(?:\s?(?:-|\u2013|to|/)\s?{_AMOUNT})?|\b(?:half|one|two|three|four)(?: an?)?)\s*-?(?P<unit>{_MEASURE})(?![\w/])"
    rf"(?!\s*/\s*{_AMOUNT}?\s*(?:ml|day))",
    re.IGNORECASE,
)
_BEFORE: Final = re.compile(
    rf"(?P<amount>{_AMOUNT}(?:-{_AMOUNT})?|\b(?:half|one|two|three|four)(?: an?)?)\s*(?P<unit>{_MEASURE})\s+(?:of\s+|(?:iv|po)\s+)?$",
    re.IGNORECASE,
)
_UNITS: Final = [
    (re.compile(r"^(milligrams?)$"), "mg"),
    (re.compile(r"^(mcgs?|ug|µg|micrograms?)$"), "mcg"),
    (re.compile(r"^(gm?|grams?)$"), "g"),
    (re.compile(r"^(iu|units?|u)$"), "units"),
    (re.compile(r"^(mls?|cc)$"), "mL"),
    (re.compile(r"^meq$"), "mEq"),
    (re.compile(r"^(tablet|tab|capsule|cap|puff|spray|drop|inhalation|sachet|lozenge)s?$"), r"\1"),
    (re.compile(r"^tab$"), "tablet"),
    (re.compile(r"^cap$"), "capsule"),
    (re.compile(r"^gtts?$"), "drop"),
    (re.compile(r"/hr?$"), "/h"),
]
_COUNTED: Final = ("tablet", "capsule", "puff", "spray", "drop", "inhalation", "sachet", "lozenge")

_ROUTES: Final = [
    (route, re.compile(pattern, re.IGNORECASE))
    for route, pattern in (
        ("sublingual", r"\bs\.?l\b\.?|\bsublingual(?:ly)?\b|under the tongue"),
        ("intravenous", r"\bi\.?v\b\.?|\bintravenous(?:ly)?\b"),
        ("intramuscular", r"\bi\.?m\b\.?|\bintramuscular(?:ly)?\b"),
        ("subcutaneous", r"\bs\.?c\b\.?|\bsub-?q\b|\bsq\b|\bsub-?cut\b|\bsubcutaneous(?:ly)?\b|under the skin"),
        ("rectal", r"\bp\.?r\b\.?|\brectal(?:ly)?\b|\bsuppositor(?:y|ies)\b"),
        ("vaginal", r"\bp\.?v\b\.?|\bvaginal(?:ly)?\b"),
        ("nasal", r"\bnasal(?:ly)?\b|\bnostrils?\b|\bintranasal(?:ly)?\b"),
        ("ophthalmic", r"\beye ?drops?\b|\b(?:both|each|right|left|affected) eyes?\b|\bophth(?:almic)?\b|\bO[UDS]\b(?= )"),
        ("otic", r"\bear ?drops?\b|\botic\b"),
        ("transdermal", r"\bpatch(?:es)?\b|\btransdermal(?:ly)?\b"),
        ("inhaled", r"\binh(?:aled|alations?|aler)?\b|\bpuffs?\b|\bneb(?:s|uli[sz]ed|uli[sz]er)?\b"),
        ("topical", r"\btopical(?:ly)?\b|\bcream\b|\bointment\b|\bgel\b|\blotion\b|\bshampoo\b"),
        ("oral", r"\bp\.?o\b\.?|\boral(?:ly)?\b|\bby mouth\b|\bodt\b"),
    )
]

_EVERY: Final = re.compile(
    r"\b(?:q\.?\s?|every\s+)(?P<count>\d+(?:\s?(?:-|\u2013|to)\s?\d+)?)\s*-?(?P<unit>h(?:ou)?rs?|h|days?|d|w(?:ee)?ks?|w)\b", re.IGNORECASE
)
_FREQUENCIES: Final = [
    (frequency, re.compile(pattern, re.IGNORECASE))
    for frequency, pattern in (
        ("every other day", r"\bq\.?o\.?d\b|\bevery other day\b|\balternate days?\b"),
        ("twice weekly", r"\b(?:twice|2x|two times)\s*(?:/|a |per )?\s*week(?:ly)?\b"),
        ("three times weekly", r"\b(?:three times|3x)\s*(?:/|a |per )?\s*week(?:ly)?\b"),
        ("weekly", r"\b(?:once )?weekly\b|\bonce (?:a|per) week\b|\bevery week\b|\bq\.?\s?w(?:ee)?k\b"),
        ("monthly", r"\b(?:once )?monthly\b|\bonce a month\b|\bevery month\b"),
        ("four times daily", r"\bq\.?i\.?d\b|\bqds\b|\b(?:four times|4x)\s*(?:/|a |per )?\s*da(?:il)?y\b"),
        ("three times daily", r"\bt\.?i\.?d\b|\btds\b|\b(?:three times|3x|thrice)\s*(?:/|a |per )?\s*da(?:il)?y\b"),
        ("twice daily", r"\bb\.?i\.?d\b|\bbd\b|\b(?:twice|two times|2x)\s*(?:/|a |per )?\s*da(?:il)?y\b"),
        ("at bedtime", r"\bq?\.?hs\b|\bat bedtime\b|\bnightly\b|\bat night\b|\bevery night\b|\bbefore bed\b|\bnocte\b"),
        ("every morning", r"\bq\.?\s?a\.?m\b|\bevery morning\b|\beach morning\b|\bin the morning\b|\bmane\b"),
        ("every evening", r"\bq\.?\s?p\.?m\b|\bevery evening\b|\bin the evening\b"),
        ("once daily", r"\b(?:once )?daily\b|\bq\.?d\b|\bo\.?d\b|\bonce (?:a|per) day\b|\bevery day\b|\beach day\b|\bq24h\b"),
        ("once", r"\bx\s?1\b|\bonce\b|\bstat\b|\bsingle dose\b"),
    )
]
_AS_NEEDED: Final = re.compile(r"\bp\.?r\.?n\b|\bas needed\b|\bif needed\b|\bwhen required\b", re.IGNORECASE)

_STOP_BEFORE: Final = re.compile(
    r"\b(?:stop(?:ped|ping)?|d/?c(?:'?d|ed)?|discontinu(?:e|ed|ing)|held|hold(?:ing)?|(?:weaned|taken|now) off|off of"
    r"|ceased?|no longer (?:takes|taking|on|uses))"
    r"\b[\s:]*(?:taking |the |her |his |home |regular |use of )*$",
    re.IGNORECASE,
)
_STOP_AFTER: Final = re.compile(
    r"^[^.;,]{0,60}?\b(?:(?:was|were|been|is|has been)\s+(?:\w+\s+)?(?:stopped|discontinued|held|ceased|withdrawn)"
    r"|stopped|discontinued|held|d/?c'?d"
    r"|no longer tak\w+|completed)\b|^[^.;]{0,30},\s*(?:stopped|discontinued)\b",
    re.IGNORECASE,
)
_ALLERGY_BEFORE: Final = re.compile(r"\b(?:allerg(?:ic|y|ies) to|anaphyla\w+ to|intoleran(?:t|ce) (?:of|to))\b[^.;]{0,60}$", re.IGNORECASE)
_ALLERGY_AFTER: Final = re.compile(r"^\s*(?:allergy|allergic|intoleran)", re.IGNORECASE)


def read_drugs(text: str, layout: Layout, found: list[Mention], taken: list[tuple[int, int]]) -> list[Drug]:
    """All drugs of a note, in order; `taken` are the spans of names that turned out to be laboratory values."""
    drugs = []
    named = [mention for mention in found if mention.names("drug") and (mention.start, mention.stop) not in taken]
    for at, mention in enumerate(named):
        sentence = layout.at(mention.start)
        if re.match(r"\s+(?:level|trough)\b", text[mention.stop :]):
            continue
        following = named[at + 1].start if at + 1 < len(named) else len(text)
        stop = min(sentence.stop, following)
        drugs.append(_drug(text, mention, sentence, stop))
    return drugs


def _drug(text: str, mention: Mention, sentence: Sentence, stop: int) -> Drug:
    name = Sourced(mention.names("drug")[0], mention.start, mention.stop)
    status = Sourced[Use](_use(text, mention, sentence, stop), mention.start, mention.stop)
    if status.value == "allergic":
        return Drug(name, status)
    behind = text[mention.stop : stop]
    stop = mention.stop + len(behind.partition(";")[0])
    dose = _dose(text, mention, stop)
    return Drug(name, status, dose, _route(text, mention, stop), _frequency(text, mention.stop, stop))


def _use(text: str, mention: Mention, sentence: Sentence, stop: int) -> Use:
    before, after = text[sentence.start : mention.start], text[mention.stop : stop]
    if sentence.section == "allergies" or _ALLERGY_BEFORE.search(before) or _ALLERGY_AFTER.match(after):
        return "allergic"
    stopped = sentence.section == "stopped" or _STOP_BEFORE.search(before) or _STOP_AFTER.match(after)
    return "stopped" if stopped else "taking"


def _dose(text: str, mention: Mention, stop: int) -> Sourced[str] | None:
    match = _DOSE.search(text, mention.stop, stop) or _BEFORE.search(text, max(0, mention.start - 30), mention.start)
    if match is None:
        return None
    amount = re.sub(r"\s?(?:-|\u2013|to)\s?", "-", match["amount"].replace(",", ""))
    amount = _NUMBERS.get(amount.lower().split()[0], amount).replace(" ", "")
    unit = match["unit"].lower()
    for form, usual in _UNITS:
        unit = form.sub(usual, unit)
    plural = "s" if unit in _COUNTED and amount != "1" else ""
    return Sourced(f"{amount} {unit}{plural}", match.start("amount"), match.end())


def _route(text: str, mention: Mention, stop: int) -> Sourced[str] | None:
    found = [(match.start(), match.end(), route) for route, form in _ROUTES if (match := form.search(text, mention.stop, stop))]
    if not found:
        return None
    # A word comes before a form that implies a route: "2 puffs nasal" is nasal, "patch" alone transdermal; the list is in that order.
    start, end, route = found[0]
    return Sourced(route, start, end)


def _frequency(text: str, start: int, stop: int) -> Sourced[str] | None:
    found = [(match.start(), match.end(), frequency) for frequency, form in _FREQUENCIES if (match := form.search(text, start, stop))]
    if every := _EVERY.search(text, start, stop):
        found.append((every.start(), every.end(), _every(every)))
    needed = _AS_NEEDED.search(text, start, stop)
    if not found:
        return Sourced("as needed", needed.start(), needed.end()) if needed else None
    begin, end, frequency = min(found, key=lambda one: (one[0], -one[1]))
    if needed and needed.start() - end < 20:
        return Sourced(f"{frequency} as needed", begin, needed.end())
    return Sourced(frequency, begin, end)


def _every(match: re.Match[str]) -> str:
    count = re.sub(r"\s?(?:-|\u2013|to)\s?", "-", match["count"])
    unit = {"h": "hours", "d": "days", "w": "weeks"}[match["unit"][0].lower()]
    return {"24 hours": "once daily", "1 days": "once daily", "1 weeks": "weekly"}.get(f"{count} {unit}", f"every {count} {unit}")
