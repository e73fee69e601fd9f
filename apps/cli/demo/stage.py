"""Where the demo plays: a temporary installation, the processes in it, and the words said about them.

Whatever happens, nothing outlives the stage: leaving it ends every process of the installation and removes the folder.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import click

from kernos.syscalls import places

from ..logs import tail

_LOG_LINES: Final = 40
"""How much of the kernel's log is shown when a step fails."""


class StageError(Exception):
    """A step did not do what it promised; the text says which and how."""


class Stage:
    """A temporary installation. Its environment is that of this process and of all that it starts."""

    def __enter__(self) -> Self:
        models = places().models
        self.before = dict(os.environ)
        self.home = Path(tempfile.mkdtemp(prefix="kernos-", dir="/tmp"))  # short, as the paths of sockets must be
        os.environ |= {"KERNOS_HOME": str(self.home), "KERNOS_MODELS": str(models), "PYTHONUNBUFFERED": "1"}
        os.environ.pop("KERNOS_KEY", None)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.home, ignore_errors=True)
        os.environ.clear()
        os.environ.update(self.before)

    def title(self, number: int, of: int, text: str) -> None:
        """Head an act."""
        click.secho(f"\n[{number}/{of}] {text}", bold=True)

    def say(self, text: str) -> None:
        """Tell what is happening."""
        click.echo(text)

    def check(self, holds: bool, otherwise: str) -> None:
        """Go on only if something holds."""
        if not holds:
            raise StageError(otherwise)

    def fail(self, reason: str) -> None:
        """Say why the demo ends here, with what the kernel wrote."""
        click.secho(f"\nThe demo failed: {reason}", fg="red", err=True)
        log = places().logs / "kernel.log"
        if log.exists():
            with log.open(encoding="utf-8", errors="replace") as file:
                click.echo(f"The last lines of the kernel's log:\n{''.join(tail(file, _LOG_LINES))}", err=True)

    def command(self, *args: str) -> list[str]:
        """`kernos ARGS`, as it is written on the terminal, made ready to run."""
        return [sys.executable, "-m", "kernos.apps.cli", *args]

    def show(self, *args: str) -> None:
        """Run `kernos ARGS` before the audience."""
        click.secho(f"$ kernos {' '.join(args)}", fg="cyan")
        click.echo(self.run(*args), nl=False)

    def run(self, *args: str) -> str:
        """Run `kernos ARGS` and return what it printed; it must succeed."""
        done = subprocess.run(self.command(*args), capture_output=True, text=True, check=False)  # noqa: S603
        self.check(done.returncode == 0, f"`kernos {' '.join(args)}` ended with code {done.returncode}. {done.stderr.strip()}")
        return done.stdout

    def processes(self) -> list[int]:
        """The processes of this stage, known by the environment that they were started with; so this one is none of them."""
        mark = f"KERNOS_HOME={self.home}".encode()
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if mark in _environment(pid)]  # noqa: PTH208


def _environment(pid: int) -> list[bytes]:
    """Empty for a process that has ended, or that is somebody else's."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []
