"""docs/policies.md, command by command, on a real kernel."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from benchmarks.kernel import RunningKernel, booted
from kernos.apps.cli.__main__ import main
from kernos.apps.cli.policy import policy
from kernos.syscalls.errors import ApprovalNeededError
from kernos.syscalls.keys import key_file
from kernos.syscalls.message import Send
from kernos.syscalls.store import GetFile, PutFile

PAGE = (Path(__file__).parents[2] / "docs" / "policies.md").read_text("utf-8")
STEPS = [line.removeprefix("$ ") for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
TEST: str = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)[0]
FLOWS: str = re.findall(r"```csv\n(.*?)```", PAGE, re.DOTALL)[0]

EXPECTED = {
    "status": "generation 1",
    "who system stop": "admin:",
    "edit policy.d": "is saved",
    "edit tests": "is saved",
    "check": "0 errors",
    "test": "tests pass",
    "diff": "+ app:greeter may generate model/smollm2-135m",
    "shadow --report": "was asked",
    'apply --reason "the greeter': "Generation 2 is in force",
    "rollback": "Generation 3 is in force",
    "fetch": "files of generation 2",
    "why app:customer_service message/queue": "flow, orders, message/queue/human-support, approve (flows.csv:",
    "why app:shop message/queue": "flow, orders, principal/app:shop, allow",
    "edit flows.csv": "is saved",
    "edit roles.d": "is saved",
    "who approval/": "user:olga",
}

SAID = {
    "approvals": "> {",
    "approve": "Approved: agent",
    "deny": "Refused: agent",
    "declassify": "does not carry orders any more",
    "audit search": "process.declassify",
}
"""The same for other commands."""


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningKernel]:
    monkeypatch.setenv("KERNOS_MODELS", str(tmp_path / "none"))  # it boots quickly without
    with booted() as running:
        yield running


class Reader:
    """Somebody who types what the page says."""

    def __init__(self, kernel: RunningKernel, folder: Path) -> None:
        self.kernel = kernel
        editor = folder / "editor"
        editor.write_text('#!/bin/sh\nprintf "%s" "$TEXT" > "$1"\n', "utf-8")
        editor.chmod(0o700)
        home, self.policies = kernel.where.config.parent, kernel.where.config / "policies"
        keys = {name: str(key_file(kernel.where, principal)) for name, principal in (("OLGA", "user:olga"), ("DORA", "admin:dora"))}
        self.variables = {"POLICIES": str(self.policies), "DRAFT": str(folder / "draft"), **keys}
        self.shell = CliRunner(env={"KERNOS_HOME": str(home), "EDITOR": str(editor), "VISUAL": str(editor), "KERNOS_KEY": None})

    def type(self, command: str, remark: str) -> Result:
        """Run a command; a remark behind it says what to do in the editor."""
        words = [self._filled(word) for word in shlex.split(command)]
        given = dict(word.split("=", 1) for word in words[: words.index("kernos")])
        return self.shell.invoke(main, words[words.index("kernos") + 1 :], env={"TEXT": self._typed(remark), **given})

    def _filled(self, word: str) -> str:
        return re.sub(r"\$([A-Z]+)", lambda found: self.variables[found[1]], word)

    def _typed(self, remark: str) -> str:
        if remark.endswith("greeter-test"):
            return TEST
        if remark.endswith("these lines"):
            before = (self.policies / "flows.csv").read_text("utf-8")
            return before.replace("# end\n", f"{FLOWS}# end\n")
        return remark.removeprefix("editor: ").replace("; ", "\n") + "\n# end\n"

    def ask_for_approval(self) -> None:
        """Let an agent of the app do what takes approval, twice."""
        with self.kernel.connect(self.kernel.enroll("app:customer_service")) as app:
            keeper, agent = app.spawn("keeper"), app.spawn("clerk")
            keeper.call(PutFile(path="order", data=b"K-1", labels=["orders"]))
            agent.call(GetFile(path="order"))
            for name, text in (("ID", "please look"), ("OTHER", "pay it back")):
                with pytest.raises(ApprovalNeededError) as needed:
                    agent.call(Send(to="queue/human-support", text=text))
                self.variables[name] = needed.value.details["approval"]
            self.variables["PID"] = str(agent.pid)


def test_the_page_from_nothing_to_a_rolled_back_policy(kernel: RunningKernel, tmp_path: Path) -> None:
    reader = Reader(kernel, tmp_path)
    assert len(STEPS) > 40
    for step in STEPS:
        command, _, remark = step.partition("  # ")
        if command.endswith("kernos approvals"):
            reader.ask_for_approval()
        done = reader.type(command, remark)
        code = int(remark.removeprefix("exit ")) if remark.startswith("exit ") else 0
        assert done.exit_code == code, f"{step}\n{done.output}"
        bare = command.partition("kernos ")[2]
        for start, said in [*((f"policy {start}", said) for start, said in EXPECTED.items()), *SAID.items()]:
            if bare.startswith(start) and "1 active" not in bare and "orders" not in remark:
                assert said in done.output, f"{step}\n{done.output}"


def test_every_command_of_policies_is_on_the_page() -> None:
    assert [name for name in policy.commands if f"kernos policy {name}" not in PAGE] == []
