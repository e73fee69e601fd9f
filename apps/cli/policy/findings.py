"""How findings and changed decisions look."""

from collections.abc import Sequence
from typing import Final

import click

from kernos.syscalls.policy import Change, Finding, Review

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


def print_changes(changes: Sequence[Change], left_out: int) -> None:
    """A line per changed decision: what is allowed anew, and what no more."""
    for change in changes:
        sign, colour = ("+", "green") if change.allowed else ("-", "red")
        click.secho(f"{sign} {change.subject} may {'' if change.allowed else 'no longer '}{change.action} {change.object}", fg=colour)
    if left_out:
        click.echo(f"and {left_out} more")
    if not changes:
        click.echo("No decision is changed.")
