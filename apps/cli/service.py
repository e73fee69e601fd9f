"""`kernos serve`, `kernos stop` and `kernos status`: the kernel as a whole."""

import os
import select
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Final

import click

from kernos.syscalls import Kernel, Places, places
from kernos.syscalls.errors import ConflictError, DeadlineError, KernelRestartedError, KernosError, UnreachableError
from kernos.syscalls.places import read_connection
from kernos.syscalls.system import Device, GetStatus, Ping, Status, StopKernel

from .logs import tail
from .output import json_option, print_json, print_table, span
from .session import ask

BOOT_S: Final = 30.0
"""How long a kernel may take to open its sockets; it takes well under a second on an idle machine."""

STOP_S: Final = 30.0
"""How long a kernel may take to end when it does not drain."""

_LOOK_S: Final = 0.02
"""How often a booting kernel is looked for; its end is noticed at once."""


class BootError(click.ClickException):
    """The kernel that `kernos serve --detach` started did not come up. No error of the ABI: there was nobody to talk to."""


@click.command()
@click.option("--detach", "-d", is_flag=True, help="Start it in the background, and return when it answers.")
@click.option("--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Read this kernos.toml and not the usual one.")
@click.option("--dtype", type=click.Choice(["auto", "bfloat16", "float32", "int8"]), help="Arithmetic of decoders, over the settings.")
def serve(detach: bool, config: Path | None, dtype: str | None) -> None:
    """Start the kernel of this machine.

    The first start makes the folders, the default policies and the administrator's key.
    """
    command = [sys.executable, "-m", "kernos.kernel"]
    command += ["--config", str(config.absolute())] if config else []
    command += ["--dtype", dtype] if dtype else []
    _refuse_second(places())
    if not detach:
        os.execv(sys.executable, command)  # noqa: S606  (the kernel takes the place of this process: signals and exit code are its own)
    status = _boot(places(), command)
    click.echo(f"The kernel is up: pid {status.os_pid}, booted in {status.boot_ms:.0f} ms. Its log: kernos logs -f")


@click.command()
@click.option("--drain", is_flag=True, help="First let the calls in flight end, however long they take.")
def stop(drain: bool) -> None:
    """Stop the kernel, and wait until its process is gone."""
    os_pid = read_connection(places()).os_pid
    handle = os.pidfd_open(os_pid)
    try:
        _ask_to_stop(drain)
        if not select.select([handle], [], [], None if drain else STOP_S)[0]:
            raise DeadlineError(
                f"The kernel (pid {os_pid}) has not ended within {STOP_S:g} s. See `kernos logs`; `kill -9 {os_pid}` ends it."
            )
    finally:
        os.close(handle)
    click.echo(f"The kernel (pid {os_pid}) has ended.")


@click.command()
@json_option
def status(as_json: bool) -> None:
    """Show how the kernel and its devices do."""
    reply = ask(GetStatus(), urgent=True)
    if as_json:
        print_json(reply)
        return
    up = f"{reply.state}, pid {reply.os_pid}, up {span(reply.uptime_s)}, booted in {reply.boot_ms:.0f} ms"
    click.echo(f"kernel   {up}, version {reply.version}, ABI {reply.abi}")
    now = f"{reply.clients} clients, {reply.agents} agents, {reply.in_flight} calls in flight, {reply.queued_turns} turns queued"
    click.echo(f"now      {now}")
    click.echo(f"so far   {reply.calls} calls, {reply.refused} refused")
    click.echo(f"policy   {reply.policy}")
    if reply.damage:
        click.echo(f"storage  {reply.damage}")
    click.echo()
    print_table(("DEVICE", "STATE", "PID", "ROWS", "RESTARTS", "ACCELERATOR"), [_row(device) for device in reply.devices])
    if reply.pages:
        click.echo()
        uses = [(use.model, use.tier, use.slots, use.held, use.cached) for use in reply.pages]
        print_table(("KV PAGES OF", "TIER", "ROOM", "HELD", "CACHED"), uses)


def _row(device: Device) -> tuple[object, ...]:
    rows = f"{device.rows} of {device.slots}" if device.slots else device.rows
    return device.device, device.state, device.os_pid, rows, device.restarts, device.accelerator or "-"


def _refuse_second(where: Places) -> None:
    """A clear word where one is running already. The kernel's own lock decides; this only says it better."""
    try:
        running = read_connection(where)
        _ping(where)
    except KernosError:
        return
    raise ConflictError(f"A kernel is running already (pid {running.os_pid}, {where.connection}). Stop it first: `kernos stop`.")


def _ping(where: Places) -> None:
    with Kernel(where=where) as kernel:
        kernel.call(Ping(), timeout=2, urgent=True)


def _boot(where: Places, command: list[str]) -> Status:
    """Start the kernel in a session of its own, and wait until it answers or dies."""
    where.logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    log = where.logs / "kernel.log"
    with log.open("ab") as output:
        began = output.tell()
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)  # noqa: S603
    try:
        _await_sockets(where, child)
        with Kernel(where=where) as kernel:
            kernel.call(Ping(), urgent=True)
            return kernel.call(GetStatus(), urgent=True)
    except (BootError, KernosError) as error:
        child.kill()
        child.wait()
        raise BootError(f"{error} The last lines of {log}:\n{_since(log, began)}") from None


def _await_sockets(where: Places, child: "subprocess.Popen[bytes]") -> None:
    """Return when the connection file is that of the child. The wait is on the child's life, in short turns."""
    until = monotonic() + BOOT_S
    while not _is_up(where, child.pid):
        try:
            code = child.wait(_LOOK_S)
        except subprocess.TimeoutExpired:
            if monotonic() > until:
                raise BootError(f"The kernel (pid {child.pid}) did not open its sockets within {BOOT_S:g} s; it was ended.") from None
        else:
            raise BootError(f"The kernel ended with code {code} before it was up.")


def _is_up(where: Places, pid: int) -> bool:
    try:
        return read_connection(where).os_pid == pid
    except UnreachableError:
        return False


def _since(log: Path, began: int) -> str:
    with log.open(encoding="utf-8", errors="replace") as file:
        file.seek(began)
        return "".join(tail(file, 15)).rstrip() or "(it wrote nothing)"


def _ask_to_stop(drain: bool) -> None:
    # It may end before its answer has left; that it is gone is what counts, and that is waited for.
    with suppress(KernelRestartedError):
        ask(StopKernel(drain=drain), urgent=True)
