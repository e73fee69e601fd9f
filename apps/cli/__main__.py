"""The entry point of `kernos`: the list of its commands, and what becomes of an error.

Exit codes: 0 done, 1 an error of Kernos, 2 wrong usage, 3 no kernel to talk to, 4 denied by the policy, 130 interrupted. `kernos run`
and `kernos bench` end with the code of the program that they ran.
"""

import os
from typing import Any

import click

from kernos import __version__
from kernos.syscalls.errors import DeniedError, KernosError, UnreachableError

from .approvals import approvals, approve, declassify, deny
from .audit import audit
from .backups import backup, restore
from .benches import bench
from .completion import completion
from .demo import demo
from .download import pull
from .launcher import run
from .logs import logs
from .models import models
from .output import print_error
from .policy import policy
from .principals import principal
from .processes import kill, nice, ps
from .service import serve, status, stop
from .simulate import simulate
from .usage import usage

ERROR, UNREACHABLE, DENIED, INTERRUPTED = 1, 3, 4, 130


class _Commands(click.Group):
    """Turns the errors of system calls into words and an exit code, for every command."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KernosError as error:
            print_error(error)
            ctx.exit(_exit_code(error))
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """In the order of a day's work, not of the alphabet."""
        return list(self.commands)


def _exit_code(error: KernosError) -> int:
    if isinstance(error, UnreachableError):
        return UNREACHABLE
    return DENIED if isinstance(error, DeniedError) else ERROR


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="kernos %(version)s")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Kernos, an operating system for LLM agents.

    \b
    KERNOS_HOME    keep everything of one installation under this folder
    KERNOS_MODELS  where the models lie
    KERNOS_KEY     the key file to act with (default: the administrator's)
    """  # noqa: D301  (\b keeps click from filling the lines)
    if os.environ.get("NO_COLOR"):
        ctx.color = False  # rich sees to this by itself, click does not


for command in (
    serve,
    stop,
    status,
    run,
    ps,
    kill,
    nice,
    usage,
    models,
    pull,
    logs,
    policy,
    principal,
    approvals,
    approve,
    deny,
    declassify,
    audit,
    backup,
    restore,
    simulate,
    bench,
    demo,
    completion,
):
    main.add_command(command)

if __name__ == "__main__":
    main(prog_name="kernos")
