"""A model store in which nothing was compiled yet: the first answer waits for no compiler, and later ones come by compiled passes."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

import pytest

from benchmarks.kernel import booted
from kernos.kernel.devices.compiler import build, cache_folder, compiler
from kernos.syscalls import Kernel
from kernos.syscalls.model import Generate, ListModels, Message

PATIENCE_S = 120.0
MODEL = "smollm2-135m"
ASK = Generate(model=MODEL, messages=[Message("user", "What is the capital of France?")], max_tokens=12, temperature=0.0)


@pytest.fixture
def store(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / MODEL).symlink_to(models / MODEL)
    monkeypatch.setenv("KERNOS_MODELS", str(folder))
    return folder


@pytest.fixture
def agent(store: Path) -> Iterator[Kernel]:
    with booted("--dtype", "float32") as running, running.connect() as connection:
        yield connection.spawn("tester")


def mode(agent: Kernel) -> str:
    (model,) = agent.call(ListModels()).models
    return model.mode


class TestWithoutACompiler:
    @pytest.fixture(autouse=True)
    def no_compiler(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))

    def test_answers_come_all_the_same(self, agent: Kernel, store: Path) -> None:
        assert agent.call(ASK, timeout=PATIENCE_S).text
        assert mode(agent) == "eager"
        assert not cache_folder(store).exists()


@pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler")
def test_the_passes_are_taken_up_when_they_are_there(models: Path, agent: Kernel, store: Path) -> None:
    eager = agent.call(ASK, timeout=PATIENCE_S).text
    assert mode(agent) == "eager"
    cache_folder(store).mkdir(0o755, exist_ok=True)
    shutil.copy(build(cache_folder(models)), cache_folder(store))
    until = monotonic() + PATIENCE_S
    while mode(agent) != "compiled" and monotonic() < until:
        sleep(0.1)
    assert mode(agent) == "compiled"
    assert agent.call(ASK, timeout=PATIENCE_S).text == eager
