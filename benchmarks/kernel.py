"""A real kernel in a folder of its own, for as long as a `with` block lasts.

with booted() as kernel, kernel.connect() as handle:
    handle.call(Ping())
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Final

from kernos.syscalls import Kernel, Key, Places, places
from kernos.syscalls.errors import UnreachableError
from kernos.syscalls.keys import make_key, own_key
from kernos.syscalls.model import ListModels, LoadModel, Model
from kernos.syscalls.places import read_connection
from kernos.syscalls.policy import Enroll
from kernos.syscalls.system import Ping

ROOT: Final = Path(__file__).parents[1]
BOOT_S: Final = 30.0
STOP_S: Final = 15.0
_WORDS: Final = 50
"""Lines of a kernel's log that are shown where something failed."""


@dataclass(frozen=True)
class RunningKernel:
    """A kernel that answers; `key` is its administrator's."""

    where: Places
    key: Key
    process: "subprocess.Popen[bytes]"

    @property
    def os_pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def connect(self, key: Key | None = None) -> Kernel:
        """A new connection, as the administrator unless another key is given."""
        return Kernel(key or self.key, where=self.where)

    def enroll(self, principal: str) -> Key:
        """Make a principal known and return its key."""
        key = make_key(principal)
        with self.connect() as kernel:
            kernel.call(Enroll(principal=principal, public_key=key.public))
        return key

    def kill(self) -> None:
        """End it as a crash would, at once and without a word."""
        self.process.kill()
        self.process.wait()

    def log(self) -> str:
        """The kernel's log so far."""
        return (self.where.logs / "kernel.log").read_text("utf-8")

    def cpu_s(self) -> float:
        """Processor time that it and its device servers have taken so far."""
        children = Path(f"/proc/{self.os_pid}/task/{self.os_pid}/children").read_text("ascii").split()
        stats = [Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split() for pid in (self.os_pid, *children)]
        return sum(int(stat[11]) + int(stat[12]) for stat in stats) / os.sysconf("SC_CLK_TCK")

    def load_decoder(self) -> Model:
        """Load the decoder alone; what became of it."""
        with self.connect() as kernel:
            return kernel.call(LoadModel(model=kernel.call(ListModels()).decoder), timeout=120)

    def load_models(self) -> str:
        """Load every model there is, so that loading disturbs no measurement; the name of the decoder."""
        with self.connect() as kernel:
            models = kernel.call(ListModels())
            for model in models.models:
                kernel.call(LoadModel(model=model.name), timeout=120)
            return models.decoder


def models_folder() -> Path:
    """The model store of tests and benchmarks: `KERNOS_MODELS`, or `.kernos/models` in the repository."""
    return Path(os.environ.get("KERNOS_MODELS") or ROOT / ".kernos" / "models")


@contextmanager
def booted(*arguments: str, config: str = "", home: str = "", models: Path | None = None) -> Iterator[RunningKernel]:
    """Boot a kernel with these arguments and this text as its settings, in a new folder unless one is named; stop it at the end.

    `models` is its model store, if not the usual one.
    """
    # Not under the repository: the path of a socket has to be short.
    with nullcontext(home) if home else tempfile.TemporaryDirectory(prefix="kernos-") as home:
        where = _places(Path(home), models or models_folder())
        if config:
            where.config.mkdir(parents=True, exist_ok=True)
            (where.config / "kernos.toml").write_text(config, encoding="utf-8")
        log = Path(home) / "output"
        process = _start(where, log, arguments)
        try:
            _await_answer(process, where, log)
            yield RunningKernel(where, own_key(where), process)
        except BaseException:
            print(f"The kernel's last words:\n{_last_words(where)}")  # tests show it with what failed
            raise
        finally:
            _stop(process)


def _last_words(where: Places) -> str:
    log = where.logs / "kernel.log"
    return "\n".join(log.read_text("utf-8", "replace").splitlines()[-_WORDS:]) if log.exists() else ""


def _places(home: Path, models: Path) -> Places:
    found = places(home)
    return Places(found.config, found.state, models, found.runtime)


def _start(where: Places, log: Path, arguments: tuple[str, ...]) -> "subprocess.Popen[bytes]":
    environment = os.environ | {"KERNOS_HOME": str(where.config.parent), "KERNOS_MODELS": str(where.models)}
    with log.open("wb") as output:
        command = [sys.executable, "-m", "kernos.kernel", *arguments]
        return subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)


def _await_answer(process: "subprocess.Popen[bytes]", where: Places, log: Path) -> None:
    until = monotonic() + BOOT_S
    while process.poll() is None and monotonic() < until:
        if _answers(where):
            return
        sleep(0.05)
    raise RuntimeError(f"The kernel did not come up (exit code {process.poll()}). It wrote:\n{log.read_text(errors='replace')}")


def _answers(where: Places) -> bool:
    try:
        read_connection(where)
        with Kernel(own_key(where), where=where) as kernel:
            kernel.call(Ping())
    except UnreachableError:
        return False
    return True


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
