"""A shell for the command `kernos`, in an installation of its own where no kernel runs, and a kernel that answers by rote."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from click.testing import CliRunner, Result

from kernos.apps.cli import session
from kernos.apps.cli.__main__ import main
from kernos.syscalls import Call
from kernos.syscalls.errors import KernosError

Shell = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KERNOS_HOME", str(tmp_path))
    monkeypatch.delenv("KERNOS_KEY", raising=False)
    return tmp_path


@pytest.fixture
def shell(home: Path) -> Shell:
    return lambda *args: CliRunner().invoke(main, list(args))


class RoteKernel:
    """Answers each type of call with what was put down for it, and remembers the calls."""

    def __init__(self) -> None:
        self.answers: dict[type[Call[Any]], Any] = {}
        self.calls: list[Call[Any]] = []

    def call(self, call: Call[Any], **_: object) -> Any:
        self.calls.append(call)
        answer = self.answers[type(call)]
        if isinstance(answer, KernosError):
            raise answer
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[RoteKernel]:
    rote = RoteKernel()
    monkeypatch.setattr(session, "Kernel", lambda: rote)
    yield rote
