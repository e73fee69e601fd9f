"""Every command: its help, its exit codes, its JSON."""

import json
import time
from collections.abc import Callable
from typing import Any

import click
import msgspec
import pytest
from click.testing import Result

from kernos.apps.cli.__main__ import main
from kernos.syscalls import Call, Done
from kernos.syscalls.errors import BusyError, DeniedError
from kernos.syscalls.model import ListModels, LoadModel, Model, Models
from kernos.syscalls.policy import (
    ExplainDecision,
    Explanation,
    Exposure,
    Exposures,
    Generation,
    Generations,
    GetPolicy,
    Holder,
    Holders,
    ListGenerations,
    ListHolders,
    ListRights,
    Mismatch,
    PolicyStatus,
    ReadShadow,
    Right,
    Rights,
    ScorePolicy,
    ShadowReport,
    Suggestion,
    SuggestPolicy,
)
from kernos.syscalls.process import (
    Approval,
    Approvals,
    Approve,
    Declassify,
    GetUsage,
    Kill,
    ListApprovals,
    ListProcesses,
    Meter,
    Nice,
    Process,
    Processes,
    SendSignal,
    Usage,
)
from kernos.syscalls.system import Device, GetStatus, Status

Shell = Callable[..., Result]

AGENT = Process(3, "desk[1]", "app:shop", "user:ann", 0, "normal", "idle", 65.0, 4, 120, 40)
ASKED = Approval("ab12", "app:shop", 3, "user:ann", "Agent 3 wants to call a tool with\n> pay", 1e9, 1e9 + 60, "waiting", ["untrusted"])
USAGE = Usage("user:ann", [Meter("tokens_per_minute", 150, 200, 60.0), Meter("turns", 1, 4, 0.0)])
MODEL = Model("tiny", "decoder", "ready", "cpu:0", 2_048, 269_000_000, "hf:org/tiny")
DEVICE = Device("cpu:0", "up", 77, "CPU", 1, 8, 0)
STATUS = Status("0.1.0", "1.0", 42, 7_500.0, 180.0, "serving", 1, 1, 9, 2, 0, 0, "abc", [DEVICE])

PRINTING: list[tuple[tuple[str, ...], type[Call[Any]], Any]] = [
    (("ps",), ListProcesses, Processes([AGENT])),
    (("usage",), GetUsage, USAGE),
    (("usage", "user:ann"), GetUsage, USAGE),
    (("models",), ListModels, Models([MODEL], "tiny", "")),
    (("models", "load", "tiny"), LoadModel, MODEL),
    (("status",), GetStatus, STATUS),
    (("approvals",), ListApprovals, Approvals([ASKED], ["untrusted"])),
    (("policy", "status"), GetPolicy, PolicyStatus("abc", 10, 1, 0)),
    (("policy", "why", "app:shop", "model/tiny", "generate"), ExplainDecision, Explanation(True, "p, app:*, …", "abc", [], [], "")),
    (("policy", "can", "app:shop"), ListRights, Rights([Right("model/*", "generate", "allow", "p, app:*, …", ["role:a"])])),
    (("policy", "who", "model/tiny", "generate"), ListHolders, Holders([Holder("app:shop", "p, app:*, …")])),
    (("policy", "score"), ScorePolicy, Exposures([Exposure("app:shop", 1.5, ["stop the kernel"])])),
    (("policy", "history"), ListGenerations, Generations([Generation(1, "abc", "admin:root", 1e9, "why", True)])),
    (("policy", "suggest", "app:shop"), SuggestPolicy, Suggestion(["p, …"], [], [], 0.0)),
    (("policy", "shadow", "--report"), ReadShadow, ShadowReport("abc", 1.0, 5, [Mismatch("app:a", "model/m", "embed", True, "", 2)])),
]


def all_commands(group: click.Group = main, *above: str) -> list[tuple[str, ...]]:
    found = []
    for name, command in group.commands.items():
        found.append((*above, name))
        found += all_commands(command, *above, name) if isinstance(command, click.Group) else []
    return found


@pytest.mark.parametrize("command", all_commands(), ids=" ".join)
def test_every_command_has_help(shell: Shell, command: tuple[str, ...]) -> None:
    result = shell(*command, "--help")
    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 3


def test_help_lists_commands_in_the_order_of_work(shell: Shell) -> None:
    names = [line.split()[0] for line in shell("--help").output.partition("Commands:\n")[2].splitlines()]
    assert names[:4] == ["serve", "stop", "status", "run"]


@pytest.mark.parametrize(
    "command",
    [
        ("ps",),
        ("models",),
        ("models", "load", "m"),
        ("status",),
        ("stop",),
        ("kill", "1"),
        ("nice", "1", "batch"),
        ("usage",),
        ("policy", "status"),
    ],
    ids=" ".join,
)
def test_without_a_kernel_the_exit_code_is_3(shell: Shell, command: tuple[str, ...]) -> None:
    result = shell(*command)
    assert result.exit_code == 3
    assert "error[unreachable]: No kernel is running" in result.stderr
    assert "what to do: Start a kernel with `kernos serve`" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(("command", "call", "reply"), PRINTING, ids=lambda value: " ".join(value) if isinstance(value, tuple) else "")
def test_json_is_one_document_with_the_fields_of_the_abi(
    shell: Shell, kernel: Any, command: tuple[str, ...], call: type[Call[Any]], reply: Any
) -> None:
    kernel.answers[call] = reply
    result = shell(*command, "--json")
    assert result.exit_code == 0
    assert set(json.loads(result.stdout)) == set(reply.__struct_fields__)


