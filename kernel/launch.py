"""Starting a device server: its place, its key and its boot line; and finding the ones a dead kernel left behind."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from kernos.syscalls.keys import make_key

from .devices.compiler import cache_folder
from .devices.server import Boot
from .security.liveness import start_time

if TYPE_CHECKING:
    from .system import System


class Trace(msgspec.Struct, frozen=True):
    """What is written down of a device server, to know it again: the start time tells it from a later process of the same pid."""

    os_pid: int
    start_time: int


def launch_device(system: "System", server: str, endpoint: str, kernel_public: str) -> "subprocess.Popen[bytes]":
    """Start a device server with a key of its own, which lasts as long as it does."""
    key = make_key(f"device:{server}")
    boot = Boot(
        device=system.config.device_of(server),
        endpoint=endpoint,
        kernel_public=kernel_public,
        public=key.public,
        secret=key.secret,
        threads=system.config.threads or len(os.sched_getaffinity(0)),
        nice=system.config.nice,
        turnstile=str(_folder(system.where.state)) if system.config.one_device else "",
        compiled=str(cache_folder(system.where.models)) if server == "decoder" else "",
        parent=os.getpid(),
    )
    with (system.where.logs / f"device-{server}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "kernos.kernel.devices.server"], stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
        )
    system.identities.lend(key.principal, key.public, process.pid)  # before it can know its key
    assert process.stdin is not None  # noqa: S101  (it was asked for)
    process.stdin.write(msgspec.json.encode(boot) + b"\n")
    process.stdin.close()
    _trace_file(system.where.state, server).write_bytes(msgspec.json.encode(Trace(process.pid, start_time(process.pid))))
    return process


def reap_orphans(state: Path) -> list[int]:
    """Kill device servers that outlived their kernel; their pids."""
    killed = []
    for file in (state / "devices").glob("*.json"):
        # A trace that was cut by a crash says nothing; device servers also watch their parent.
        with suppress(msgspec.MsgspecError, ProcessLookupError):
            trace = msgspec.json.decode(file.read_bytes(), type=Trace)
            if trace.start_time and start_time(trace.os_pid) == trace.start_time:
                os.kill(trace.os_pid, 9)
                killed.append(trace.os_pid)
        file.unlink()
    return killed


def _trace_file(state: Path, server: str) -> Path:
    return _folder(state) / f"{server}.json"


def _folder(state: Path) -> Path:
    folder = state / "devices"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
