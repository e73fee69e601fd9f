"""docs/policies.md, command by command, on a real kernel."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.kernel import RunningKernel, booted
from kernos.apps.cli.__main__ import main
from kernos.apps.cli.policy import policy

PAGE = (Path(__file__).parents[2] / "docs" / "policies.md").read_text("utf-8")
STEPS = [line.removeprefix("$ ") for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
TEST = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)[0]

EXPECTED = {
    "status": "generation 1",
    "who system stop": "admin:",
    "edit policy.d": "is saved",
    "edit tests": "is saved",
    "check": "0 errors",
    "test": "tests pass",
    "diff": "+ app:greeter may generate model/smollm2-135m",
    "shadow --report": "was asked",
    "apply --reason": "Generation 2 is in force",
    "rollback": "Generation 3 is in force",
    "fetch": "files of generation 2",
}


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningKernel]:
    monkeypatch.setenv("KERNOS_MODELS", str(tmp_path / "none"))  # it boots quickly without
    with booted() as running:
        yield running


def test_the_page_from_nothing_to_a_rolled_back_policy(kernel: RunningKernel, tmp_path: Path) -> None:
    draft, editor = tmp_path / "draft", tmp_path / "editor"
    editor.write_text('#!/bin/sh\nprintf "%s" "$TEXT" > "$1"\n', "utf-8")
    editor.chmod(0o700)
    home = kernel.where.config.parent
    variables = {"POLICIES": str(kernel.where.config / "policies"), "DRAFT": str(draft)}
    shell = CliRunner(env={"KERNOS_HOME": str(home), "EDITOR": str(editor), "VISUAL": str(editor), "KERNOS_KEY": None})
    assert len(STEPS) > 20
    for step in STEPS:
        command, _, remark = step.partition("  # ")
        text = TEST if remark.endswith("greeter-test") else f"{remark.removeprefix('editor: ')}\n# end\n"
        arguments = [variables.get(word.removeprefix("$"), word) for word in shlex.split(command)]
        done = shell.invoke(main, arguments[1:], env={"TEXT": text})
        code = int(remark.removeprefix("exit ")) if remark.startswith("exit ") else 0
        assert done.exit_code == code, f"{step}\n{done.output}"
        for start, words_said in EXPECTED.items():
            if command.startswith(f"kernos policy {start}") and "1 active" not in command:
                assert words_said in done.output, f"{step}\n{done.output}"


def test_every_command_of_policies_is_on_the_page() -> None:
    assert [name for name in policy.commands if f"kernos policy {name}" not in PAGE] == []
