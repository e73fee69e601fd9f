"""The simulation: a heap of moments, the kernel's scheduler unchanged, and devices that honour its leases.

The scheduler gets the events that the kernel would give it, and its actions are carried out. What differs from the kernel: a device
reports a row's tokens when it has computed its prompt and when its lease runs low or ends, not after every step, so the counters that the
scheduler compares lag by at most a lease; the tokens of a preempted turn are reported when it runs again. Messages take no time.
"""

import heapq
import random
from dataclasses import dataclass, field
from typing import Literal

from ..core.policies import POLICIES, PolicyName
from ..core.scheduler import RANK, Action, Ended, Event, Extend, LaneDown, LaneUp, Produced, Scheduler, Start, Submitted, Turn
from ..limits import QUANTUM_RECOMPUTED, QUANTUM_TOKENS
from .devices import Costs, Device, Task
from .workload import Agent, Workload

Resume = Literal["recompute", "copy", "free"]

COPY_S = 2e-6
"""Seconds to copy back the keys and values of a token: 256 tokens of SmolLM2-135M are 5.6 MB, about 0.5 ms from memory."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """The devices, what they take, and in how many groups the agents' models are loaded."""

    speeds: tuple[float, ...] = (1.0,)
    slots: int = 8
    costs: Costs = field(default_factory=Costs)
    resume: Resume = "copy"
    """What a preempted turn pays when it comes back."""
    groups: int = 1
    """The agents are split into so many groups; the model of one is loaded when the agents of the one before have ended."""
    load_s: float = 0.0
    """Seconds to load the model of a group."""

    @property
    def quantum(self) -> int:
        """Of the scheduler, as the kernel chooses it."""
        return QUANTUM_RECOMPUTED if self.resume == "recompute" else QUANTUM_TOKENS

    def rate_for(self, load: float, workload: Workload) -> float:
        """Agents a second that keep the devices busy for this share of the time."""
        one = self.costs.capacity(self.slots, workload.prompt.mean, workload.tokens.mean)
        return load * sum(self.speeds) * one / workload.turns


@dataclass(slots=True)
class Outcome:
    """What happened."""

    policy: PolicyName
    tasks: list[Task] = field(default_factory=list)
    """Turns as they ended."""
    end_s: float = 0.0
    busy_s: float = 0.0
    preemptions: int = 0
    groups_up: list[float] = field(default_factory=list)
    """When the model of each group was loaded."""
    groups_done: list[float] = field(default_factory=list)


