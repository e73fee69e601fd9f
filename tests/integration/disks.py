"""What the real kernel does on a disk that is full or read-only; run as a program where it alone sees the disks (see `test_disks.py`).

`python -m tests.integration.disks SCENARIO FOLDER`: fails loudly, or prints `fine`.
"""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import sleep

from benchmarks.kernel import RunningKernel, booted
from kernos.syscalls import Context, Kernel, Store
from kernos.syscalls.errors import StorageFullError
from kernos.syscalls.message import Receive, Send
from kernos.syscalls.model import Message
from kernos.syscalls.process import Kill, ListProcesses
from kernos.syscalls.system import BackUp, GetStatus, Ping
from tests.kernel.memory.disks import mount

SIZE = 100_000


def full(folder: Path) -> None:
    """What was acknowledged is there, what was refused is not, the kernel lives, and goes on when there is room."""
    mount(folder, "size=64m")
    with booted(home=str(folder)) as running, running.connect() as kernel:
        agent, victim = kernel.spawn("writer"), kernel.spawn("victim")
        chat = Context(agent, "chat")
        chat.append(Message("user", "kept"))
        ballast = _fill_up(folder)
        count = _until_refused(lambda number: Store(agent).put(f"files/{number}", str(number).encode() * SIZE))
        assert count
        # Where a file does not fit something small may: what is taken to the very end counts like the rest.
        texts = [
            "kept",
            *(f"last {number}" for number in range(_until_refused(lambda number: chat.append(Message("user", f"last {number}"))))),
        ]
        names = {f"last-{number}" for number in range(_until_refused(lambda number: kernel.spawn(f"last-{number}")))}
        sent = _until_refused(lambda number: _send(agent, number))
        assert not _until_refused(lambda number: kernel.call(BackUp(path=str(folder / f"backup{number}"))))
        assert not list(folder.glob("backup*"))
        kernel.call(Kill(pid=victim.pid))
        _check(agent, chat, texts, count)
        assert kernel.call(Ping(payload=b"x"), urgent=True).payload == b"x"
        ballast.unlink()
        _until_taken(lambda: Store(agent).put(f"files/{count}", str(count).encode() * SIZE))
        _send(agent, sent)
        for number in range(sent + 1):
            assert agent.call(Receive(mailbox=f"agent/{agent.pid}"), timeout=5).text == f"hello {number}"
        _kill(running)
        with booted(home=str(folder)):
            _check(agent, chat, texts, count + 1)
            states = {row.name: row.state for row in kernel.call(ListProcesses()).processes}
            assert states["writer"] == "idle"
            assert {name for name in states if name.startswith("last-")} == names


def readonly(folder: Path) -> None:
    """A kernel does not start on a disk that became read-only, says why, and has lost nothing when it can be written again."""
    mount(folder, "size=64m")
    with booted(home=str(folder)) as running, running.connect() as kernel:
        Context(kernel.spawn("writer"), "chat").append(Message("user", "kept"))
        devices = [os.pidfd_open(device.os_pid) for device in kernel.call(GetStatus()).devices]
        _kill(running)
    for device in devices:  # they end with their kernel, but a moment later, and their logs are open for writing until then
        assert select.select([device], [], [], 30)[0]
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    command = [sys.executable, "-m", "kernos.kernel"]
    environment = os.environ | {"KERNOS_HOME": str(folder)}
    refused = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 1, refused
    assert "cannot start" in refused.stderr, refused.stderr
    assert "Read-only file system" in refused.stderr, refused.stderr
    assert "Traceback" not in refused.stderr
    subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
    with booted(home=str(folder)) as running, running.connect() as kernel:
        assert [message.text for message in Context(kernel.spawn("reader"), "chat")] == ["kept"]


def _fill_up(folder: Path) -> Path:
    """Leave about 4 MB of the disk."""
    ballast = folder / "ballast"
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    ballast.write_bytes(bytes(max(0, free - (4 << 20))))
    return ballast


def _until_refused(call: Callable[[int], object]) -> int:
    """Make a call with 0, 1, 2, … until the disk does not take it; how often it was taken."""
    for number in range(10_000):
        try:
            call(number)
        except StorageFullError:
            return number
    raise AssertionError("this disk takes everything")


def _until_taken(call: Callable[[], object]) -> None:
    """Make a call again as its errors ask for, until the kernel has seen that there is room."""
    for _ in range(20):
        try:
            call()
        except StorageFullError as error:
            sleep(error.retry_after or 0.1)
        else:
            return
    raise AssertionError("there is room, and nothing is taken")


def _check(agent: Kernel, chat: Context, texts: list[str], count: int) -> None:
    assert [message.text for message in chat] == texts
    store = Store(agent)
    assert {file.path for file in store.list("files/")} == {f"files/{number}" for number in range(count)}
    for number in range(count):
        assert store.get(f"files/{number}") == str(number).encode() * SIZE


def _send(agent: Kernel, number: int) -> None:
    agent.call(Send(to=f"agent/{agent.pid}", text=f"hello {number}"))


def _kill(running: RunningKernel) -> None:
    os.kill(running.os_pid, signal.SIGKILL)
    running.process.wait()


SCENARIOS: dict[str, Callable[[Path], None]] = {"full": full, "readonly": readonly}

if __name__ == "__main__":
    SCENARIOS[sys.argv[1]](Path(sys.argv[2]))
    print("fine")
