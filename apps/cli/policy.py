"""`kernos policy`: which law is in force, and what it says to a question."""

import click

from kernos.syscalls.policy import CheckPolicy, GetPolicy

from .output import json_option, print_json, print_table
from .session import ask

DENIED = 4
"""`kernos policy check` ends with the code of a denied call, so that a script can ask before it acts."""


@click.group()
def policy() -> None:
    """Read the policy in force and ask it questions."""


@policy.command()
@json_option
def status(as_json: bool) -> None:
    """Show the hash and the size of the policy in force."""
    reply = ask(GetPolicy())
    if as_json:
        print_json(reply)
    else:
        print_table(("HASH", "RULES", "ROLES", "CACHED"), [(reply.hash, reply.rules, reply.roles, reply.cached)])


@policy.command()
@click.argument("subject")
@click.argument("object", metavar="OBJECT")
@click.argument("action")
@json_option
@click.pass_context
def check(ctx: click.Context, subject: str, object: str, action: str, as_json: bool) -> None:  # noqa: A002  (casbin's own word)
    """Ask whether SUBJECT may do ACTION to OBJECT.

    For instance: kernos policy check app:customer_service model/smollm2-135m generate. Ends with 0 if it may and with 4 if not.
    """
    decision = ask(CheckPolicy(subject=subject, object=object, action=action))
    if as_json:
        print_json(decision)
    else:
        click.echo(f"{'allowed' if decision.allowed else 'denied'} by {decision.rule or 'default: no rule allows it'}")
    ctx.exit(0 if decision.allowed else DENIED)
