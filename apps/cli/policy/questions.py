"""`why`, `can`, `who` and `score`: questions to the policy in force, or to one in a folder."""

from pathlib import Path

import click

from kernos.syscalls.policy import ExplainDecision, Explanation, ListHolders, ListRights, ScorePolicy

from ..output import json_option, print_json, print_table
from .offline import ask_about, policy_option

DENIED = 4
"""A denial ends with the code of a denied call, so that a script can ask before it acts."""


@click.command()
@click.argument("subject")
@click.argument("object", metavar="OBJECT")
@click.argument("action")
@click.option("--for", "user", help="The user for whom the agent acts: both need the right.")
@policy_option
@json_option
@click.pass_context
def why(
    ctx: click.Context,
    subject: str,
    object: str,  # noqa: A002  (casbin's own word)
    action: str,
    user: str | None,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Say whether SUBJECT may do ACTION to OBJECT, and why.

    For instance: kernos policy why app:customer_service model/smollm2-135m generate. Ends with 0 if it may and with 4 if not.
    """
    asked = [subject, *([user] if user else [])]
    found = {name: ask_about(ExplainDecision(subject=name, object=object, action=action), folder) for name in asked}
    if as_json:
        print_json(found if user else found[subject])
    else:
        for name, explanation in found.items():
            _print(name, explanation)
    ctx.exit(0 if all(explanation.allowed for explanation in found.values()) else DENIED)


def _print(subject: str, found: Explanation) -> None:
    verdict = f"{'allowed' if found.allowed else 'denied'} by {found.rule}" if found.rule else "denied: no rule allows it"
    click.secho(f"{subject}: {verdict}", fg="green" if found.allowed else "red")
    for line in found.path:
        click.echo(f"  through {line}")
    if found.near:
        click.echo("  The nearest rules:")
        for line in found.near:
            click.echo(f"    {line}")
    if found.line:
        click.echo(f"  The smallest line that would allow it:\n    {found.line}")


@click.command()
@click.argument("subject")
@policy_option
@json_option
def can(subject: str, folder: Path | None, as_json: bool) -> None:
    """List what SUBJECT may do, and by which rules. A `deny` is stronger than any `allow`."""
    reply = ask_about(ListRights(subject=subject), folder)
    if as_json:
        print_json(reply)
        return
    rows = [(right.effect, right.action, right.object, " > ".join(right.path), right.rule) for right in reply.rights]
    print_table(("EFFECT", "ACTION", "OBJECT", "THROUGH", "RULE"), rows)


@click.command()
@click.argument("object", metavar="OBJECT")
@click.argument("action")
@policy_option
@json_option
def who(object: str, action: str, folder: Path | None, as_json: bool) -> None:  # noqa: A002  (casbin's own word)
    """List who may do ACTION to OBJECT. `user:*` is any user whom no rule names."""
    reply = ask_about(ListHolders(object=object, action=action), folder)
    if as_json:
        print_json(reply)
    else:
        print_table(("SUBJECT", "RULE"), [(holder.subject, holder.rule) for holder in reply.holders])


@click.command()
@policy_option
@json_option
def score(folder: Path | None, as_json: bool) -> None:
    """Show how much harm each subject could do, from 0 (none) to 10 (everything), and by which rights."""
    reply = ask_about(ScorePolicy(), folder)
    if as_json:
        print_json(reply)
    else:
        print_table(("SUBJECT", "EXPOSURE", "MAY"), [(entry.subject, entry.points, ", ".join(entry.dangers)) for entry in reply.exposures])
