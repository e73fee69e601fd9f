"""`kernos logs`: what the kernel and its device servers wrote. Reads files; no kernel has to run."""

import time
from collections import deque
from pathlib import Path
from typing import Final, TextIO

import click

from kernos.syscalls import places

_LOOK_S: Final = 0.2
"""How often a followed file is looked at."""


@click.command()
@click.argument("name", default="kernel")
@click.option("--follow", "-f", is_flag=True, help="Go on printing as lines are written, until interrupted.")
@click.option("--lines", "-n", type=click.IntRange(min=0), default=50, show_default=True, help="How many of the last lines to print.")
def logs(name: str, follow: bool, lines: int) -> None:
    """Print the last lines of the log NAME (default: the kernel's)."""
    with log_file(name).open(encoding="utf-8", errors="replace") as file:
        click.echo("".join(tail(file, lines)), nl=False)
        if follow:
            _follow(file)


def log_file(name: str) -> Path:
    """The file of a log; a wrong name is told the logs there are."""
    folder = places().logs
    found = {path.stem: path for path in sorted(folder.glob("*.log"))}
    if name.removesuffix(".log") not in found:
        known = f"There are: {', '.join(found)}." if found else "There are none yet; `kernos serve --detach` writes the first."
        raise click.BadParameter(f"there is no log {name!r} in {folder}. {known}", param_hint="NAME")
    return found[name.removesuffix(".log")]


def tail(file: TextIO, lines: int) -> list[str]:
    """The last lines of a file, which is read to its end."""
    return list(deque(file, maxlen=lines))


def _follow(file: TextIO) -> None:
    while True:
        if text := file.read():
            click.echo(text, nl=False)
        else:
            time.sleep(_LOOK_S)
