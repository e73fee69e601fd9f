"""`kernos ps`, `kernos kill` and `kernos nice`: the agents of the process table."""

from typing import get_args

import click

from kernos.syscalls.process import Kill, ListProcesses, Nice, Priority, Process, SendSignal, Signal

from .output import json_option, print_json, print_table, span
from .session import ask

_COLUMNS = ("PID", "NAME", "PRINCIPAL", "USER", "CLASS", "STATE", "AGE", "CALLS", "PROMPT", "GENERATED", "LABELS")


@click.command()
@click.option("--all", "-a", "everybody", is_flag=True, help="The agents of every principal, not of this key alone.")
@json_option
def ps(everybody: bool, as_json: bool) -> None:
    """List agents, with the tokens that each has used and the labels that each carries."""
    reply = ask(ListProcesses(scope="all" if everybody else "own"), urgent=True)
    if as_json:
        print_json(reply)
    elif reply.processes:
        print_table(_COLUMNS, [_row(process) for process in reply.processes])
    else:
        click.echo("No agents." if everybody else "No agents of your own; `kernos ps --all` shows everybody's.")


def _row(process: Process) -> tuple[object, ...]:
    state = process.state if process.exit_code is None else f"{process.state} ({process.exit_code})"
    return (
        process.pid,
        process.name,
        process.principal,
        process.user or "-",
        process.priority,
        state,
        span(process.age_s),
        process.calls,
        process.prompt_tokens,
        process.generated_tokens,
        ", ".join(process.labels) or "-",
    )


@click.command()
@click.argument("pid", type=click.IntRange(min=1))
@click.option("--signal", "-s", type=click.Choice(["stop", "continue", "interrupt", "terminate"]), help="Send this instead of killing.")
def kill(pid: int, signal: Signal | None) -> None:
    """End the agent PID at once, or send it a signal.

    `stop` takes it off the devices and `continue` puts it back; `interrupt` ends its calls in flight; `terminate` ends the agent.
    """
    ask(SendSignal(pid=pid, signal=signal) if signal else Kill(pid=pid), urgent=True)
    click.echo(f"Sent {signal} to agent {pid}." if signal else f"Killed agent {pid}.")


@click.command()
@click.argument("pid", type=click.IntRange(min=1))
@click.argument("priority", metavar="CLASS", type=click.Choice(get_args(Priority)))
@click.option("--weight", "-w", type=click.FloatRange(0.25, 16), help="Its share in the class; every agent begins with 1.")
def nice(pid: int, priority: Priority, weight: float | None) -> None:
    """Move the agent PID to CLASS: realtime, interactive, normal or batch, from its next turn on.

    One's own agents may become less urgent; to make one more urgent, or weigh more, is a right that the policy gives.
    """
    ask(Nice(pid=pid, priority=priority, weight=weight), urgent=True)
    click.echo(f"Agent {pid} is {priority} from its next turn on.")
