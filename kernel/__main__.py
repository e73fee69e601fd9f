"""Boot: folders, lock, policies, keys, sockets, devices; then the loop. `python -m kernos.kernel`, as `kernos serve` starts it."""

import argparse
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import get_args

import msgspec

from kernos.syscalls.errors import KernosError
from kernos.syscalls.places import Connection, Places, places
from kernos.syscalls.version import MAJOR, MINOR

from .boot import (
    BootError,
    enroll_administrator,
    install_policies,
    kernel_key,
    lock_state,
    make_folders,
    open_storage,
    raise_limits,
    restore_storage,
)
from .config import Config, ConfigError, load_config
from .devices.messages import Arithmetic
from .gate import Gate
from .launch import reap_orphans
from .law import enforced
from .loop import Loop
from .memory.database import storage_key
from .observe.logs import open_log
from .security.identity import Identities
from .security.rules import PolicyError
from .storage import DatabaseDisk
from .system import System

log = logging.getLogger("kernos.kernel")


def main() -> int:
    """Run a kernel until it is stopped; the exit code says whether it could start."""
    where = places()
    try:
        arguments = _arguments()
        config = _configure(where, arguments)
        make_folders(where)
        raise_limits()
        lock = lock_state(where)
        if arguments.restore:
            print(f"The database is that of {arguments.restore}: {restore_storage(where, arguments.restore)} commits.")
            return 0
        open_log(where.logs)
        loop = _boot(where, config)
    except (BootError, ConfigError, PolicyError, KernosError, OSError) as error:
        print(f"kernos: the kernel cannot start. {error}", file=sys.stderr)
        return 1
    try:
        loop.run()
    finally:
        where.connection.unlink(missing_ok=True)
        loop.system.agents.flush()
        loop.system.audit.close()
        loop.system.law.write_down(loop.system.storage)
        loop.system.storage.close()
        loop.close()
        lock.close()
        log.info("stopped")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("kernos.kernel", description="The Kernos kernel. Usually started by `kernos serve`.")
    parser.add_argument("--config", type=Path, help="settings to use instead of kernos.toml in the configuration folder")
    parser.add_argument("--dtype", choices=get_args(Arithmetic), help="arithmetic of decoders, over the settings")
    parser.add_argument("--restore", type=Path, help="put this backup in the place of the database, and end")
    return parser.parse_args()


def _configure(where: Places, arguments: argparse.Namespace) -> Config:
    if arguments.config and not arguments.config.exists():
        raise ConfigError(f"There is no file {arguments.config}. Name an existing one, or leave --config out.")
    config = load_config(arguments.config or where.config / "kernos.toml")
    return msgspec.structs.replace(config, dtype=arguments.dtype) if arguments.dtype else config


def _boot(where: Places, config: Config) -> Loop:
    if orphans := reap_orphans(where.state):
        log.warning("killed device servers that a dead kernel left behind: %s", orphans)
    identities = Identities(where.state / "principals")
    administrator = enroll_administrator(where, identities)
    law = enforced(install_policies(where, administrator.principal, time.time()))
    key = kernel_key(where)
    database = open_storage(where)
    loop = Loop(key)
    calls, control = where.socket("calls"), where.socket("control")
    os.umask(0o077)  # sockets take their mode from it
    loop.open(calls, control, where.socket("devices"))
    system = System(loop, where, config, law, identities, DatabaseDisk(database, loop.post), _since_start_ms())
    system.damage = database.recovery.report()
    loop.attach(system, Gate(system))
    reader = database.reader()
    system.recover(reader)
    system.audit.open(reader, storage_key(where.state))
    reader.close()
    system.storage.keep_tidy()
    system.law.keep(system.storage)
    system.retention.start()
    system.embedder.start()
    _wanted_models(system)
    system.fleet.start()
    _handle_signals(system)
    _announce(where, Connection(os.getpid(), calls, control, key.public, f"{MAJOR}.{MINOR}"))
    log.info("up after %.0f ms, policy %s", system.boot_ms, law.policy.hash)
    print(f"Kernos is up (process {os.getpid()}, {system.boot_ms:.0f} ms). Stop it with `kernos stop` or Ctrl-C.", flush=True)
    return loop


def _wanted_models(system: System) -> None:
    """The default models are loaded behind the first calls."""
    for kind in ("decoder", "encoder"):
        name = system.registry.default(kind)
        if name:
            system.registry.load(system.registry.get(name))


def _announce(where: Places, connection: Connection) -> None:
    part = where.connection.with_suffix(".part")
    part.write_bytes(msgspec.json.encode(connection))
    part.replace(where.connection)


def _handle_signals(system: System) -> None:
    def stop(*_: object) -> None:
        system.draining = True
        system.host.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)


def _since_start_ms() -> float:
    """Since this process was started, by the kernel's books: imports count."""
    ticks = int(Path("/proc/self/stat").read_text("ascii").rpartition(")")[2].split()[19])
    return (time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")) * 1_000


if __name__ == "__main__":
    sys.exit(main())
