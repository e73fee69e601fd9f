"""`kernos audit`: what was decided, by whom it was asked, and whether the log of it stands as it was written."""

import time
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

import click

from kernos.syscalls import Kernel
from kernos.syscalls.audit import Entry, ExportAudit, ReadAudit, VerifyAudit

from .output import json_option, print_json, print_table
from .session import ask

DAMAGED: Final = 1
"""`kernos audit verify` ends with it if something is not as it was written."""

_LOOK_S: Final = 0.5
"""How often a followed log is asked for more."""

_COLUMNS: Final = ("NUMBER", "TIME", "PRINCIPAL", "AGENT", "USER", "CALL", "VERDICT", "OUTCOME", "ABOUT")


@click.group()
def audit() -> None:
    """Read and verify the log of denied calls and of calls that changed something."""


@audit.command()
@click.option("--lines", "-n", type=click.IntRange(1, 1_000), default=20, show_default=True, help="How many of the last entries.")
@click.option("--follow", "-f", is_flag=True, help="Go on printing as entries are written, until interrupted.")
@json_option
def tail(lines: int, follow: bool, as_json: bool) -> None:
    """Print the last entries."""
    entries = ask(ReadAudit(limit=lines)).entries
    _print(entries, as_json)
    while follow:
        time.sleep(_LOOK_S)
        last = entries[-1].number if entries else 0
        if more := ask(ReadAudit(limit=1_000, after=last)).entries:
            entries = more
            _print(entries, as_json)


@audit.command()
@click.argument("text", default="")
@click.option("--principal", default="", help="Calls of this principal, or made on behalf of this user.")
@click.option("--call", default="", help="This call (tool.call) or family of calls (tool).")
@click.option("--verdict", type=click.Choice(["allow", "deny"]), default=None, help="Only what was allowed, or only what was denied.")
@click.option("--since", type=click.DateTime(), help="Not before this time, as 2026-11-25 or 2026-11-25T14:30:00, of this machine's clock.")
@click.option("--until", type=click.DateTime(), help="Not after this time.")
@click.option("--limit", type=click.IntRange(1, 1_000), default=100, show_default=True, help="How many at the most; the newest are kept.")
@json_option
def search(
    text: str,
    principal: str,
    call: str,
    verdict: Literal["allow", "deny"] | None,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    as_json: bool,
) -> None:
    """Print the newest entries that fit; TEXT stands in what was asked for, the rule, the policy's hash or the outcome."""
    question = ReadAudit(
        limit=limit,
        principal=principal,
        name=call,
        text=text,
        verdict=verdict or "",
        since=since.timestamp() if since else 0.0,
        until=until.timestamp() if until else None,
    )
    _print(ask(question).entries, as_json)


@audit.command()
@json_option
@click.pass_context
def verify(ctx: click.Context, as_json: bool) -> None:
    """Check the whole log, and say where it is not as it was written; ends with 1 then."""
    found = ask(VerifyAudit())
    if as_json:
        print_json(found)
    elif found.findings:
        print_table(("FILE", "LINE", "BYTE", "WHAT"), [(one.file, one.line, one.offset, one.what) for one in found.findings])
        click.echo(f"{found.entries} entries in {found.files} files are as they were written; the rest is above.", err=True)
    else:
        click.echo(f"All {found.entries} entries in {found.files} files are as they were written, up to number {found.last}.")
    ctx.exit(DAMAGED if found.findings else 0)


@audit.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--start", type=click.IntRange(min=0), default=0, help="Begin with the entry of this number.")
def export(file: Path, start: int) -> None:
    """Copy the log's own lines, seals included, to a new FILE."""
    count, next_ = 0, start
    with file.open("x", encoding="utf-8") as out, Kernel() as kernel:
        while next_ or not count:
            part = kernel.call(ExportAudit(start=next_))
            out.writelines(line + "\n" for line in part.lines)
            count, next_ = count + len(part.lines), part.next
            if not part.lines:
                break
    click.echo(f"{count} entries are in {file}.")


def _print(entries: list[Entry], as_json: bool) -> None:
    if as_json:
        print_json(entries)
    elif entries:
        print_table(_COLUMNS, [_row(entry) for entry in entries])


def _row(entry: Entry) -> tuple[object, ...]:
    when = datetime.fromtimestamp(entry.time).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    about = ", ".join(entry.objects) + (f"  by {entry.rule}" if entry.rule else "")
    call = entry.call or f"(end of {entry.of})"
    return entry.number, when, entry.principal or "-", entry.pid or "-", entry.user or "-", call, entry.verdict, entry.outcome or "…", about
