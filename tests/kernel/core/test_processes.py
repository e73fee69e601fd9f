from itertools import product

import pytest

from kernos.kernel.core.processes import TRANSITIONS, IllegalTransitionError, Life, Process, ProcessTable
from kernos.kernel.limits import STORY_LINES

STEPS = ("stop", "continue", "exit", "collect")

LEGAL = {
    (Life.ALIVE, "stop"): Life.STOPPED,
    (Life.ALIVE, "continue"): Life.ALIVE,
    (Life.ALIVE, "exit"): Life.EXITED,
    (Life.STOPPED, "stop"): Life.STOPPED,
    (Life.STOPPED, "continue"): Life.ALIVE,
    (Life.STOPPED, "exit"): Life.EXITED,
    (Life.EXITED, "collect"): Life.GONE,
}
"""Written down a second time, by hand: a change of the table has to be meant."""


def spawn(table: ProcessTable, principal: str = "app:a", user: str | None = None, os_pid: int = 7) -> Process:
    process = Process(table.next_pid(), "greeter", principal, user, 0, "normal", 10.0, os_pid)
    table.add(process)
    process.tell(10.0, f"spawned as greeter by {principal}")
    return process


def bring_to(table: ProcessTable, process: Process, life: Life) -> None:
    if life is Life.STOPPED:
        table.step(process, "stop", 11.0)
    elif life in (Life.EXITED, Life.GONE):
        table.exit(process, 0, "done", 11.0)
        if life is Life.GONE:
            table.step(process, "collect", 11.0)


def test_the_table_of_transitions() -> None:
    assert TRANSITIONS == LEGAL


@pytest.mark.parametrize(("life", "step"), list(product(Life, STEPS)))
def test_every_step_is_legal_or_refused_with_the_story(life: Life, step: str) -> None:
    table = ProcessTable()
    process = spawn(table)
    bring_to(table, process, life)
    if (life, step) in LEGAL:
        if step == "exit":
            table.exit(process, 3, "why", 12.0)
        else:
            table.step(process, step, 12.0)
        assert process.life is LEGAL[life, step]
        assert process.story[-1] == f"2.000 s: {step}: {life.value} -> {process.life.value}"
    else:
        with pytest.raises(IllegalTransitionError, match=rf"agent 1 cannot {step} while {life.value}; .*spawned as greeter by app:a"):
            table.step(process, step, 12.0)
        assert process.life is life


def test_an_exit_twice_counts_once() -> None:
    table = ProcessTable()
    process = spawn(table)
    table.exit(process, 0, "done", 11.0)
    with pytest.raises(IllegalTransitionError):
        table.exit(process, 1, "again", 12.0)
    assert (process.code, process.reason) == (0, "done")
    assert table.living == 0


def test_counts_of_living_agents() -> None:
    table = ProcessTable()
    one, two, other = spawn(table), spawn(table), spawn(table, "app:b")
    assert table.living == 3
    table.step(one, "stop", 11.0)
    assert table.living == 3
    table.exit(one, 0, "", 12.0)
    table.exit(other, 0, "", 12.0)
    assert table.living == 1
    assert list(table.ended) == [one.pid, other.pid]
    table.step(one, "collect", 13.0)
    assert list(table.rows) == [two.pid, other.pid]
    assert list(table.ended) == [other.pid]


def test_pids_are_not_used_again() -> None:
    table = ProcessTable()
    first = spawn(table)
    table.exit(first, 0, "", 11.0)
    table.step(first, "collect", 11.0)
    assert spawn(table).pid == first.pid + 1


def test_the_story_is_bounded_and_keeps_the_newest() -> None:
    table = ProcessTable()
    process = spawn(table)
    for number in range(STORY_LINES * 3):
        process.tell(10.0 + number, f"event {number}")
    assert len(process.story) == STORY_LINES
    assert process.story[-1].endswith(f"event {STORY_LINES * 3 - 1}")


def test_the_owner_is_the_user_else_the_app() -> None:
    table = ProcessTable()
    assert spawn(table).owner == "app:a"
    assert spawn(table, user="user:anna").owner == "user:anna"


def test_living_agents_of_a_program() -> None:
    table = ProcessTable()
    one, two, other = spawn(table), spawn(table), spawn(table, os_pid=8)
    table.exit(one, 0, "", 11.0)
    assert table.in_program(7) == [two]
    assert table.in_program(8) == [other]
    assert table.in_program(9) == []
