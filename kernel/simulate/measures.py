"""What an outcome amounts to: throughput, times, fairness. Times are of turns; an agent is fair or unfair to as a whole."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from ..core.policies import PolicyName
from ..core.scheduler import RANK
from ..limits import PREFILL_WEIGHT
from .devices import Task
from .engine import Outcome

STUDENT: Final = (0, 12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13, 2.12, 2.11, 2.10, 2.09)
"""Two-sided 95 % points of Student's t by degrees of freedom; 1.96 beyond."""


@dataclass(frozen=True, slots=True)
class Times:
    """Of one measure in seconds."""

    mean: float
    p90: float
    p99: float


@dataclass(frozen=True, slots=True)
class Class:
    """The turns of one class, or of all."""

    turns: int
    waiting: Times
    """Without a slot, over all its stays in the queue."""
    response: Times
    """From submission to the first token."""
    turnaround: Times
    late: float
    """The share that ended after their deadline."""


@dataclass(frozen=True, slots=True)
class Measures:
    """One policy on one trace."""

    policy: PolicyName
    end_s: float
    turns_per_s: float
    tokens_per_s: float
    utilisation: float
    """The share of the time in which a device made steps."""
    preemptions: int
    fairness: float
    """Jain's index of weighted service a second, among the agents of a class; the mean over classes by agents."""
    all: Class
    classes: dict[str, Class]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over seeds, and half the width of its 95 % confidence interval."""

    mean: float
    half: float

    def __str__(self) -> str:
        return f"{self.mean:.4g} ± {self.half if self.half > 1e-9 else 0.0:.2g}"

    def holds(self, value: float, slack: float = 0.0) -> bool:
        """Whether a value lies in the interval, widened by a share of the value."""
        return abs(value - self.mean) <= self.half + (slack + 1e-9) * abs(value)


def interval(values: Sequence[float]) -> Interval:
    """From one value per seed."""
    free = len(values) - 1
    point = STUDENT[free] if free < len(STUDENT) else 1.96
    return Interval(statistics.fmean(values), point * statistics.stdev(values) / math.sqrt(len(values)))


def measure(outcome: Outcome, devices: int) -> Measures:
    """Everything that the report shows of a run."""
    tasks, end = outcome.tasks, outcome.end_s
    present = {task.agent.priority for task in tasks}
    names = [name for name in RANK if name in present]
    by_class = {name: [task for task in tasks if task.agent.priority == name] for name in names}
    return Measures(
        outcome.policy,
        end,
        len(tasks) / end,
        sum(task.job.tokens for task in tasks) / end,
        outcome.busy_s / (devices * end),
        outcome.preemptions,
        _fairness(by_class.values()),
        _class(tasks),
        {name: _class(found) for name, found in by_class.items()},
    )


def _class(tasks: list[Task]) -> Class:
    return Class(
        len(tasks),
        _times(task.waited for task in tasks),
        _times(task.first - task.submitted for task in tasks),
        _times(task.ended - task.submitted for task in tasks),
        statistics.fmean(task.ended > task.submitted + task.job.patience for task in tasks),
    )


def _times(values: Iterable[float]) -> Times:
    ordered = sorted(values)
    last = len(ordered) - 1
    return Times(statistics.fmean(ordered), ordered[math.ceil(0.9 * last)], ordered[math.ceil(0.99 * last)])


def jain(shares: Sequence[float]) -> float:
    """1 if all shares are equal, 1/n if one has everything."""
    return sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))


def _fairness(classes: Iterable[list[Task]]) -> float:
    indices = [(jain(rates), len(rates)) for rates in (_rates(tasks) for tasks in classes)]
    return sum(index * agents for index, agents in indices) / sum(agents for _, agents in indices)


def _rates(tasks: list[Task]) -> list[float]:
    """Of each agent: its service by its weight, over the time in which it had a turn to serve."""
    service: dict[int, float] = {}
    present: dict[int, float] = {}
    for task in tasks:
        pid = task.agent.pid
        cost = (task.job.tokens + PREFILL_WEIGHT * task.job.prompt) / task.agent.weight
        service[pid] = service.get(pid, 0.0) + cost
        present[pid] = present.get(pid, 0.0) + task.ended - task.submitted
    return [service[pid] / present[pid] for pid in service]
