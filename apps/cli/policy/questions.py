"""`why`, `can`, `who` and `score`: questions to the policy in force, or to one in a folder."""

from pathlib import Path
from typing import Final

import click

from kernos.syscalls.policy import ExplainDecision, Explanation, FlowExplanation, ListHolders, ListRights, ScorePolicy

from ..output import json_option, print_json, print_table
from .offline import ask_about, policy_option

DENIED = 4
"""A denial ends with the code of a denied call, so that a script can ask before it acts."""


@click.command()
@click.argument("subject")
@click.argument("object", metavar="OBJECT")
@click.argument("action")
@click.option("--for", "user", help="The user for whom the agent acts: both need the right.")
@click.option("--labels", default="", help="Labels that the agent carries, as in phi,untrusted: may they go where it would take them?")
@policy_option
@json_option
@click.pass_context
def why(
    ctx: click.Context,
    subject: str,
    object: str,  # noqa: A002  (casbin's own word)
    action: str,
    user: str | None,
    labels: str,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Say whether SUBJECT may do ACTION to OBJECT, and why.

    For instance: kernos policy why app:customer_service model/smollm2-135m generate. Ends with 0 if it may and with 4 if not, or only
    with approval.
    """
    asked, carried = [subject, *([user] if user else [])], [label for label in labels.split(",") if label]
    found = {name: ask_about(ExplainDecision(name, object, action, carried), folder) for name in asked}
    if as_json:
        print_json(found if user else found[subject])
    else:
        for name, explanation in found.items():
            _print(name, explanation)
    ctx.exit(0 if all(explanation.allowed and _flows(explanation) for explanation in found.values()) else DENIED)


def _flows(found: Explanation) -> bool:
    """Whether labels let it pass, but for what only a privileged tool would take."""
    return all(flow.passes for flow in found.flows if not flow.sink.startswith("privileged/"))


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
    for flow in found.flows:
        _print_flow(flow)


_FLOWING: Final = {
    "allow": "allowed",
    "approve": "takes approval",
    "own": "no line names the label, it stays with its owner",
    "deny": "denied",
}


def _print_flow(flow: FlowExplanation) -> None:
    by = f" by {flow.rule}" if flow.rule else ": no line lets it go there" if flow.effect == "deny" else ""
    click.secho(f"{flow.label} to {flow.sink}: {_FLOWING[flow.effect]}{by}", fg="green" if flow.passes else "red")
    if flow.line:
        click.echo(f"  The smallest line that would allow it:\n    {flow.line}")


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
    """Show how much harm each subject could do, from 0 (none) to 10 (everything), and by which rights; and what labels may reach it."""
    reply = ask_about(ScorePolicy(), folder)
    if as_json:
        print_json(reply)
    else:
        rows = [(entry.subject, entry.points, ", ".join(entry.labels), ", ".join(entry.dangers)) for entry in reply.exposures]
        print_table(("SUBJECT", "EXPOSURE", "READS LABELLED", "MAY"), rows)
