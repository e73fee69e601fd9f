"""`kernos completion`: the script that teaches a shell the commands and options."""

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a completion script for SHELL; for instance in bash: eval "$(kernos completion bash)"."""
    writer = get_completion_class(shell)
    assert writer is not None  # noqa: S101  (click knows the three shells of the choice)
    click.echo(writer(ctx.find_root().command, {}, "kernos", "_KERNOS_COMPLETE").source())
