"""`shadow` and `suggest`: what calls really ask for, as a judge of policies."""

import re
from pathlib import Path
from time import time
from typing import Any, Final

import click

from kernos.syscalls.policy import ReadShadow, ShadowPolicy, SuggestPolicy
from kernos.syscalls.sources import read_files

from ..output import json_option, print_json, print_table
from ..session import ask
from .offline import folder_argument

_UNITS: Final = {"m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


@click.command()
@folder_argument
@click.option("--report", is_flag=True, help="Show where it decided differently so far.")
@click.option("--stop", is_flag=True, help="End the trial.")
@json_option
def shadow(folder: Path | None, report: bool, stop: bool, as_json: bool) -> None:
    """Let the policy in FOLDER be asked beside the one in force. It decides nothing; where it differs is kept for --report.

    A trial ends with --stop, with another trial, or with the kernel.
    """
    if sum((folder is not None, report, stop)) != 1:
        raise click.UsageError("name a folder, or --report, or --stop")
    if folder is not None:
        ask(ShadowPolicy(files=read_files(folder)))
        click.echo("The policy runs in the shadow. See `kernos policy shadow --report`.")
    elif stop:
        ask(ShadowPolicy())
        click.echo("No policy runs in the shadow.")
    else:
        _report(as_json)


def _report(as_json: bool) -> None:
    reply = ask(ReadShadow())
    if as_json:
        print_json(reply)
    elif not reply.hash:
        click.echo("No policy runs in the shadow. Start one with `kernos policy shadow FOLDER`.")
    else:
        differing = sum(row.count for row in reply.mismatches) + reply.left_out
        click.echo(f"{reply.hash} was asked {reply.questions} questions and decided {differing} of them differently")
        rows = [
            (row.count, "allows" if row.allowed else "denies", row.subject, row.object, row.action, row.rule or "no rule")
            for row in reply.mismatches
        ]
        if rows:
            print_table(("TIMES", "IT", "SUBJECT", "OBJECT", "ACTION", "BY"), rows)


class _Ago(click.ParamType[float]):
    """A time before now, as `7d`; a point in seconds since the Unix epoch."""

    name = "ago"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = re.fullmatch(r"(\d+)([mhdw])", str(value))
        if not found:
            self.fail(f"{value!r} is not a span such as 30m, 12h, 7d or 4w", param, ctx)
        return max(0.0, time() - int(found[1]) * _UNITS[found[2]])


@click.command()
@click.argument("subject")
@click.option("--since", type=_Ago(), default="4w", show_default=True, help="How far to look back: 30m, 12h, 7d, 4w.")
@json_option
def suggest(subject: str, since: float, as_json: bool) -> None:
    """Suggest rules for SUBJECT that allow what it used since then and little more; `user:*` is all users together."""
    reply = ask(SuggestPolicy(subject=subject, since=since))
    if as_json:
        print_json(reply)
        return
    for title, lines in (
        ("rules for what it used", reply.lines),
        ("it was denied; for you to judge", reply.denied),
        ("of its own rules it needed none of these", reply.unused),
    ):
        if lines:
            click.echo(f"# {title}")
            for line in lines:
                click.echo(line)
    if not reply.lines and not reply.denied:
        click.echo(f"# {subject} was not seen to use anything.")
