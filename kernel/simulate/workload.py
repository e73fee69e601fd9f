"""What the agents of a simulation do: when they come, how much they ask for, who they are. Pure: every number comes from `rng`.

An **agent** comes at a moment and makes its turns one after another, with a pause before each. A trace is made before the simulation
runs, so that every policy is given exactly the same work.
"""

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeVar, get_args

from kernos.syscalls.process import Priority

LengthKind = Literal["constant", "exponential", "lognormal", "pareto"]
ArrivalKind = Literal["poisson", "bursty", "together", "closed"]
_T = TypeVar("_T")

SIGMA: Final = 1.5
"""Of the logarithm of a lognormal length: its squared coefficient of variation is 8.5, the longest tenth holds 59 % of the work."""

ALPHA, RANGE = 1.5, 1_000.0
"""The exponent of the bounded Pareto, and its longest length as a multiple of its shortest."""

BURST_S, LULL_S = 20.0, 60.0
"""Mean lengths of the two phases of bursty arrivals; in a lull nobody comes, in a burst four times as many as on average."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """A distribution of numbers of tokens by its mean."""

    kind: LengthKind
    mean: float

    def draw(self, rng: random.Random) -> float:
        """One length, not rounded."""
        match self.kind:
            case "constant":
                return self.mean
            case "exponential":
                return rng.expovariate(1 / self.mean) if self.mean else 0.0
            case "lognormal":
                return self.mean * rng.lognormvariate(-(SIGMA**2) / 2, SIGMA)
            case "pareto":
                share = 1 - rng.random() * (1 - math.pow(RANGE, -ALPHA))
                return self.mean / _pareto_moment(1) * math.pow(share, -1 / ALPHA)

    @property
    def variation(self) -> float:
        """The squared coefficient of variation: 0 for a constant, 1 for exponential lengths."""
        known = {"constant": 0.0, "exponential": 1.0, "lognormal": math.exp(SIGMA**2) - 1}
        return known.get(self.kind, _pareto_moment(2) / _pareto_moment(1) ** 2 - 1)


def _pareto_moment(order: int) -> float:
    """Of the bounded Pareto whose shortest length is 1."""
    return ALPHA / (ALPHA - order) * (1 - math.pow(RANGE, order - ALPHA)) / (1 - math.pow(RANGE, -ALPHA))


@dataclass(frozen=True, slots=True)
class Job:
    """A turn: what it computes, the pause before it, and the patience of its caller."""

    prompt: int
    tokens: int
    pause: float
    patience: float


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent and its turns; the pause of the first is the moment at which it comes."""

    pid: int
    priority: Priority
    weight: float
    jobs: tuple[Job, ...]


@dataclass(frozen=True, slots=True)
class Workload:
    """Everything that a trace is drawn from."""

    agents: int = 1_000
    arrivals: ArrivalKind = "poisson"
    rate: float = 1.0
    """Agents a second, for Poisson and bursty arrivals."""
    turns: int = 1
    think_s: float = 5.0
    """Mean pause of an agent between two turns (exponential), and before the first in a closed loop."""
    tokens: Lengths = Lengths("lognormal", 64)
    prompt: Lengths = Lengths("exponential", 200)
    classes: tuple[tuple[Priority, float], ...] = (("interactive", 3), ("normal", 5), ("batch", 2))
    weights: tuple[tuple[float, float], ...] = ((1, 3), (4, 1))
    patience_s: tuple[float, float] = (20.0, 120.0)
    """A turn's deadline is drawn evenly between these, after it was submitted."""

    def trace(self, rng: random.Random) -> list[Agent]:
        """The agents in the order of their coming."""
        return [self._agent(pid, start, rng) for pid, start in zip(range(self.agents), self._starts(rng), strict=False)]

    def at_rate(self, rate: float) -> "Workload":
        """The same, with another rate of arrival."""
        return replace(self, rate=rate)

    def _agent(self, pid: int, start: float, rng: random.Random) -> Agent:
        priority: Priority = _pick(self.classes, rng)
        weight = _pick(self.weights, rng)
        pauses = [start] + [rng.expovariate(1 / self.think_s) if self.think_s else 0.0 for _ in range(self.turns - 1)]
        return Agent(pid, priority, weight, tuple(self._job(pause, rng) for pause in pauses))

    def _job(self, pause: float, rng: random.Random) -> Job:
        prompt, tokens = round(self.prompt.draw(rng)), max(1, round(self.tokens.draw(rng)))
        return Job(prompt, tokens, pause, rng.uniform(*self.patience_s))

    def _starts(self, rng: random.Random) -> Iterator[float]:
        makers: dict[ArrivalKind, Callable[[random.Random], Iterator[float]]] = {
            "poisson": self._poisson,
            "bursty": self._bursty,
            "together": self._together,
            "closed": self._closed,
        }
        return makers[self.arrivals](rng)

    def _poisson(self, rng: random.Random) -> Iterator[float]:
        now = 0.0
        while True:
            now += rng.expovariate(self.rate)
            yield now

    def _bursty(self, rng: random.Random) -> Iterator[float]:
        """A Poisson process that runs in bursts only; its time is mapped to the clock by inserting lulls."""
        now, burst_ends = 0.0, rng.expovariate(1 / BURST_S)
        while True:
            now += rng.expovariate(self.rate * (BURST_S + LULL_S) / BURST_S)
            while now > burst_ends:
                lull = rng.expovariate(1 / LULL_S)
                now += lull
                burst_ends += lull + rng.expovariate(1 / BURST_S)
            yield now

    def _together(self, rng: random.Random) -> Iterator[float]:  # noqa: ARG002
        while True:
            yield 0.0

    def _closed(self, rng: random.Random) -> Iterator[float]:
        while True:
            yield rng.expovariate(1 / self.think_s) if self.think_s else 0.0


def _pick(shares: tuple[tuple[_T, float], ...], rng: random.Random) -> _T:
    return rng.choices([value for value, _ in shares], [share for _, share in shares])[0]


LENGTH_KINDS: Final = get_args(LengthKind)
ARRIVAL_KINDS: Final = get_args(ArrivalKind)
