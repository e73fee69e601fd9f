"""`system.*`."""

import os
from pathlib import Path

import kernos
from kernos.syscalls.call import Done
from kernos.syscalls.errors import StoppingError
from kernos.syscalls.system import BackedUp, BackUp, Cancel, GetStatus, Ping, Pong, Status, StopKernel
from kernos.syscalls.table import Cost
from kernos.syscalls.version import MAJOR, MINOR

from ..memory import backup as backups
from ..memory.connection import Connection
from ..memory.database import storage_key
from ..system import System
from ..tickets import Later, Ticket


def ping(system: System, ticket: Ticket, call: Ping) -> Pong:
    """The null call."""
    return Pong(call.payload)


def status(system: System, ticket: Ticket, call: GetStatus) -> Status:
    """How the kernel does."""
    return Status(
        version=kernos.__version__,
        abi=f"{MAJOR}.{MINOR}",
        os_pid=os.getpid(),
        uptime_s=system.host.now - system.started,
        boot_ms=system.boot_ms,
        state="draining" if system.draining else "serving",
        clients=system.host.clients,
        agents=system.processes.living,
        calls=system.calls,
        refused=system.refused,
        in_flight=len(system.gate.in_flight),
        queued_turns=system.scheduler.queued,
        policy=system.law.policy.hash,
        devices=system.fleet.view(),
        pages=system.paging.view(),
        damage=system.damage,
    )


def cancel(system: System, ticket: Ticket, call: Cancel) -> Done:
    """End one of the caller's calls."""
    system.gate.cancel(ticket.principal, call.id)
    return Done()


def backup(system: System, ticket: Ticket, call: BackUp) -> Later:
    """Copy the database, in a thread that reads."""

    def copy(connection: Connection) -> BackedUp:
        path = Path(call.path)
        commits = backups.backup(connection, storage_key(system.where.state), path)
        return BackedUp(path.stat().st_size, commits)

    return system.storage.query(ticket, copy, lambda done: done)


def stop(system: System, ticket: Ticket, call: StopKernel) -> Done:
    """End the kernel; draining, only the calls that compute are waited for, as one that waits for somebody may never end."""
    system.draining = True
    error = StoppingError("The kernel is being stopped.", retry_after=5.0)
    for other in list(system.gate.in_flight.values()):
        if not call.drain or other.row.cost is Cost.WAITS:
            system.gate.end(other, error)
    # Not at once: the reply to this very call shall leave first.
    system.host.at(system.host.now, system.stop_if_drained)
    return Done()
