"""Disks that are full, read-only or failing. Each in a process of its own; small disks are mounted where only that process sees them."""

import os
import platform
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.kernel.memory.disks import FSYNCS, numbers
from tests.kernel.memory.storage import Storage

ROOT = Path(__file__).parents[3]


def run(scenario: str, folder: Path, *before: str) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "src")))}
    command = [*before, sys.executable, "-m", "tests.kernel.memory.disks", scenario, str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "fine\n", done.stderr


@cache
def apart() -> list[str] | None:
    """How to run something that may mount; `None` if this machine does not let us."""
    for command in (["unshare", "-m"], ["unshare", "-rm"]):
        if (
            shutil.which("unshare")
            and subprocess.run([*command, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True).returncode == 0
        ):
            return command
    return None


@pytest.mark.parametrize("scenario", ["full", "readonly"])
def test_a_small_disk(tmp_path: Path, scenario: str) -> None:
    command = apart()
    if command is None:
        pytest.skip("this machine lets nobody mount, not even in a namespace of his own")
    run(scenario, tmp_path, *command)


@pytest.mark.parametrize("scenario", ["unwritten", "unsynced"])
def test_a_commit_that_failed_stops_writing(tmp_path: Path, scenario: str) -> None:
    if platform.machine() not in FSYNCS:
        pytest.skip("the numbers of the system calls are not known here")
    run(scenario, tmp_path)
    storage = Storage(tmp_path / "state")
    found = storage.read(numbers)
    assert (storage.database.recovery.lost, found) == (0, list(range(len(found))))
    assert len(found) >= 10
    storage.close()
