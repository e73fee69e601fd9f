"""The library of compiled passes: built from `step.cpp` by the C++ compiler of this machine, for its processor, and kept in a cache.

One library of some hundred kilobytes serves all models, numbers of rows and lengths, so it is built once, in half a minute at the most.
It is known by its source, how it was built and for which processor: whatever is found under that name fits. Nobody waits for it: a device
computes by torch's operations until it is there. No torch is imported here. Run as `python -m kernos.kernel.devices.compiler FOLDER` it
builds in time that nobody else wants, and dies with its parent.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).with_name("step.cpp")
_FLAGS: Final = ("-std=c++17", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fPIC", "-fopenmp", "-c")
_TUNED: Final = {"x86_64": "-march=native"}
_FOLDER: Final = ".compiled"
"""Inside the model store; hidden folders are never models."""
_PR_SET_PDEATHSIG: Final = 1


class CompilerError(Exception):
    """The library cannot be built; the text says why."""


def cache_folder(models: Path) -> Path:
    """Where a model store keeps its libraries."""
    return models / _FOLDER


def find(folder: Path) -> Path | None:
    """The library for this processor. One that somebody else could have written is not taken: loading it runs what is in it."""
    path = folder / f"step-{_key()}.so"
    try:
        for what in (path, folder):
            found = what.stat()
            if found.st_uid not in (0, os.getuid()) or stat.S_IMODE(found.st_mode) & 0o022:
                return None
    except OSError:
        return None
    return path


def compiler() -> str | None:
    """The C++ compiler of this machine. GNU's: its parallel loops run on the same threads as torch's."""
    return shutil.which("g++")


def build(folder: Path) -> Path:
    """Build the library unless it is there; raises CompilerError."""
    if (found := find(folder)) is not None:
        return found
    gnu = compiler()
    if gnu is None:
        raise CompilerError("there is no C++ compiler: install g++, or go on without; answers are the same, only slower")
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".build-") as work:
        made, library = Path(work, "step.o"), Path(work, "step.so")
        _run(gnu, *_FLAGS, *_tuning(), str(SOURCE), "-o", str(made))
        # Not linked with OpenMP: torch has loaded one, and with a second each would keep threads of its own.
        _run(gnu, "-shared", str(made), "-o", str(library))
        library.chmod(0o755)
        return library.rename(folder / f"step-{_key()}.so")


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        first = next((line for line in done.stderr.splitlines() if "error" in line), f"exit status {done.returncode}")
        raise CompilerError(f"{Path(command[0]).name} failed: {first}")


def _tuning() -> list[str]:
    return [_TUNED.get(platform.machine(), "-mcpu=native")]


@cache
def _key() -> str:
    """Everything that what is in the library depends on."""
    parts = [SOURCE.read_bytes(), " ".join((*_FLAGS, *_tuning())).encode(), platform.machine().encode(), _processor()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _processor() -> bytes:
    """The model and the instructions of the first processor, as Linux tells them."""
    lines = Path("/proc/cpuinfo").read_bytes().split(b"\n\n")[0].splitlines()
    return b"\n".join(line for line in lines if line.split(b"\t")[0].strip() in {b"model name", b"flags", b"Features", b"CPU part"})


def main() -> int:
    """Build when nobody else wants the processor."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the folder of the build goes away
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    try:
        build(Path(sys.argv[1]))
    except (CompilerError, OSError) as error:
        print(f"the compiled passes cannot be built: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
