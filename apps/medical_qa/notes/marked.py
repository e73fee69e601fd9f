"""Notes in which it is marked what a reader should find, and how much of it one finds. `data/notes/README.md` tells how they are marked."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from .fields import Record, fields_of

FOLDER: Final = Path(__file__).parents[1] / "data" / "notes"

_MARK: Final = re.compile(r"\{|#(?P<kind>[pdle]) (?P<fields>[^{}#]*)\}")
_FAMILY: Final = re.compile(r"family\s*(\w*)")


class Truth(NamedTuple):
    """A field that a note has, and the text that says so; `item` tells which of the note's items it is of."""

    item: tuple[str, ...]
    field: str
    value: str
    start: int
    stop: int


class MarkedNote(NamedTuple):
    """A note without its marks, and its fields."""

    id: str
    text: str
    fields: list[Truth]


class Score(NamedTuple):
    """How many fields there are, how many were read, and how many of these are right."""

    there: int
    read: int
    right: int

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        return 2 * self.right / max(1, self.there + self.read)


def read_marked(path: Path) -> list[MarkedNote]:
    """The notes of a file."""
    parts = re.split(r"^== (\w+).*\n", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return [_note(id_, marked.strip()) for id_, marked in zip(parts[::2], parts[1::2], strict=True)]


def compare(note: MarkedNote, record: Record) -> tuple[Counter[str], list[str]]:
    """What was read of a note against what is there: `there`, `read` and `right`, and each difference in words.

    A field is right if its item, its name and its value are, and its item was read from where the note says it. An event is right
    if the marked word is in what was read for the same date.
    """
    there = {(one.item, one.field, one.value) for one in note.fields}
    read = {(item, field, value): places for item, field, value, places in _read(record)}
    right = {key for key, places in read.items() if any(_says(key, one) and _overlap(places, one) for one in note.fields)}
    found = {(one.item, one.field, one.value) for one in note.fields for key in right if _says(key, one)}
    differences = [f"{note.id} missed {key}" for key in sorted(there - found)] + [
        f"{note.id} wrong {key}" for key in sorted(set(read) - right)
    ]
    return Counter(there=len(there), read=len(read), right=len(right)), differences


def total(counts: "list[Counter[str]]") -> Score:
    """All notes together: F1 over fields, not over notes."""
    whole = sum(counts, Counter())
    return Score(whole["there"], whole["read"], whole["right"])


def _note(id_: str, marked: str) -> MarkedNote:
    text, fields, open_, place = "", list[Truth](), list[int](), 0
    for match in _MARK.finditer(marked):
        text += marked[place : match.start()]
        place = match.end()
        if match["kind"] is None:
            open_.append(len(text))
        else:
            start = open_.pop()
            values = [value.strip() for value in match["fields"].split(";")]
            fields += [Truth(item, name, value, start, len(text)) for item, name, value in _fields(match["kind"], values)]
    return MarkedNote(id_, text + marked[place:], fields)


def _fields(kind: str, values: list[str]) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """The fields of a mark: which item they are of, their names and values."""
    first, *rest = [*values, *[""] * (5 - len(values))]
    item: tuple[str, ...]
    if kind == "p":
        family = _FAMILY.fullmatch(rest[0])
        item = ("problem", first, "family" if family else rest[0] or "present")
        named = {"name": first, "status": item[2], "relative": family[1] if family else ""}
    elif kind == "d":
        item = ("drug", first)
        named = {"name": first, "dose": rest[0], "route": rest[1], "frequency": rest[2], "status": rest[3] or "taking"}
    elif kind == "l":
        item = ("laboratory", first, rest[0])
        named = {"name": first, "value": rest[0], "unit": rest[1], "flag": rest[2]}
    else:
        item = ("event", first)
        named = {"date": first, "what": rest[0].lower()}
    yield from ((item, name, value) for name, value in named.items() if value)


def _read(record: Record) -> "Iterator[tuple[tuple[str, ...], str, str, list[tuple[int, int]]]]":
    """The fields of a record in the same shape, each once, with all places where its item is named."""
    places: dict[tuple[tuple[str, ...], str, str], list[tuple[int, int]]] = {}
    for one in record.items():
        kind, fields = type(one).__name__.lower(), fields_of(one)
        anchor = fields["date"] if kind == "event" else fields["name"]
        place = fields["value"] if kind == "laboratory" else anchor
        more = {"problem": "status", "laboratory": "value"}.get(kind)
        item = (kind, anchor.value, fields[more].value) if more else (kind, anchor.value)
        for name, field in fields.items():
            value = field.value.lower() if kind == "event" else field.value
            places.setdefault((item, name, value), []).append((place.start, place.stop))
    yield from ((*key, where) for key, where in places.items())


def _says(read: tuple[tuple[str, ...], str, str], truth: Truth) -> bool:
    item, field, value = read
    same = truth.value in value if field == "what" else truth.value == value
    return item == truth.item and field == truth.field and same


def _overlap(places: list[tuple[int, int]], truth: Truth) -> bool:
    return any(start < truth.stop and truth.start < stop for start, stop in places)
