"""The process table: agents, their lives and their stories.

A life follows `TRANSITIONS` and nothing else; an illegal step raises `IllegalTransitionError` with the agent's story. What `ps` calls
running, queued or waiting is no state of its own but read off the agent's calls in flight, so it cannot disagree with them.
"""

from collections import deque
from dataclasses import dataclass, field
from enum import Enum

from kernos.syscalls.process import Priority, Right

from ..limits import STORY_LINES
from .quotas import Payers

Rights = tuple[Right, ...]


class Life(Enum):
    """Where an agent is in its life."""

    ALIVE = "alive"
    STOPPED = "stopped"
    """Off the devices until it is continued; its other calls go on."""
    EXITED = "exited"
    """Ended; the row waits to be collected by `process.wait`."""
    GONE = "gone"
    """Collected; not in the table any more."""


TRANSITIONS: dict[tuple[Life, str], Life] = {
    (Life.ALIVE, "stop"): Life.STOPPED,
    (Life.ALIVE, "continue"): Life.ALIVE,
    (Life.ALIVE, "exit"): Life.EXITED,
    (Life.STOPPED, "stop"): Life.STOPPED,
    (Life.STOPPED, "continue"): Life.ALIVE,
    (Life.STOPPED, "exit"): Life.EXITED,
    (Life.EXITED, "collect"): Life.GONE,
}
"""Every legal step of a life."""


class IllegalTransitionError(Exception):
    """A step that `TRANSITIONS` does not have: a defect of the kernel. The message holds the agent's story."""


@dataclass(slots=True)
class Process:
    """An agent."""

    pid: int
    name: str
    principal: str
    user: str | None
    parent: int
    priority: Priority
    born: float
    os_pid: int
    """The program it lives in; its end is the agent's end. 0: unknown (a remote client)."""
    start_time: int = 0
    """When that program started, in clock ticks since boot: it tells it from a later one of the same pid."""
    badge: str = ""
    """Of the key by which it was spawned: it ends with it."""
    rights: tuple[Rights, ...] = ()
    """What it was limited to, and what its parents were: it may only do what stands in each of them."""
    labels: dict[str, str] = field(default_factory=dict)
    """What it carries, and since which reading; only `flows.py` changes it."""
    life: Life = Life.ALIVE
    calls: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    code: int | None = None
    reason: str = ""
    story: deque[str] = field(default_factory=lambda: deque(maxlen=STORY_LINES))

    @property
    def owner(self) -> str:
        """Who owns what it makes: the user it acts for, else its app."""
        return self.user or self.principal

    @property
    def payers(self) -> Payers:
        """Who is charged for what it does: its app, and the user it acts for."""
        return (self.principal,) if self.user in (None, self.principal) else (self.principal, self.user)

    def tell(self, now: float, line: str) -> None:
        """Add a line to the story."""
        self.story.append(f"{now - self.born:.3f} s: {line}")


@dataclass
class ProcessTable:
    """All agents by pid. Pids count up and are not used again."""

    rows: dict[int, Process] = field(default_factory=dict)
    ended: dict[int, Process] = field(default_factory=dict)
    """Rows nobody has collected yet, oldest first."""
    living: int = 0
    """Agents that have not ended."""
    last_pid: int = 0

    def next_pid(self) -> int:
        """A pid that was never given before."""
        self.last_pid += 1
        return self.last_pid

    def add(self, process: Process) -> None:
        """Take in an agent that was spawned, or that another kernel had."""
        self.rows[process.pid] = process
        self.last_pid = max(self.last_pid, process.pid)
        if process.life is Life.EXITED:
            self.ended[process.pid] = process
        else:
            self.living += 1

    def step(self, process: Process, step: str, now: float) -> None:
        """Take one step of a life; a collected row leaves the table."""
        after = TRANSITIONS.get((process.life, step))
        if after is None:
            raise IllegalTransitionError(f"agent {process.pid} cannot {step} while {process.life.value}; " + "; ".join(process.story))
        process.tell(now, f"{step}: {process.life.value} -> {after.value}")
        process.life = after
        if after is Life.GONE:
            del self.rows[process.pid], self.ended[process.pid]

    def exit(self, process: Process, code: int, reason: str, now: float) -> None:
        """End an agent."""
        self.step(process, "exit", now)
        process.code, process.reason = code, reason
        self.ended[process.pid] = process
        self.living -= 1

    def in_program(self, os_pid: int) -> list[Process]:
        """Living agents of one program."""
        return [process for process in self.rows.values() if process.os_pid == os_pid and process.life is not Life.EXITED]
