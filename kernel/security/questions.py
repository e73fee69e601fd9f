"""What the policy can be asked: the needs of the table of system calls, with what each of their fields may hold.

A rule that no call ever asks about is a slip of the pen, and a `deny` of that kind denies nothing.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from string import Formatter
from typing import Any, Final

from msgspec import inspect as shapes

from kernos.syscalls.bounds import Principal
from kernos.syscalls.table import TABLE, Row

from .patterns import MANY, ONE

_PRINCIPAL: Final = str(shapes.type_info(Principal).pattern)  # type: ignore[attr-defined]
_WHOSE: Final = re.compile(rf"(own|shared|{_PRINCIPAL.removeprefix('^')})")

_WILDCARDS: Final = 3
"""Wildcards of a rule that are tried out; one with more of them is taken to match something."""


@dataclass(frozen=True)
class Need:
    """An object of a call and the action on it: fixed segments, and what the fields may hold. A field of several segments stands last."""

    object: str
    action: str
    parts: tuple[re.Pattern[str], ...]
    long: bool

    def meets(self, segments: tuple[str, ...]) -> bool:
        """Whether a pattern, cut into segments, matches some object of this kind."""
        if segments == (MANY,):
            return True
        open_end = segments[-1] == MANY
        plain = segments[:-1] if open_end else segments
        head = self.parts[:-1] if self.long else self.parts
        if len(plain) < len(head):
            return open_end and _each_fits(head, plain)
        if not self.long:
            return len(plain) == len(head) and _each_fits(head, plain)
        return _each_fits(head, plain) and _fits_long(self.parts[-1], plain[len(head) :], open_end)


def _each_fits(parts: tuple[re.Pattern[str], ...], segments: tuple[str, ...]) -> bool:
    return all(segment == ONE or part.match(segment) for part, segment in zip(parts, segments, strict=False))


def _fits_long(part: re.Pattern[str], segments: tuple[str, ...], open_end: bool) -> bool:
    """Wildcards are tried out with the words that the field's own pattern holds, and with `1`, which is a name as well as a number."""
    if segments.count(ONE) > _WILDCARDS:
        return True
    samples = ("1", *re.findall(r"[a-z]{2,}", part.pattern))
    ends = [(), ("1",), *((word, "1") for word in samples)] if open_end else [()]
    choices = [samples if segment == ONE else (segment,) for segment in segments]
    return any(part.match("/".join((*chosen, *end))) for chosen in product(*choices) for end in ends if chosen or end)


def _needs() -> dict[tuple[str, str], Need]:
    found: dict[tuple[str, str], Need] = {}
    for row in TABLE:
        for object_, action in row.needs:
            parts = tuple(_part(row, segment) for segment in object_.split("/"))
            found[object_, action] = Need(object_, action, parts, any("/" in part.pattern for part in parts))
    return found


def _part(row: Row, segment: str) -> re.Pattern[str]:
    field = next(iter(Formatter().parse(segment)))[1]
    if field is None:
        return re.compile(rf"{re.escape(segment)}\Z")
    if field in ("whose", "raised"):
        return _WHOSE
    shape = shapes.type_info(row.call)
    assert isinstance(shape, shapes.StructType)  # noqa: S101  (every call is one)
    return re.compile(_values(next(entry.type for entry in shape.fields if entry.name == field)))


def _values(shape: Any) -> str:
    """A regular expression of what a field may hold."""
    match shape:
        case shapes.UnionType(types):
            return "|".join(_values(kind) for kind in types if not isinstance(kind, shapes.NoneType))
        case shapes.LiteralType(values):
            return rf"({'|'.join(map(str, values))})\Z"
        case shapes.StrType(pattern=str(pattern)):
            return pattern
    return r"[^/]+\Z"


NEEDS: Final = tuple(_needs().values())
"""Every pair of an object and an action that some call asks for."""

ACTIONS: Final[dict[str, tuple[str, ...]]] = {
    head: tuple(dict.fromkeys(need.action for need in NEEDS if need.object.partition("/")[0] == head))
    for head in dict.fromkeys(need.object.partition("/")[0] for need in NEEDS)
}
"""The actions there are, by the first segment of the objects they are done to."""


_BY_HEAD: Final = {head: tuple(need for need in NEEDS if need.object.partition("/")[0] == head) for head in ACTIONS}


def _near(segments: Sequence[str]) -> tuple[Need, ...]:
    """The needs that can come into question for a pattern."""
    return NEEDS if segments[0] in (ONE, MANY) else _BY_HEAD.get(segments[0], ())


@lru_cache(maxsize=65_536)
def askable(pattern: str, action: str) -> bool:
    """Whether some call asks for this action on an object that the pattern matches; the action may be `*`."""
    segments = tuple(pattern.split("/"))
    return any(action in (ONE, need.action) and need.meets(segments) for need in _near(segments))


@lru_cache(maxsize=65_536)
def actions_on(path: str) -> tuple[str, ...]:
    """The actions that calls ask for on a path as `kinds_of_paths` makes them, where a last `**` is one or more segments."""
    *segments, last = path.split("/")
    segments += [ONE, MANY] if last == MANY else [last]
    return tuple(dict.fromkeys(need.action for need in _near(segments) if need.meets(tuple(segments))))
