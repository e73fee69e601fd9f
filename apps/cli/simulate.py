"""`kernos simulate`: the kernel's scheduler under a simulated clock. Needs no kernel, and touches none.

The work is done by a process of its own, as apps do not import the kernel; it takes the options and prints the report.
"""

import subprocess
import sys

import click


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def simulate(ctx: click.Context, args: tuple[str, ...]) -> None:
    """Try scheduling policies on simulated agents; ARGS are the options of the simulator."""
    command = [sys.executable, "-m", "kernos.kernel.simulate", *args]
    if {"-h", "--help"} & set(args):
        click.echo(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout, nl=False)  # noqa: S603
        return
    ctx.exit(subprocess.run(command, check=False).returncode)  # noqa: S603
