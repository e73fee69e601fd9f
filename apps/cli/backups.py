"""`kernos backup` and `kernos restore`: what the kernel keeps, in one file."""

import subprocess
import sys
from pathlib import Path
from typing import Final

import click

from kernos.syscalls import Kernel
from kernos.syscalls.system import BackUp

BACKUP_S: Final = 3_600.0
"""How long a backup may take; a second copies about 100 MB."""


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
def backup(file: Path) -> None:
    """Copy what the running kernel keeps into a new FILE.

    It is encrypted under the key in the state folder (kernos.key). Keep a copy of that key elsewhere: without it a backup is of no use.
    """
    with Kernel() as kernel:
        done = kernel.call(BackUp(path=str(file.absolute())), timeout=BACKUP_S)
    click.echo(f"{file}: {done.size / 1e6:.1f} MB, {done.commits} commits.")


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.confirmation_option(prompt="This replaces all contexts, files and mail by those of the backup. Go on?")
def restore(file: Path) -> None:
    """Put a backup in the place of what the kernel keeps. The kernel must not be running."""
    command = [sys.executable, "-m", "kernos.kernel", "--restore", str(file.absolute())]
    sys.exit(subprocess.run(command, check=False).returncode)  # noqa: S603  (the kernel holds the lock and the key)
