"""`kernos policy` on files, as in CI, where no kernel runs: what it says of labels, and how it ends."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Shell = Callable[..., Result]

LINE = "flow, phi, tool/shop/mail, allow\n"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The policy that ships."""
    return Path(shutil.copytree(Path(__file__).parents[2] / "policies", tmp_path / "old"))


@pytest.fixture
def new(old: Path) -> Path:
    """It, with a line that lets a label go further."""
    folder = Path(shutil.copytree(old, old.with_name("new")))
    file = folder / "flows.csv"
    file.write_text(file.read_text("utf-8").replace("# end\n", f"{LINE}# end\n"), "utf-8")
    return folder


def test_a_label_that_goes_further_is_new_access(shell: Shell, old: Path, new: Path) -> None:
    wider = shell("policy", "diff", str(old), str(new), "--no-new-access")
    assert wider.exit_code == 1
    assert wider.output.splitlines() == ["+ phi may go to tool/shop/mail, by flow, phi, tool/shop/mail, allow (flows.csv:16)"]
    back = shell("policy", "diff", str(new), str(old), "--no-new-access")
    assert back.exit_code == 0
    assert back.output.splitlines() == ["- phi may not go to tool/shop/mail"]


def test_why_ends_as_the_labels_say(shell: Shell, old: Path, new: Path) -> None:
    asked = ("policy", "why", "user:carla", "tool/shop/mail", "call", "--labels", "phi", "--policy")
    ward = new / "roles.d" / "50-ward.csv"
    ward.write_text("g, user:carla, role:clinician\n# end\n", "utf-8")
    assert shell(*asked, str(new)).exit_code == 0
    denied = shell(*asked, str(old))
    assert denied.exit_code == 4
    assert LINE.strip() in denied.output
    approve = shell("policy", "why", "user:carla", "tool/shop/mail", "call", "--labels", "untrusted", "--policy", str(old))
    assert approve.exit_code == 0, "only a privileged tool takes approval, and it is said so"
    assert "untrusted to privileged/shop/mail: takes approval by flow, untrusted, privileged/**, approve" in approve.output


def test_a_line_that_never_counts_fails_a_strict_check(shell: Shell, new: Path) -> None:
    file = new / "flows.csv"
    file.write_text(file.read_text("utf-8").replace(LINE, LINE + LINE), "utf-8")
    assert shell("policy", "check", str(new)).exit_code == 0
    strict = shell("policy", "check", str(new), "--strict")
    assert strict.exit_code == 1
    assert "flows.csv:17:1: warning: says the same as flows.csv:16" in strict.output
