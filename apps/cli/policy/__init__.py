"""`kernos policy`: the law, from a draft to its roll-back. docs/policies.md goes through it step by step."""

import click

from .apply import apply, fetch, history, rollback, status
from .draft import check, diff, edit, test
from .questions import can, score, who, why
from .trial import shadow, suggest


@click.group()
def policy() -> None:
    """Write, test, explain, apply and roll back the policies of this machine."""


for command in (status, edit, check, test, diff, apply, rollback, history, fetch, why, can, who, shadow, suggest, score):
    policy.add_command(command)
