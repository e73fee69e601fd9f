"""The parts of the demo that need no kernel; `make demo` is the test of the rest."""

import os
import signal
import subprocess

import pytest

from kernos.apps.cli.demo import acts, stage


def test_equal_answers_are_told_as_such() -> None:
    assert acts._compared([1, 2, 3], [1, 2, 3]).startswith("3 of 3 tokens")


@pytest.mark.parametrize("other", [[1, 2, 9, 4], [1, 2]])
def test_answers_that_part_are_told_where(other: list[int]) -> None:
    text = acts._compared([1, 2, 3, 4], other)
    assert text.startswith("2 of 4 tokens")
    assert "at token 3" in text


def test_the_stage_knows_its_processes_and_leaves_none() -> None:
    before = dict(os.environ)
    with stage.Stage() as place:
        assert place.processes() == []
        child = subprocess.Popen(["/bin/sleep", "60"])
        assert place.processes() == [child.pid]
    assert child.wait() == -signal.SIGKILL
    assert not place.home.exists()
    assert dict(os.environ) == before


def test_a_step_that_does_not_hold_ends_the_demo() -> None:
    with pytest.raises(stage.StageError, match="the sky fell"):
        stage.Stage().check(False, "the sky fell")


def test_a_command_that_fails_is_told_with_its_words() -> None:
    with stage.Stage() as place, pytest.raises(stage.StageError, match=r"`kernos ps` ended with code 3. error\[unreachable\]"):
        place.run("ps")
