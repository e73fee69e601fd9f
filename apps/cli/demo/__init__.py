"""`kernos demo`: what Kernos does, shown and checked in five acts, with every part in a process of its own."""

import click

from kernos.syscalls.errors import KernosError

from .acts import ACTS
from .stage import Stage, StageError


@click.command()
@click.pass_context
def demo(ctx: click.Context) -> None:
    """Show Kernos at work: a kernel, two models and an app with its customers.

    It runs in a temporary folder of its own, checks every step, and ends with 0 only if all of them held.
    """
    with Stage() as stage:
        try:
            for number, act in enumerate(ACTS, start=1):
                stage.title(number, len(ACTS), act.__doc__ or "")
                act(stage)
        except (StageError, KernosError) as error:
            stage.fail(str(error))
            ctx.exit(1)
        stage.say("\nEverything held.")
