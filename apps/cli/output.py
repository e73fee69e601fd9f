"""How the commands speak: tables for people, one JSON document for programs, errors that say what to do next."""

import sys
from collections.abc import Sequence
from typing import Any, Final

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kernos.syscalls.errors import KernosError

_PIPE_WIDTH: Final = 240
"""Characters of a line that nobody looks at on a terminal: programs want rows whole."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document; its keys are the fields of the system call.")


def console() -> Console:
    """Standard output as it is now. Text is printed as it stands: names may hold what rich would take for markup."""
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    return Console(width=width, markup=False, highlight=False, emoji=False, soft_wrap=False)


def print_json(data: Any) -> None:
    """A reply, or anything that msgspec can write, as JSON."""
    click.echo(msgspec.json.format(msgspec.json.encode(msgspec.to_builtins(data)), indent=2))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table without lines; columns of whole numbers stand to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for at, name in enumerate(columns):
        numbers = bool(rows) and all(isinstance(row[at], int) for row in rows)
        table.add_column(name, justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    console().print(table)


def print_error(error: KernosError) -> None:
    """What happened, the facts, and what to do, on standard error."""
    click.secho(f"error[{error.code}]: {error.message}", fg="red", err=True)
    for name, value in error.details.items():
        click.echo(f"  {name}: {value or '-'}", err=True)
    when = f" (after {error.retry_after:g} s)" if error.retry_after else ""
    click.echo(f"what to do: {error.advice}{when}", err=True)


def span(seconds: float) -> str:
    """A duration in two units at most: 4.2s, 3m05s, 2h10m, 5d03h."""
    if seconds < 60:
        return f"{seconds:.1f}s" if seconds < 10 else f"{seconds:.0f}s"
    minutes, hours, days = int(seconds // 60), int(seconds // 3_600), int(seconds // 86_400)
    if not hours:
        return f"{minutes}m{int(seconds % 60):02}s"
    return f"{days}d{hours % 24:02}h" if days else f"{hours}h{minutes % 60:02}m"


def size(count: float) -> str:
    """Bytes in powers of a thousand: 269 MB."""
    units = ["TB", "GB", "MB", "kB", "B"]
    while count >= 1_000 and len(units) > 1:
        count /= 1_000
        units.pop()
    return f"{count:.3g} {units[-1]}"
