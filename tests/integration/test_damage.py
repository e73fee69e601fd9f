"""The real kernel on a database that was damaged while it was away: it says what is lost, or refuses to start."""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.kernel import booted
from kernos.kernel.memory.connection import log_of
from kernos.kernel.memory.database import NAME
from kernos.syscalls import Context
from kernos.syscalls.model import Message
from kernos.syscalls.system import GetStatus

WRITES = 12
TAIL = 4_096
SPOTS = 40 if os.environ.get("KERNOS_PROVE") else 3
"""Bytes of the tail that are damaged, each on a copy of its own; each byte of it is in `tests/kernel/memory/test_database.py`."""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The home of a kernel that was killed after some writes."""
    with tempfile.TemporaryDirectory(prefix="kernos-") as home, pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERNOS_MODELS", str(tmp_path_factory.mktemp("models")))
        with booted(home=home) as running, running.connect() as kernel:
            chat = Context(kernel.spawn("writer"), "chat")
            for number in range(WRITES):
                chat.append(Message("user", str(number)))
            os.kill(running.os_pid, signal.SIGKILL)
            running.process.wait()
        yield Path(home)


@pytest.fixture
def copy(killed: Path) -> Iterator[Path]:
    """A copy that a test may damage."""
    with tempfile.TemporaryDirectory(prefix="kernos-") as home:
        yield Path(shutil.copytree(killed, home, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.sock")))


def damage(log: Path, at: int) -> None:
    data = bytearray(log.read_bytes())
    data[at] ^= 0x10
    log.write_bytes(data)


def used(log: Path) -> int:
    """Bytes of the log that hold something: its room is made beforehand."""
    return len(log.read_bytes().rstrip(b"\0"))


@pytest.mark.parametrize("seed", range(SPOTS))
def test_a_damaged_end_of_the_log_is_reported_or_refused(copy: Path, seed: int) -> None:
    log = log_of(copy / "state" / NAME)
    damage(log, used(log) - 1 - random.Random(seed).randrange(TAIL))
    _reported(copy)


def test_an_end_that_was_cut_is_reported_or_refused(copy: Path) -> None:
    log = log_of(copy / "state" / NAME)
    os.truncate(log, used(log) - TAIL)
    _reported(copy)


def _reported(home: Path) -> None:
    with booted(home=str(home)) as running, running.connect() as kernel:
        status = kernel.call(GetStatus())
        assert "acknowledged commits the last" in status.damage
        assert status.damage in running.log()
        assert status.damage in (home / "output").read_text()
        command = [sys.executable, "-m", "kernos.apps.cli", "status"]
        shown = subprocess.run(
            command, env={**os.environ, "KERNOS_HOME": str(home)}, capture_output=True, text=True, timeout=60, check=True
        )
        assert status.damage in shown.stdout
        texts = [message.text for message in Context(kernel.spawn("reader"), "chat")]
        assert texts == [str(number) for number in range(len(texts))], "a prefix of what was written"
    with booted(home=str(home)) as running, running.connect() as kernel:
        assert kernel.call(GetStatus()).damage == "", "told once"


def test_a_damaged_database_is_refused_clearly(copy: Path) -> None:
    with booted(home=str(copy)):
        pass  # the log is copied when it starts, and when it stops
    damage(copy / "state" / NAME, 5_000)
    with pytest.raises(RuntimeError, match=r"(?s)cannot start\. .*kernos\.db.*kernos restore"), booted(home=str(copy)):
        pass
    assert "Traceback" not in (copy / "output").read_text()
