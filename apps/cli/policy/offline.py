"""`policy.*` calls that need no kernel: a process of its own answers them from files, as apps do not import the kernel."""

import subprocess
import sys
from pathlib import Path
from typing import TypeVar

import click

from kernos.syscalls import Call, places
from kernos.syscalls.errors import KernosError, raised
from kernos.syscalls.table import ROWS
from kernos.syscalls.wire import decode_error, encode

from ..session import ask

R = TypeVar("R")

folder_argument = click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path), required=False)

policy_option = click.option(
    "--policy",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Ask the policy in this folder, without a kernel.",
)


def working_copy() -> Path:
    """Where policies are edited."""
    return places().config / "policies"


def ask_about(call: Call[R], folder: Path | None) -> R:
    """Ask the policy in a folder, or that in force."""
    return ask(call) if folder is None else ask_offline(call, folder)


def ask_offline(call: Call[R], folder: Path | None = None) -> R:
    """Let the call be answered from files; raises as a kernel's answer would."""
    command = [sys.executable, "-m", "kernos.kernel.security", *([str(folder)] if folder is not None else [])]
    done = subprocess.run(command, input=encode(call), stdout=subprocess.PIPE, check=False)  # noqa: S603
    if done.returncode == 0:
        reply: R = ROWS[type(call)].reply_decoder.decode(done.stdout)
        return reply
    if done.stdout:
        raise raised(decode_error(done.stdout))
    raise KernosError(f"The policy could not be judged: the process for it ended with code {done.returncode}.")
