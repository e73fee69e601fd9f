"""What a note says, as a structure: each value with the span of the note that it was read from.

The types are the validation: a record that is decoded from JSON has these fields with these words and nothing else, and `misplaced` tells
of spans that are not in a text.
"""

from collections.abc import Iterator
from typing import Annotated, Generic, Literal, TypeVar

import msgspec
from msgspec import Meta

T = TypeVar("T")

Status = Literal["present", "absent", "past", "suspected", "family"]
Use = Literal["taking", "stopped", "allergic"]
Flag = Literal["high", "low", "normal"]
Words = Annotated[str, Meta(min_length=1, max_length=200)]
Number = Annotated[str, Meta(pattern=r"^[<>]?\d+(\.\d+)?\Z")]
Date = Annotated[str, Meta(pattern=r"^\d{4}(-\d{2}(-\d{2})?)?\Z")]


class Sourced(msgspec.Struct, Generic[T], frozen=True, forbid_unknown_fields=True):
    """A value, and where the note says so: the characters `start` to `stop`."""

    value: T
    start: int
    stop: int


class Problem(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A disease or a complaint, by its usual name, and whether the patient has it; `relative` is who has it, if that is said."""

    name: Sourced[Words]
    status: Sourced[Status]
    relative: Sourced[Words] | None = None


class Drug(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A drug by its generic name, and how it is taken as far as the note says."""

    name: Sourced[Words]
    status: Sourced[Use]
    dose: Sourced[Words] | None = None
    route: Sourced[Words] | None = None
    frequency: Sourced[Words] | None = None


class Laboratory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A measured value; `flag` is the note's own, or that of the range in the note, or of the usual range of adults."""

    name: Sourced[Words]
    value: Sourced[Number]
    unit: Sourced[Words] | None = None
    flag: Sourced[Flag] | None = None


class Event(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A day, month or year, and the note's own words of what happened."""

    date: Sourced[Date]
    what: Sourced[Words]


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that was read from a note, each kind in the order of the text; events by date."""

    problems: list[Problem] = []
    drugs: list[Drug] = []
    laboratory: list[Laboratory] = []
    timeline: list[Event] = []

    def items(self) -> "Iterator[Problem | Drug | Laboratory | Event]":
        """All of them."""
        yield from self.problems
        yield from self.drugs
        yield from self.laboratory
        yield from self.timeline


def fields_of(item: Problem | Drug | Laboratory | Event) -> "dict[str, Sourced[str]]":
    """The fields of an item that the note fills."""
    found = {name: getattr(item, name) for name in item.__struct_fields__}
    return {name: field for name, field in found.items() if field is not None}


def misplaced(record: Record, text: str) -> list[str]:
    """The fields that do not point into the text; none in a sound record."""
    return [
        f"{type(item).__name__.lower()} {name}: {field.value}"
        for item in record.items()
        for name, field in fields_of(item).items()
        if not 0 <= field.start < field.stop <= len(text)
    ]
