"""The scheduler: how soon an urgent turn is served, what sharing costs, how evenly it shares, and what a decision costs.

Parts: `--interactive` (`latency.py`), `--overhead` and `--fair` (`sharing.py`) on a real kernel with the embedded model, and `--scale`,
here, on the scheduler alone: the time of an event among 10, 1,000 and 100,000 agents that all have work, in turn.
"""

import gc
import random
from collections.abc import Callable
from time import perf_counter_ns
from typing import Final

from kernos.kernel.core.scheduler import Ended, Event, LaneUp, Produced, Scheduler, Submitted, Turn

from . import latency, report, sharing
from .report import Target, median

TARGETS = {
    "ttft_p99_steps": Target(2.0),
    "vs_fifo": Target(20.0, at_least=True),
    "overhead": Target(0.97, at_least=True),
    "fp32_identical": Target(1.0, at_least=True),
    "fair_error": Target(0.05),
    "split_gain": Target(1.05),
    "scale_ratio": Target(5.0),  # log 100,000 / log 10
}

FEW, SOME, MANY = 10, 1_000, 100_000
SLOTS: Final = 8


def main() -> None:
    """Measure the parts asked for, and publish them together."""
    parts: dict[str, Callable[[bool], dict[str, float]]] = {
        "interactive": latency.measure,
        "overhead": sharing.measure_overhead,
        "fair": sharing.measure_fairness,
        "scale": measure_scale,
    }
    given = report.options(__doc__, list(parts))
    figures: dict[str, float] = {}
    for part in given.parts:
        figures |= parts[part](given.quick)
    report.publish("scheduler", given, figures, {name: target for name, target in TARGETS.items() if name in figures})


def measure_scale(quick: bool) -> dict[str, float]:
    """Microseconds of an event, and of one that changes a slot; the ratio is the median of the rounds' own."""
    wheels = {agents: Wheel(agents) for agents in (FEW, SOME, MANY)}
    times: dict[int, list[float]] = {agents: [] for agents in wheels}
    changes: dict[int, list[float]] = {agents: [] for agents in wheels}
    gc.collect()
    gc.disable()
    for _ in range(10 if quick else 50):
        for agents, wheel in wheels.items():
            event, change = wheel.turn(400)
            times[agents].append(event)
            changes[agents].append(change)
    gc.enable()
    figures = {"scale_ratio": _ratio(times[MANY], times[FEW]), "change_ratio": _ratio(changes[MANY], changes[FEW])}
    figures |= {f"event_us_{agents}": median(found) for agents, found in times.items()}
    return figures | {f"change_us_{agents}": median(found) for agents, found in changes.items()}


def _ratio(of: list[float], to: list[float]) -> float:
    return median([one / other for one, other in zip(of, to, strict=True)])


class Wheel:
    """So many agents on a lane of 8 slots; each has a turn, and another as soon as that ends. Tokens come one by one, as from a device."""

    def __init__(self, agents: int) -> None:
        self._scheduler = Scheduler()
        self._rng = random.Random(1)
        self._turns = 0
        self._scheduler.handle(LaneUp("lane", SLOTS), 0.0)
        for pid in range(agents):
            self._scheduler.handle(self._next(pid), 0.0)

    def turn(self, steps: int) -> tuple[float, float]:
        """Mean microseconds of an event, and of one that changed a slot, over so many steps of the device."""
        times: list[int] = []
        changes: list[int] = []
        for _ in range(steps):
            for id_ in list(self._scheduler.lanes["lane"].running):
                turn = self._scheduler.turns[id_]
                if not turn.running:
                    continue
                last = turn.tokens_left == 1
                event = Ended(id_, 1, turn.prompt_left) if last else Produced(id_, 1, turn.prompt_left)
                for each in (event, self._next(turn.pid)) if last else (event,):
                    taken, changed = self._handle(each)
                    times.append(taken)
                    changes += [taken] if changed else []
        return sum(times) / len(times) / 1_000, sum(changes) / len(changes) / 1_000

    def _handle(self, event: Event) -> tuple[int, bool]:
        began = perf_counter_ns()
        actions = self._scheduler.handle(event, 0.0)
        return perf_counter_ns() - began, len(actions) > 1

    def _next(self, pid: int) -> Submitted:
        self._turns += 1
        return Submitted(Turn(self._turns, pid, "lane", 2, self._rng.randint(8, 120), self._rng.randint(20, 200)))


if __name__ == "__main__":
    main()
