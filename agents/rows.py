"""Rows of a file that somebody brings: CSV with a heading, or JSONL (a JSON document per line).

    for question in good_rows(path, Question): ...

Every row is checked against a type, a `msgspec.Struct` whose fields are the columns. A row that does not fit is left out and told with
its line number; the others are used. Columns that the type does not name are ignored.
"""

import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Final, Generic, NamedTuple, TextIO, TypeVar

import msgspec

T = TypeVar("T", bound=msgspec.Struct)

_TOLD: Final = 10
"""Bad rows that a report names one by one."""


class InputError(Exception):
    """A file that the user named cannot be used; the text says where and why."""


class BadRow(NamedTuple):
    """A row that was left out: the line on which it begins, from 1, and what is wrong with it."""

    line: int
    reason: str


@dataclass(frozen=True)
class Rows(Generic[T]):
    """What a file held."""

    path: Path
    rows: list[T]
    bad: list[BadRow]

    def report(self, out: TextIO) -> None:
        """Say which rows were left out; nothing if there are none."""
        for row in self.bad[:_TOLD]:
            print(f"{self.path}, line {row.line}, is left out: {row.reason}", file=out)
        if len(self.bad) > _TOLD:
            print(f"{self.path}: {len(self.bad) - _TOLD} more lines are left out.", file=out)


def read_rows(path: Path, kind: type[T]) -> Rows[T]:
    """The rows of a file as `kind`; it is CSV if its name ends in `.csv`, else JSONL. `InputError` for a file without a single good row."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}. It should be a file of text in UTF-8.") from None
    found = list(_csv_rows(path, text, kind) if path.suffix.lower() == ".csv" else _json_rows(text, kind))
    rows, bad = [row for row in found if not isinstance(row, BadRow)], [row for row in found if isinstance(row, BadRow)]
    if not rows:
        why = f"line {bad[0].line}: {bad[0].reason}" if bad else "it is empty"
        raise InputError(f"{path} holds no row that can be used; {why}.")
    return Rows(path, rows, bad)


def good_rows(path: Path, kind: type[T]) -> list[T]:
    """The good rows of a file; the bad ones are told on standard error. See `read_rows`."""
    found = read_rows(path, kind)
    found.report(sys.stderr)
    return found.rows


def _json_rows(text: str, kind: type[T]) -> Iterator[T | BadRow]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield msgspec.json.decode(line, type=kind)
            except msgspec.MsgspecError as error:
                yield BadRow(number, str(error))


def _csv_rows(path: Path, text: str, kind: type[T]) -> Iterator[T | BadRow]:
    reader = csv.reader(StringIO(text, newline=""), strict=True)
    heading = _heading(path, reader, kind)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
            if cells is None:
                return
            if cells:  # not an empty line
                yield _convert(heading, cells, kind)
        except (csv.Error, msgspec.MsgspecError) as error:
            yield BadRow(line, str(error))


def _heading(path: Path, reader: Iterator[list[str]], kind: type[T]) -> list[str]:
    try:
        heading = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise InputError(f"{path}, line 1, is no heading: {error}.") from None
    wanted = [field.encode_name for field in msgspec.structs.fields(kind) if field.required]
    if missing := [name for name in wanted if name not in heading]:
        raise InputError(f"{path} has no column {', '.join(missing)}. Its first line should name the columns: {', '.join(wanted)}.")
    return heading


def _convert(heading: list[str], cells: list[str], kind: type[T]) -> T:
    """A row's cells as a `kind`; an empty cell counts as one that is not there."""
    if len(cells) != len(heading):
        raise msgspec.ValidationError(f"it has {len(cells)} cells, and the heading {len(heading)}")
    return msgspec.convert({name: cell for name, cell in zip(heading, cells, strict=True) if cell}, kind, strict=False)