@pytest.mark.parametrize(("command", "call", "reply"), PRINTING, ids=lambda value: " ".join(value) if isinstance(value, tuple) else "")
def test_people_get_text(shell: Shell, kernel: Any, command: tuple[str, ...], call: type[Call[Any]], reply: Any) -> None:
    kernel.answers[call] = reply
    result = shell(*command)
    assert result.exit_code == 0
    assert "{" not in result.stdout


def test_ps_prints_names_as_they_are(shell: Shell, kernel: Any) -> None:
    kernel.answers[ListProcesses] = Processes([AGENT])
    heading, row = shell("ps", "--all").stdout.splitlines()
    assert heading.split()[:3] == ["PID", "NAME", "PRINCIPAL"]
    assert row.split() == ["3", "desk[1]", "app:shop", "user:ann", "normal", "idle", "1m05s", "4", "120", "40", "-"] or "desk[1]" in row
    assert kernel.calls == [ListProcesses(scope="all")]


def test_kill_sends_what_was_asked(shell: Shell, kernel: Any) -> None:
    kernel.answers |= {Kill: Done(), SendSignal: Done()}
    assert shell("kill", "3").exit_code == 0
    assert shell("kill", "3", "--signal", "stop").exit_code == 0
    assert kernel.calls == [Kill(pid=3), SendSignal(pid=3, signal="stop")]


def test_nice_moves_an_agent_to_a_class(shell: Shell, kernel: Any) -> None:
    kernel.answers[Nice] = Done()
    assert shell("nice", "3", "batch").stdout == "Agent 3 is batch from its next turn on.\n"
    assert shell("nice", "3", "batch", "--weight", "0.5").exit_code == 0
    assert kernel.calls == [Nice(pid=3, priority="batch"), Nice(pid=3, priority="batch", weight=0.5)]


@pytest.mark.parametrize(("verb", "allow", "says"), [("approve", True, "Approved"), ("deny", False, "Refused")])
def test_approving_shows_what_was_asked(shell: Shell, kernel: Any, verb: str, allow: bool, says: str) -> None:
    kernel.answers |= {ListApprovals: Approvals([ASKED]), Approve: Done()}
    result = shell(verb, "ab12")
    assert result.exit_code == 0
    assert "> pay" in result.stdout
    assert f"{says}: agent 3 of app:shop" in result.stdout
    assert kernel.calls[-1] == Approve(approval="ab12", principal="app:shop", allow=allow)


def test_what_nobody_asked_for_is_not_approved(shell: Shell, kernel: Any) -> None:
    kernel.answers[ListApprovals] = Approvals([ASKED])
    result = shell("approve", "ab1")
    assert result.exit_code == 1
    assert "`kernos approvals` lists what does" in result.stderr
    assert kernel.calls == [ListApprovals()]


def test_declassifying_takes_a_reason(shell: Shell, kernel: Any) -> None:
    kernel.answers[Declassify] = Done()
    assert shell("declassify", "3", "phi").exit_code == 2
    assert shell("declassify", "3", "phi", "--reason", "no names in it").exit_code == 0
    assert kernel.calls == [Declassify(pid=3, label="phi", reason="no names in it")]


def test_following_approvals_prints_each_once_and_its_decision(shell: Shell, kernel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([[ASKED], [ASKED], [msgspec.structs.replace(ASKED, state="approved")], []])

    def look(_: float) -> None:
        try:
            kernel.answers[ListApprovals] = Approvals(next(looks))
        except StopIteration:
            raise KeyboardInterrupt from None

    kernel.answers[ListApprovals] = Approvals([])
    monkeypatch.setattr(time, "sleep", look)
    result = shell("approvals", "--follow")
    assert result.exit_code == 130
    told = [line.split()[:2] for line in result.stdout.splitlines() if line.startswith("ab12")]
    assert told == [
        ["ab12", "waiting"],
        ["ab12", "approved"],
    ]


def test_usage_is_a_row_per_limit(shell: Shell, kernel: Any) -> None:
    kernel.answers[GetUsage] = USAGE
    rows = [line.split() for line in shell("usage").stdout.splitlines()]
    assert rows[1:] == [["tokens_per_minute", "150", "200", "1m00s"], ["turns", "1", "4", "-"]]
    shell("usage", "user:ann")
    assert kernel.calls == [GetUsage(), GetUsage(principal="user:ann")]


def test_denied_is_exit_code_4_and_names_the_facts(shell: Shell, kernel: Any) -> None:
    kernel.answers[ListProcesses] = DeniedError("No.", subject="app:x", object="process/all", action="list", policy="abc", rule="")
    result = shell("ps", "--all")
    assert result.exit_code == 4
    assert "error[denied]: No." in result.stderr
    assert "object: process/all" in result.stderr


def test_any_other_error_is_exit_code_1_and_says_when(shell: Shell, kernel: Any) -> None:
    kernel.answers[ListProcesses] = BusyError("Full.", retry_after=2.0)
    result = shell("ps")
    assert result.exit_code == 1
    assert "(after 2 s)" in result.stderr


def test_policy_why_answers_by_exit_code(shell: Shell, kernel: Any) -> None:
    kernel.answers[ExplainDecision] = Explanation(False, "", "abc", [], ["p, near"], "p, smallest")
    result = shell("policy", "why", "app:x", "model/tiny", "generate")
    assert result.exit_code == 4
    assert "no rule allows it" in result.stdout
    assert "p, near" in result.stdout
    assert "p, smallest" in result.stdout


@pytest.mark.parametrize(
    "command",
    [("run", "nothing"), ("bench", "nothing"), ("logs", "nothing"), ("kill", "0"), ("kill", "x"), ("nice", "1", "urgent")],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2(shell: Shell, command: tuple[str, ...]) -> None:
    assert shell(*command).exit_code == 2


def test_completion_prints_a_script(shell: Shell) -> None:
    assert "_kernos_completion" in shell("completion", "bash").output
