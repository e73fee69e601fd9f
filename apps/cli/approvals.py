"""`kernos approvals`, `approve`, `deny` and `declassify`: what takes somebody's consent because of the labels that it carries."""

import time
from datetime import datetime
from typing import Final

import click

from kernos.syscalls.errors import NotFoundError
from kernos.syscalls.process import Approval, Approve, Declassify, ListApprovals

from .output import json_option, print_json, span
from .session import ask

_LOOK_S: Final = 0.5
"""How often a followed list is asked for more."""


@click.command()
@click.argument("principal", required=False)
@click.option("--follow", "-f", is_flag=True, help="Go on printing what is asked for, until interrupted.")
@json_option
def approvals(principal: str | None, follow: bool, as_json: bool) -> None:
    """List the calls of PRINCIPAL's agents that wait for approval; if left out, of everybody whose you may see.

    Says who asks, what would be done, after reading what, and with which labels. The words are the kernel's; what the agent chose stands
    behind `>`. `kernos approve ID` and `kernos deny ID` decide.
    """
    seen: set[tuple[str, str]] = set()
    while True:
        found = ask(ListApprovals(principal=principal))
        new = [asked for asked in found.approvals if (asked.approval, asked.state) not in seen]
        seen = {(asked.approval, asked.state) for asked in found.approvals}
        if as_json and (new or not follow):
            print_json({"approvals": new, "labels": found.labels})
        elif not as_json:
            for asked in new:
                _print(asked)
            if not new and not follow:
                click.echo("Nothing waits for approval.")
        if not follow:
            return
        time.sleep(_LOOK_S)


def _print(asked: Approval) -> None:
    since = datetime.fromtimestamp(asked.since).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    left = span(max(0.0, asked.until - time.time()))
    click.secho(f"{asked.approval}  {asked.state} since {since}, for another {left}", bold=True)
    click.echo("  " + asked.text.replace("\n", "\n  "))
    click.echo(f"  Labels: {', '.join(asked.labels)}\n")


@click.command()
@click.argument("id")
def approve(id: str) -> None:  # noqa: A002  (it is what the list calls it)
    """Let the call that waits as ID be made, once, by the agent that asked."""
    asked = _decide(id, allow=True)
    click.echo(f"Approved: agent {asked.pid} of {asked.principal} may now make this very call, once.")


@click.command()
@click.argument("id")
def deny(id: str) -> None:  # noqa: A002
    """Refuse the call that waits as ID; the agent that asked is told so when it asks again."""
    asked = _decide(id, allow=False)
    click.echo(f"Refused: agent {asked.pid} of {asked.principal} may not make this call.")


def _decide(id_: str, *, allow: bool) -> Approval:
    asked = next((asked for asked in ask(ListApprovals()).approvals if asked.approval == id_), None)
    if asked is None:
        raise NotFoundError(f"Nothing that you may decide waits for approval as {id_}. `kernos approvals` lists what does.")
    ask(Approve(approval=id_, principal=asked.principal, allow=allow))
    _print(asked)
    return asked


@click.command()
@click.argument("pid", type=click.IntRange(min=1))
@click.argument("label")
@click.option("--reason", "-m", required=True, help="Why: it is kept with the agent and in the audit log.")
def declassify(pid: int, label: str, reason: str) -> None:
    """Take LABEL off the agent PID, so that what it does from now on may go where LABEL may not.

    What it wrote before keeps the label. `kernos ps` shows what agents carry.
    """
    ask(Declassify(pid=pid, label=label, reason=reason))
    click.echo(f"Agent {pid} does not carry {label} any more.")
