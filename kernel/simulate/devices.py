"""A simulated device: steps of a continuous batch, of which many alike are taken at once.

A step costs `step_s + rows * row_s`, and `prompt_s` for each prompt token in it. Between two moments at which the batch changes, all steps
are alike, so the device counts them instead of taking them: a row is looked at again when its lease runs low or ends, or when it is
finished. A change that comes in the middle of a step takes effect at its end, as on a real device.
"""

import math
from dataclasses import dataclass, field

from ..limits import LEASE_LOW
from .workload import Agent, Job


@dataclass(frozen=True, slots=True)
class Costs:
    """What a device of speed 1 takes. Measured: SmolLM2-135M in bf16, eager, on two threads of a CPU.

    31, 201 and 460 tokens/s at 1, 8 and 32 rows are steps of 32, 40 and 70 ms; 918 to 1,176 prompt tokens/s are about 0.95 ms a token.
    """

    step_s: float = 0.0311
    row_s: float = 0.0012
    prompt_s: float = 0.00095
    chunk: int = 256
    """Prompt tokens in a step: a long prompt does not hold up the answers beside it."""

    def capacity(self, slots: int, prompt: float, tokens: float) -> float:
        """Turns a second that a device of speed 1 with every slot taken can do."""
        return 1 / (tokens * (self.step_s / slots + self.row_s) + prompt * self.prompt_s)


@dataclass(slots=True, eq=False)
class Task:
    """A turn of an agent, and where it stands."""

    id: int
    agent: Agent
    job: Job
    number: int
    """Of the turn among its agent's."""
    lane: str
    submitted: float
    left: int
    """Tokens to produce that are not reported yet."""
    started: float = -1.0
    first: float = -1.0
    ended: float = -1.0
    waited: float = 0.0
    """Seconds without a slot, up to now."""
    queued_at: float = 0.0
    preempted: int = 0
    lease: int = 0
    chunks: int = 0
    """Steps of prompt still to compute before the next token."""
    chunk_s: float = 0.0
    uncharged: int = 0
    """Prompt tokens to report."""
    since: int = 0
    """The device's count of steps up to which its tokens are reported."""
    carry: int = 0
    """Tokens that it had produced, unreported, when it was stopped."""
    due: int = 0
    """The count of steps at which it must be looked at."""

    def aim(self) -> None:
        """Set `due`: when there is a prompt to report, when the lease runs low, when it ends, or when all is produced."""
        low = self.lease - LEASE_LOW if self.lease > LEASE_LOW else self.lease
        self.due = self.since + min(self.left, 1 if self.uncharged else low)


@dataclass(slots=True, eq=False)
class Device:
    """A lane of a device: the rows of its batch, and a plan of so many equal steps from `edge` on."""

    name: str
    speed: float
    costs: Costs
    outstanding: int = 0
    """Tasks submitted here and not ended."""
    rows: dict[int, Task] = field(default_factory=dict)
    prompting: list[Task] = field(default_factory=list)
    """Rows whose prompt is not computed; one at a time, in order."""
    steps: int = 0
    edge: float = 0.0
    ahead: int = 0
    step_s: float = 0.0
    version: int = 0
    """Of the plan; what was planned before is void."""
    busy: float = 0.0

    def start(self, task: Task, prompt: float, prompt_s: float) -> None:
        """Take a row into the batch, which computes so many prompt tokens at that price first; the first token takes a step in any case."""
        self.rows[task.id] = task
        task.chunks = max(math.ceil(prompt / self.costs.chunk), task.first < 0)
        task.since = self.steps - task.carry
        if task.chunks:
            task.chunk_s = prompt * prompt_s / task.chunks
            self.prompting.append(task)
        else:
            task.aim()

    def stop(self, task: Task) -> None:
        """Take a row out. Its unreported tokens stay its own; the last one would be computed again."""
        del self.rows[task.id]
        if task.chunks:
            self.prompting.remove(task)
        else:
            task.carry = min(self.steps - task.since, task.left - 1)

    def settle(self, now: float) -> None:
        """Come to the end of the step that is under way now, so that the batch may change."""
        if not self.rows:
            self.edge = max(now, self.edge)
        elif now > self.edge and self.ahead:
            self.advance(min(self.ahead, int((now - self.edge) / self.step_s + 1e-9) + 1))

    def advance(self, steps: int) -> None:
        """Take so many steps of the plan."""
        self.steps += steps
        self.edge += steps * self.step_s
        self.busy += steps * self.step_s
        self.ahead -= steps
        if self.prompting and steps:
            head = self.prompting[0]
            head.chunks -= steps
            if not head.chunks:
                self._prompted(self.prompting.pop(0))

    def _prompted(self, task: Task) -> None:
        """The step that ends a prompt produces a token."""
        task.since = self.steps - 1 - task.carry
        if task.first < 0:
            task.first = self.edge
        task.aim()

    def plan(self) -> float:
        """Plan equal steps up to the next moment that matters, and say when that is."""
        self.version += 1
        head = self.prompting[0] if self.prompting else None
        decoding = len(self.rows) - len(self.prompting)
        self.step_s = (self.costs.step_s + decoding * self.costs.row_s + (head.chunk_s if head else 0.0)) / self.speed
        dues = [task.due for task in self.rows.values() if not task.chunks]
        ahead = min(dues) - self.steps if dues else head.chunks if head else 0
        self.ahead = max(0, min(ahead, head.chunks) if head else ahead)
        return self.edge + self.ahead * self.step_s

    def due(self) -> list[Task]:
        """The rows that must be looked at now."""
        return [task for task in self.rows.values() if not task.chunks and task.due <= self.steps]
