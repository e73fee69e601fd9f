"""The real kernel on a small disk of its own, mounted where nobody else sees it."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.kernel.memory.test_disks import ROOT, apart


@pytest.mark.parametrize("scenario", ["full", "readonly"])
def test_a_kernel_on_a_small_disk(tmp_path: Path, scenario: str) -> None:
    before = apart()
    if before is None:
        pytest.skip("this machine lets nobody mount, not even in a namespace of his own")
    # Without models, as they would be another disk's; and under a short path, for the sockets.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "src"))), "KERNOS_MODELS": str(tmp_path)}
    with tempfile.TemporaryDirectory(prefix="kernos-") as folder:
        command = [*before, sys.executable, "-m", "tests.integration.disks", scenario, folder]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.stdout == "fine\n", done.stderr
