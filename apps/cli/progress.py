"""Work of another process as a person can follow it: it tells its progress in JSON lines, a failure in one sentence on standard error."""

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence

import click
import msgspec
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from .output import console


class Mode(msgspec.Struct, frozen=True):
    """How a model can be computed, and what that is worth here."""

    mode: str
    top1: float
    one: float
    eight: float
    bytes: int


class Step(msgspec.Struct, frozen=True):
    """A line of such a process. The last one names the model."""

    phase: str
    done: int = 0
    total: int = 0
    model: str = ""
    modes: list[Mode] = []


def follow(module: str, arguments: Sequence[str], phases: Mapping[str, str]) -> Step:
    """Run a module and show its phases; the last step. Ends the command with exit code 1 when it fails: it has said why."""
    with subprocess.Popen([sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE) as process:  # noqa: S603
        assert process.stdout is not None  # noqa: S101
        steps = (msgspec.json.decode(line, type=Step) for line in process.stdout)
        last = _draw(steps, phases) if console().is_terminal else _tell(steps, phases)
    if process.returncode or last is None:
        raise click.exceptions.Exit(1)
    return last


def _draw(steps: Iterator[Step], phases: Mapping[str, str]) -> Step | None:
    """A bar per phase; returns the last step, or None if it ended before."""
    columns = (TextColumn("{task.description:<26}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeElapsedColumn())
    with Progress(*columns, console=console()) as progress:
        tasks = {}
        for step in steps:
            if step.model:
                _fill(progress)
                return step
            if step.phase not in tasks:
                _fill(progress)
                tasks[step.phase] = progress.add_task(phases.get(step.phase, step.phase), total=None)
            progress.update(tasks[step.phase], completed=step.done, total=step.total or None)
    return None


def _fill(progress: Progress) -> None:
    """A phase has ended when the next begins."""
    for task in progress.tasks:
        progress.update(task.id, total=task.total or 1, completed=task.total or 1)


def _tell(steps: Iterator[Step], phases: Mapping[str, str]) -> Step | None:
    """A line per phase, for logs."""
    last = ""
    for step in steps:
        if step.model:
            return step
        if step.phase != last:
            click.echo(f"{phases.get(step.phase, step.phase)} …")
            last = step.phase
    return None
