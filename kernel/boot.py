"""First boot and every boot: folders, keys, policies, the lock. After this the loop can run."""

import fcntl
import logging
import os
import resource
import shutil
import sys
from importlib.resources import files
from pathlib import Path
from typing import IO, Final

from kernos.syscalls.keys import Key, administrator, key_file, make_key, read_key, write_key
from kernos.syscalls.places import Places
from kernos.syscalls.sources import MODEL, ROLES, read_files

from .memory.backup import restore
from .memory.database import DamagedError, Database, open_database, storage_key
from .security.generations import Generations
from .security.identity import Identities
from .security.policy import read_policy, sound
from .security.rules import END

log = logging.getLogger(__name__)

LOCAL_ROLES: Final = f"{ROLES}/90-local.csv"
"""Names the administrator; the only file of the first policies that is not shipped."""


class BootError(Exception):
    """The kernel cannot start; the message says why and what to do."""


def make_folders(where: Places) -> None:
    """All folders, readable by their owner alone; `BootError` if somebody else's are in the way."""
    for folder in (where.config, where.state, where.runtime, where.logs):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            raise BootError(f"{folder} belongs to another user. Set KERNOS_HOME to a folder of your own.")
        folder.chmod(0o700)  # they may have been there before


def raise_limits() -> None:
    """As many descriptors as the system grants: a client takes two or three, and libzmq aborts where it has none left to accept with."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def lock_state(where: Places) -> IO[str]:
    """Hold the state folder; it is freed when the process ends, however it ends."""
    lock = (where.state / "kernel.lock").open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise BootError(f"A kernel is running on {where.state} already. See `kernos status`, or end it with `kernos stop`.") from None
    return lock


def open_storage(where: Places) -> Database:
    """The database in the state folder, made at the first boot. What it lost by damage is told in the log and on the terminal."""
    try:
        database = open_database(where.state, storage_key(where.state))
    except DamagedError as error:
        raise BootError(str(error)) from error
    if report := database.recovery.report():
        log.critical("%s", report)
        print(f"kernos: {report}", file=sys.stderr, flush=True)
    return database


def restore_storage(where: Places, file: Path) -> int:
    """Put a backup in the place of the database, whose key must be there; how many commits it holds."""
    try:
        return restore(file, storage_key(where.state), where.state)
    except DamagedError as error:
        raise BootError(str(error)) from error


def kernel_key(where: Places) -> Key:
    """The kernel's own key; made at the first boot. Clients know its public half from the connection file."""
    return _key(where, "device:kernel")


def enroll_administrator(where: Places, identities: Identities) -> Key:
    """The key of whoever boots the kernel first: an administrator."""
    key = _key(where, administrator())
    if identities.revoked(key.public):
        log.warning(
            "the key of %s was revoked and stays so; `kernos principal add` by another administrator makes a new one", key.principal
        )
    elif identities.principal(key.public) != key.principal:  # new, or its file was lost and made again
        identities.add(key.principal, key.public)
        identities.keep(key.principal, key.public)
    return key


def install_policies(where: Places, administrator: str, now: float) -> Generations:
    """The policies of this installation; at the first boot the shipped ones, as generation 1, with the administrator named in them."""
    folder = where.config / "policies"
    generations = Generations(folder)
    if not (folder / MODEL).exists():
        part = where.config / "policies.part"
        shutil.rmtree(part, ignore_errors=True)
        for name, data in read_files(Path(str(files("kernos.policies")))).items():
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            (part / name).write_bytes(data)
        (part / LOCAL_ROLES).write_text(f"# Who administers this machine.\ng, {administrator}, role:admin\n{END}\n", "utf-8")
        part.rename(folder)
    if not generations.active and not generations.history():  # else it is for the administrator to say which of them is in force
        written = read_files(folder)
        sound(*read_policy(written))
        generations.install(written, administrator, "the first start", now)
    return generations


def _key(where: Places, principal: str) -> Key:
    if not key_file(where, principal).exists():
        write_key(where, make_key(principal))
    return read_key(key_file(where, principal))
