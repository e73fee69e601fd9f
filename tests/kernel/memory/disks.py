"""What a kernel does on a disk that is full, read-only or failing; run as a program, in a process of its own (see `test_disks.py`).

`python disks.py SCENARIO FOLDER`: fails loudly, or prints `fine`.
"""

import ctypes
import platform
import resource
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from kernos.kernel.memory import records
from kernos.kernel.memory.connection import Connection
from kernos.kernel.memory.database import open_database, storage_key
from kernos.syscalls.errors import KernosError, StorageError, StorageFullError
from tests.kernel.memory.storage import Storage

SIZE = 8_000
FSYNCS = {"x86_64": (317, 74, 75), "aarch64": (277, 82, 83)}
"""Numbers of the system calls seccomp, fsync and fdatasync."""


def put(storage: Storage, number: int) -> None:
    storage.write(lambda connection: records.remember(connection, "usage", "app:a", f"{number:06}", bytes(SIZE)))


def numbers(connection: Connection) -> list[int]:
    return [int(name) for _, name, _ in records.facts(connection, "usage")]


def fill(storage: Storage, first: int) -> tuple[int, KernosError]:
    """Write until it fails; how far, and how it failed."""
    for number in range(first, 100_000):
        try:
            put(storage, number)
        except KernosError as error:
            return number, error
    raise AssertionError("this disk takes everything")


def full(folder: Path) -> None:
    """A small disk: what was acknowledged is there, what was refused is not, and it goes on when there is room."""
    mount(folder, "size=16m")
    ballast = folder / "ballast"
    ballast.write_bytes(bytes(4 << 20))
    storage = Storage(folder / "state")
    count, error = fill(storage, 0)
    assert isinstance(error, StorageFullError), error
    assert storage.read(numbers) == list(range(count))
    assert isinstance(fill(storage, count)[1], StorageFullError)
    ballast.unlink()
    put(storage, count)
    assert storage.read(numbers) == list(range(count + 1))
    storage.close()
    again = Storage(folder / "state")
    assert again.database.recovery.lost == 0
    assert again.read(numbers) == list(range(count + 1))
    again.close()


def readonly(folder: Path) -> None:
    """A disk that became read-only while the kernel was away."""
    mount(folder, "size=32m")
    storage = Storage(folder / "state")
    put(storage, 0)
    storage.close()
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    try:
        open_database(folder / "state", storage_key(folder / "state"))
    except StorageError as error:
        assert "read-only" in str(error) or "cannot be opened" in str(error), error
    else:
        raise AssertionError("a read-only disk was opened")


def unwritten(folder: Path) -> None:
    """From some moment on writes fail, and not for want of room."""
    storage = begun(folder)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, resource.RLIM_INFINITY))
    stopped(storage, 10)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    stopped(storage, 0)
    storage.close()


def unsynced(folder: Path) -> None:
    """From some moment on every fsync fails."""
    storage = begun(folder)
    fail_fsync()
    stopped(storage, 0)
    stopped(storage, 0)
    storage.close()


def begun(folder: Path) -> Storage:
    storage = Storage(folder / "state")
    for number in range(10):
        put(storage, number)
    return storage


def stopped(storage: Storage, most: int) -> None:
    """Nothing is written any more, after a few last ones, everybody is told, and what was acknowledged can be read."""
    before = storage.read(numbers)
    count, error = fill(storage, len(before))
    assert count <= len(before) + most
    assert "nothing more until it is restarted" in str(error), error
    assert storage.read(numbers)[:count] == list(range(count))


def mount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)


def fail_fsync() -> None:
    """Let fsync and fdatasync of all threads fail with EIO, for good: a seccomp filter."""
    seccomp, *numbers_ = FSYNCS[platform.machine()]
    eio, allow = 0x00050000 | 5, 0x7FFF0000
    program = [
        (0x20, 0, 0, 0),  # the number of the system call
        (0x15, 1, 0, numbers_[0]),
        (0x15, 0, 1, numbers_[1]),
        (0x06, 0, 0, eio),
        (0x06, 0, 0, allow),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    filter_ = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # no new privileges
    assert libc.syscall(seccomp, 1, 1, filter_) == 0, ctypes.get_errno()


SCENARIOS: dict[str, Callable[[Path], None]] = {"full": full, "readonly": readonly, "unwritten": unwritten, "unsynced": unsynced}

if __name__ == "__main__":
    SCENARIOS[sys.argv[1]](Path(sys.argv[2]))
    print("fine")
