"""How answers and records are shown: tables for people, JSON for programs, and a record as an HTML page with its sources marked."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .answers import NOTICE, Answer
from .notes.fields import Laboratory, Sourced, fields_of
from .records import Kept

_WIDTH: Final = 72
"""Characters of a source that a table shows."""


def show_answer(console: Console, answer: Answer) -> None:
    """The answer, and the passages that it rests on."""
    style = "bold red" if answer.emergency else "yellow" if answer.refused else "cyan"
    console.print(Text(answer.answer, style=style))
    for citation in answer.citations:
        console.print(Text.assemble((f"  [{citation.id}] {citation.title} ", "dim bold"), (f"({citation.similarity:.2f})", "dim")))
    if answer.citations:
        console.print(Text(f"  {NOTICE}", style="dim italic"))


def show_record(console: Console, kept: Kept) -> None:
    """Every field of a record with the words that it was read from."""
    table = Table(title=f"record {kept.id}", title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in ("what", "name", "fields", "source"):
        table.add_column(column, overflow="fold")
    for item in kept.record.items():
        fields = fields_of(item)
        first, *rest = fields.items()
        said = ", ".join(f"{name} {field.value}" for name, field in rest)
        table.add_row(
            type(item).__name__.lower(), Text(first[1].value), Text(said), Text(words_of(kept.text, list(fields.values())), style="dim")
        )
    console.print(table)


def words_of(text: str, fields: list[Sourced[str]]) -> str:
    """The words from the first to the last of some fields, shortened to fit a table."""
    words = " ".join(text[min(field.start for field in fields) : max(field.stop for field in fields)].split())
    return words if len(words) <= _WIDTH else f"{words[: _WIDTH - 1]}…"


def page_of(kept: Kept) -> str:
    """A record as one HTML page that needs nothing else: tables, the laboratory values as a chart, and the note with its sources marked."""
    folder = Path(__file__).with_name("data")
    environment = Environment(
        loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    tables: dict[str, list[dict[str, str]]] = {}
    for item in kept.record.items():
        tables.setdefault(type(item).__name__.lower(), []).append({name: field.value for name, field in fields_of(item).items()})
    bars = [bar for value in kept.record.laboratory if (bar := _bar(value))]
    return environment.get_template("record.html").render(id=kept.id, tables=tables, bars=bars, note=list(_marked(kept)), notice=NOTICE)


def _bar(value: Laboratory) -> dict[str, Any] | None:
    """A bar of three parts: below, within and above the range; a value stands in the middle of its part."""
    if value.flag is None:
        return None
    place = {"low": 1 / 6, "normal": 1 / 2, "high": 5 / 6}[value.flag.value]
    unit = f" {value.unit.value}" if value.unit else ""
    return {"name": value.name.value, "told": f"{value.value.value}{unit}", "flag": value.flag.value, "place": round(100 * place)}


def _marked(kept: Kept) -> Iterator[tuple[str, str]]:
    """The note in pieces, each with the fields that were read from it (empty: none)."""
    spans: dict[tuple[int, int], list[str]] = {}
    for item in kept.record.items():
        for name, field in fields_of(item).items():
            spans.setdefault((field.start, field.stop), []).append(f"{type(item).__name__.lower()} {name}: {field.value}")
    borders = sorted({0, len(kept.text), *(place for span in spans for place in span)})
    for start, stop in pairwise(borders):
        told = [one for (first, last), names in spans.items() if first <= start and stop <= last for one in names]
        yield kept.text[start:stop], "; ".join(told)
