"""Starting and stopping the kernel, with small scripts in its place."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import Result

from kernos.apps.cli import service
from kernos.syscalls import Call, places
from kernos.syscalls.errors import KernelRestartedError
from kernos.syscalls.places import Connection

Shell = Callable[..., Result]


def write_connection(os_pid: int) -> None:
    file = places().connection
    file.parent.mkdir(parents=True)
    file.write_bytes(msgspec.json.encode(Connection(os_pid, "ipc:///nowhere", "ipc:///nowhere", "k" * 40, "1.0")))


def test_a_kernel_that_dies_at_boot_is_told_with_its_last_words(home: Path) -> None:
    with pytest.raises(service.BootError, match=r"code 3 before it was up(.|\n)*policy line 7 is wrong"):
        service._boot(places(), [sys.executable, "-c", "import sys; print('policy line 7 is wrong', file=sys.stderr); sys.exit(3)"])


def test_a_kernel_that_never_comes_up_is_ended(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "BOOT_S", 0.2)
    with pytest.raises(service.BootError, match=r"did not open its sockets within 0.2 s; it was ended"):
        service._boot(places(), [sys.executable, "-c", "import time; time.sleep(60)"])


def test_a_second_kernel_is_refused(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    write_connection(os.getpid())
    monkeypatch.setattr(service, "_ping", lambda _: None)
    result = shell("serve", "--detach")
    assert result.exit_code == 1
    assert f"A kernel is running already (pid {os.getpid()}" in result.stderr


@pytest.mark.parametrize("answers", [True, False])
def test_stop_returns_when_the_process_is_gone(shell: Shell, monkeypatch: pytest.MonkeyPatch, answers: bool) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    write_connection(child.pid)

    def kill(_: Call[Any], *, urgent: bool) -> None:
        assert urgent
        child.kill()
        if not answers:
            raise KernelRestartedError("Lost.")

    monkeypatch.setattr(service, "ask", kill)
    result = shell("stop")
    assert child.poll() is not None, "stop returned before the process had ended"
    assert result.exit_code == 0
    assert f"(pid {child.pid}) has ended" in result.stdout


def test_stop_says_so_when_the_process_stays(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    write_connection(os.getpid())
    monkeypatch.setattr(service, "ask", lambda *_, **__: None)
    monkeypatch.setattr(service, "STOP_S", 0.1)
    result = shell("stop")
    assert result.exit_code == 1
    assert "has not ended within 0.1 s" in result.stderr