class Simulation:
    """One run of a trace under a policy."""

    def __init__(self, policy: PolicyName, trace: list[Agent], fleet: Fleet, *, check: bool = False) -> None:
        self.scheduler = Scheduler(POLICIES[policy])
        self.fleet = fleet
        self.now = 0.0
        self.outcome = Outcome(policy)
        self._check = check
        self._tasks: dict[int, Task] = {}
        self._submitted = 0
        self._group_of = {agent.pid: at * fleet.groups // len(trace) for at, agent in enumerate(trace)}
        self._members = [0] * fleet.groups
        for group in self._group_of.values():
            self._members[group] += 1
        self._groups = [
            [Device(f"{group}.{at}", speed, fleet.costs) for at, speed in enumerate(fleet.speeds)] for group in range(fleet.groups)
        ]
        self._devices = {device.name: device for devices in self._groups for device in devices}
        self._moments: list[tuple[float, int, int | Agent | Device, int]] = []
        """When, a number that breaks ties, what (a group is up, an agent's next turn, a device's plan), and the turn's or plan's number."""
        self._pushed = 0
        for agent in trace:
            self._push(agent.jobs[0].pause, agent, 0)
        self._load(0)

    def run(self) -> Outcome:
        """Run until every agent has ended."""
        while self._moments:
            self.now, _, what, number = heapq.heappop(self._moments)
            if isinstance(what, Device):
                self._stepped(what, number)
            elif isinstance(what, Agent):
                self._submit(what, number)
            else:
                self._up(what)
        self.outcome.end_s = self.outcome.tasks[-1].ended if self.outcome.tasks else 0.0
        self.outcome.busy_s = sum(device.busy for device in self._devices.values())
        return self.outcome

    # --- what happens -------------------------------------------------------------------------------------------------------------

    def _submit(self, agent: Agent, number: int) -> None:
        job = agent.jobs[number]
        device = min(self._groups[self._group_of[agent.pid]], key=lambda device: (device.outstanding + 1) / device.speed)
        device.outstanding += 1
        self._submitted += 1
        task = Task(self._submitted, agent, job, number, device.name, self.now, job.tokens, queued_at=self.now, uncharged=job.prompt)
        self._tasks[task.id] = task
        if not number:
            self.scheduler.account(agent.pid).weight = agent.weight
        rank, deadline = RANK[agent.priority], self.now + job.patience
        self._handle(Submitted(Turn(task.id, agent.pid, device.name, rank, job.tokens, job.prompt, deadline)), device)

    def _stepped(self, device: Device, version: int) -> None:
        if version != device.version:
            return
        device.advance(device.ahead)
        device.edge = self.now
        for task in device.due():
            if task.id in device.rows:
                self._report(task, device)
        self._plan(device)

    def _report(self, task: Task, device: Device) -> None:
        """Tell the scheduler what a row produced; the last token comes with the end, as from a device."""
        tokens = device.steps - task.since
        task.since, task.carry = device.steps, 0
        task.left -= tokens
        task.lease -= tokens
        assert task.left >= 0, "a row produced more than was asked for"
        assert task.lease >= 0, "a row produced beyond its lease"
        prompt, task.uncharged = task.uncharged, 0
        if task.left:
            self._apply(self._tell(Produced(task.id, tokens, prompt)), device)
            if task.id in device.rows:
                task.aim()
        else:
            self._apply(self._tell(Produced(task.id, tokens - 1, prompt)), device)
            self._end(task, device)

    def _end(self, task: Task, device: Device) -> None:
        device.rows.pop(task.id, None)
        device.outstanding -= 1
        task.ended = self.now
        del self._tasks[task.id]
        self.outcome.tasks.append(task)
        self._apply(self._tell(Ended(task.id, tokens=1)), device)
        if task.number + 1 < len(task.agent.jobs):
            self._push(self.now + task.agent.jobs[task.number + 1].pause, task.agent, task.number + 1)
        else:
            self._leave(self._group_of[task.agent.pid])

    def _leave(self, group: int) -> None:
        """An agent has ended; with the last of its group the next group's model is loaded."""
        self._members[group] -= 1
        if self._members[group]:
            return
        self.outcome.groups_done.append(self.now)
        for device in self._groups[group]:
            self._tell(LaneDown(device.name))
        if group + 1 < self.fleet.groups:
            self._load(group + 1)

    def _load(self, group: int) -> None:
        self._push(self.now + self.fleet.load_s, group, 0)

    def _up(self, group: int) -> None:
        self.outcome.groups_up.append(self.now)
        if not self._members[group]:
            self._members[group] = 1
            self._leave(group)
        for device in self._groups[group]:
            self._handle(LaneUp(device.name, self.fleet.slots, quantum=self.fleet.quantum), device)

    # --- what is done about it ----------------------------------------------------------------------------------------------------

    def _handle(self, event: Event, device: Device) -> None:
        actions = self._tell(event)
        if actions:
            device.settle(self.now)
            self._apply(actions, device)
            self._plan(device)

    def _tell(self, event: Event) -> list[Action]:
        actions = self.scheduler.handle(event, self.now)
        if self._check:
            self.scheduler.check()
        return actions

    def _apply(self, actions: list[Action], device: Device) -> None:
        for action in actions:
            task = self._tasks[action.turn]
            if isinstance(action, Start):
                self._start(task, action.lease, device)
            elif isinstance(action, Extend):
                task.lease += action.tokens
                if not task.chunks:
                    task.aim()
            else:
                task.preempted += 1
                self.outcome.preemptions += 1
                task.queued_at = self.now
                device.stop(task)

    def _start(self, task: Task, lease: int, device: Device) -> None:
        task.waited += self.now - task.queued_at
        task.lease = lease
        task.carry = min(task.carry, lease - 1)  # what it had produced beyond that is computed again
        if task.started < 0:
            task.started = self.now
        if task.first < 0:
            device.start(task, task.job.prompt, self.fleet.costs.prompt_s)
            return
        known = task.job.prompt + task.job.tokens - task.left + task.carry
        costs = {"recompute": (known, self.fleet.costs.prompt_s), "copy": (1, known * COPY_S), "free": (0, 0.0)}
        device.start(task, *costs[self.fleet.resume])

    def _plan(self, device: Device) -> None:
        when = device.plan()
        if device.rows:
            self._push(when, device, device.version)

    def _push(self, when: float, what: int | Agent | Device, number: int) -> None:
        self._pushed += 1
        heapq.heappush(self._moments, (when, self._pushed, what, number))


def simulate(policy: PolicyName, workload: Workload, fleet: Fleet, seed: int, *, check: bool = False) -> Outcome:
    """One run; the same arguments give the same outcome."""
    return Simulation(policy, workload.trace(random.Random(seed)), fleet, check=check).run()
