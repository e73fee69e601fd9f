"""The audit log of a real kernel: killed, restarted, tampered with, and read by the command."""

import os
import random
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import pytest
from click.testing import CliRunner, Result

from benchmarks.kernel import RunningKernel, booted
from kernos.apps.cli.__main__ import main
from kernos.syscalls.audit import ExportAudit, ReadAudit, VerifyAudit
from kernos.syscalls.errors import DeniedError, KernosError, UnreachableError
from kernos.syscalls.keys import make_key
from kernos.syscalls.process import Spawn
from kernos.syscalls.system import StopKernel

KILLS = 100 if os.environ.get("KERNOS_PROVE") else 3

LATE_S = 0.1
"""Decisions this young may be missing after a kill; on an idle machine it is those of the last 5 ms."""


def spawn_until_killed(running: RunningKernel, seconds: float) -> list[float]:
    """Make agents for so long, then kill the kernel; how long before that each was acknowledged."""
    acknowledged, began = list[float](), monotonic()
    with running.connect() as kernel, pytest.raises(KernosError):
        while True:
            kernel.call(Spawn(name="x"), timeout=2)
            acknowledged.append(monotonic())
            if acknowledged[-1] - began > seconds:
                running.process.kill()
    return [acknowledged[-1] - time for time in acknowledged]


def recorded(running: RunningKernel) -> int:
    """Agents that the log has of the kernel before this one."""
    with running.connect() as kernel:
        starts = [entry.number for entry in kernel.call(ReadAudit(name="kernel.start")).entries]
        count, at = 0, starts[-2]
        while at:
            part = kernel.call(ExportAudit(start=at))
            count, at = count + sum('"call":"process.spawn"' in line for line in part.lines), part.next
        return count


def test_the_log_survives_kills(tmp_path_factory: pytest.TempPathFactory, models: Path) -> None:
    chance, home = random.Random(5), str(tmp_path_factory.mktemp("k"))
    for _ in range(KILLS):
        with booted(home=home) as running:
            ages = spawn_until_killed(running, 0.1 + chance.random() * 0.3)
        with booted(home=home) as running, running.connect() as kernel:
            assert kernel.call(VerifyAudit()).findings == []
            assert len([age for age in ages if age > LATE_S]) <= recorded(running) <= len(ages) + 1


@pytest.fixture
def shell(own_kernel: RunningKernel, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("KERNOS_HOME", str(own_kernel.where.config.parent))
    return lambda *args: CliRunner().invoke(main, ["audit", *args])


def test_the_command(own_kernel: RunningKernel, shell: Callable[..., Result], tmp_path: Path) -> None:
    key = own_kernel.enroll("app:nosy")
    with own_kernel.connect(key) as nosy, pytest.raises(DeniedError):
        nosy.call(StopKernel())
    with pytest.raises(UnreachableError):
        own_kernel.connect(make_key("app:nosy"))
    assert "system.stop" in shell("tail").output
    denied = shell("search", "--verdict", "deny", "--principal", "app:nosy").output
    assert "system:stop" in denied
    assert "policy.enroll" not in denied
    assert "unknown key" in shell("search", "--call", "connect", "--json").output
    assert "policy.enroll" in shell("search", "principal/app:nosy").output
    fine = shell("verify")
    assert (fine.exit_code, fine.output.startswith("All ")) == (0, True)
    assert shell("export", str(tmp_path / "copy")).exit_code == 0
    (log,) = (own_kernel.where.state / "audit").iterdir()
    lines = (tmp_path / "copy").read_text("utf-8").splitlines()
    assert log.read_text("utf-8").splitlines()[: len(lines)] == lines
    log.write_text(log.read_text("utf-8").replace("app:nosy", "app:nice"), "utf-8")
    found = shell("verify")
    assert found.exit_code == 1
    assert "was changed" in found.output
