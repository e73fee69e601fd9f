"""How findings and changed decisions look."""

import re
from collections.abc import Sequence
from typing import Final

import click

from kernos.syscalls.policy import Differences, Finding, FlowChange, Review

_COLOURS: Final = {"error": "red", "warning": "yellow", "note": "blue"}


def print_findings(findings: Sequence[Finding]) -> None:
    """One line each, as compilers write them."""
    for finding in findings:
        click.secho(str(finding) if finding.file else f"{finding.severity}: {finding.text}", fg=_COLOURS[finding.severity])


def print_review(review: Review) -> None:
    """Findings, then what it comes to."""
    print_findings(review.findings)
    errors, warnings, notes = (sum(finding.severity == kind for finding in review.findings) for kind in _COLOURS)
    click.echo(f"{review.rules} rules, {review.roles} roles, {review.tests} tests: {errors} errors, {warnings} warnings, {notes} notes")


def print_changes(found: Review | Differences) -> None:
    """A line per changed decision: what is allowed anew, and what no more; then where labels go that went elsewhere."""
    for change in found.changes:
        sign, colour = ("+", "green") if change.allowed else ("-", "red")
        click.secho(f"{sign} {change.subject} may {'' if change.allowed else 'no longer '}{change.action} {change.object}", fg=colour)
    told = {(flow.label, flow.place, flow.before, flow.after) for flow in found.flows}
    for flow in found.flows:
        plain = re.sub(r"^privileged/", "tool/", flow.place)
        if plain != flow.place and (flow.label, plain, flow.before, flow.after) in told:
            continue  # a tool is told once, if being privileged makes no difference
        click.secho(f"{'+' if flow.wider else '-'} {_flow(flow)}", fg="green" if flow.wider else "red")
    if found.left_out:
        click.echo(f"and {found.left_out} more")
    if not found.changes and not found.flows:
        click.echo("No decision is changed.")


_FLOWS: Final = {
    "allow": "may go to",
    "approve": "takes approval to go to",
    "own": "stays with its owner and does not go to",
    "deny": "may not go to",
    "carried": "marks what comes from",
    "plain": "does not mark any more what comes from",
}


def _flow(change: FlowChange) -> str:
    by = f", by {change.rule}" if change.rule else ""
    return f"{change.label} {_FLOWS[change.after]} {change.place}{by}"
