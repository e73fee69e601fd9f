"""`kernos pull` and `kernos models optimize`, with a script in the place of the process that works."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from click.testing import Result

from kernos.apps.cli import progress
from kernos.apps.cli.download import _PHASES

Shell = Callable[..., Result]

LINES = ['{"phase":"download","done":0,"total":0}', '{"phase":"download","done":5,"total":10}', '{"phase":"new","done":0,"total":1}']
DONE = '{"phase":"done","model":"tiny"}'


@pytest.fixture
def puller(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    popen = subprocess.Popen

    def stand_in(*lines: str, code: int = 0) -> None:
        text = f"import sys; print(*{lines!r}, sep=chr(10)); sys.exit({code})"
        monkeypatch.setattr(subprocess, "Popen", lambda _, **kwargs: popen([sys.executable, "-c", text], **kwargs))

    return stand_in


def test_without_a_terminal_each_phase_is_a_line(shell: Shell, puller: Any) -> None:
    puller(*LINES, DONE)
    assert shell("pull", "hf:org/tiny").stdout.splitlines() == ["downloading …", "new …", "tiny is in the model store."]


def test_a_puller_that_fails_is_exit_code_1(shell: Shell, puller: Any) -> None:
    puller(*LINES, code=1)
    assert shell("pull", "hf:org/tiny").exit_code == 1


def test_what_optimizing_is_worth_is_a_table(shell: Shell, puller: Any) -> None:
    mode = '{"mode":"compiled","top1":0.9876,"one":64.2,"eight":199.7,"bytes":269000000}'
    puller('{"phase":"compile"}', f'{{"phase":"done","model":"tiny","modes":[{mode}]}}')
    told, _, row = shell("models", "optimize", "tiny").stdout.splitlines()
    assert told == "compiling …"
    assert row.split() == ["compiled", "0.988", "64", "200", "269", "MB"]


def test_on_a_terminal_every_phase_is_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    steps = (msgspec.json.decode(line, type=progress.Step) for line in [*LINES, DONE])
    last = progress._draw(steps, _PHASES)
    assert last is not None
    assert last.model == "tiny"
    printed = capsys.readouterr().out
    assert "downloading" in printed
    assert printed.count("100 %") == 2
