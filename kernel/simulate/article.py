"""The formulas of section 4 of the design article beside simulations of what they speak of, over several seeds.

Each claim has rows (a case, what formulas say, what was simulated with a 95 % confidence interval) and a verdict in words, which the
tests hold against the rows.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from ..core.policies import PolicyName
from .devices import Costs
from .engine import Fleet, Outcome, Resume, simulate
from .measures import Interval, interval
from .workload import ArrivalKind, LengthKind, Lengths, Workload

SEEDS: Final = 10
TASKS: Final = 400
STEP_S: Final = 0.01
"""A token of a processor of speed 1: a slot without company, so that it is a processor as the article means it."""

MEAN_TOKENS: Final = 500
MEAN_S: Final = STEP_S * MEAN_TOKENS
"""E[T]."""

PROCESSOR: Final = Costs(step_s=STEP_S, row_s=0.0, prompt_s=0.001)
BATCH: Final = Workload(TASKS, "together", tokens=Lengths("exponential", MEAN_TOKENS), prompt=Lengths("constant", 0))
SPEEDS: Final = ((1.0, 1.0, 1.0, 1.0), (4.0, 4.0, 4.0, 4.0), (1.0, 2.0, 3.0, 4.0))


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a claim's table."""

    case: str
    formulas: dict[str, float]
    simulated: dict[str, Interval]


@dataclass(frozen=True, slots=True)
class Claim:
    """A formula, its figures, and where it holds."""

    title: str
    rows: list[Row]
    verdict: str


@dataclass(frozen=True, slots=True)
class Article:
    """The whole report."""

    throughput: Claim
    processors: Claim
    loading: Claim
    exponential: Claim

    def claims(self) -> list[Claim]:
        """In the order of the article."""
        return [self.throughput, self.processors, self.loading, self.exponential]

    def as_json(self) -> dict[str, object]:
        """For programs."""
        return {"seeds": SEEDS, "tasks": TASKS, "mean_s": MEAN_S, "claims": [asdict(claim) for claim in self.claims()]}


def write_article(seed: int) -> Article:
    """Simulate everything; under a minute."""
    seeds = range(seed, seed + SEEDS)
    return Article(_throughput(seeds), _processors(seeds), _loading(seeds), _exponential(seeds))


def _over(seeds: Sequence[int], workload: Workload, fleet: Fleet, policy: PolicyName = "fifo") -> list[Outcome]:
    return [simulate(policy, workload, fleet, seed) for seed in seeds]


def _mean(outcomes: list[Outcome], value: Callable[[Outcome], float]) -> Interval:
    return interval([value(outcome) for outcome in outcomes])


def _response(outcome: Outcome, priority: str = "") -> float:
    return statistics.fmean(task.first - task.submitted for task in outcome.tasks if priority in ("", task.agent.priority))


def _done(outcome: Outcome) -> float:
    return len(outcome.tasks) / outcome.end_s


# --- 4.2.1 ------------------------------------------------------------------------------------------------------------------------


def _throughput(seeds: Sequence[int]) -> Claim:
    cases: list[tuple[str, PolicyName, Resume]] = [
        ("no preemption (fifo)", "fifo", "free"),
        ("round robin, free switch", "rr", "free"),
        ("preemption (mlfq), free switch", "mlfq", "free"),
        ("preemption (priority), free switch", "priority", "free"),
        ("round robin, tokens computed again", "rr", "recompute"),
        ("preemption (mlfq), tokens computed again", "mlfq", "recompute"),
    ]
    # With all there at the start a class would never take a slot over, so the same tasks also come one by one.
    spread = Workload(TASKS, "poisson", 1 / MEAN_S, tokens=BATCH.tokens, prompt=BATCH.prompt)
    rows = []
    for case, policy, resume in cases:
        found = _over(seeds, BATCH, Fleet(slots=1, costs=PROCESSOR, resume=resume), policy)
        coming = _over(seeds, spread, Fleet(slots=1, costs=PROCESSOR, resume=resume), policy)
        simulated = {
            "S, 1/s": _mean(found, _done),
            "response, s": _mean(found, _response),
            "Poisson: S, 1/s": _mean(coming, _done),
            "response, s ": _mean(coming, _response),
            "of interactive, s": _mean(coming, lambda outcome: _response(outcome, "interactive")),
        }
        rows.append(Row(case, {"1/E[T]": 1 / MEAN_S}, simulated))
    return Claim(
        "Throughput S = N/T, the same for round robin and preemption (4.2.1)",
        rows,
        "S = N/T defines throughput; that T is the same for every order is the theorem, and it holds, seed by seed, as "
        "long as the processor never idles while there is work and a switch costs nothing. At the same throughput preemption "
        "answers sooner: everybody with round robin, short tasks with mlfq, the urgent class with priority. "
        "Where a preempted turn computes its tokens again, each switch takes from the throughput, and round robin loses its "
        "gain. S is a little off 1/E[T] as the sum of N drawn times is not N·E[T].",
    )


# --- 4.2.2 ------------------------------------------------------------------------------------------------------------------------


def makespan(speeds: Sequence[float]) -> float:
    """N tasks that keep every processor busy to the end."""
    return TASKS * MEAN_S / sum(speeds)


def _processors(seeds: Sequence[int]) -> Claim:
    rows = []
    for speeds in SPEEDS:
        found = _over(seeds, BATCH, Fleet(speeds, slots=1, costs=PROCESSOR, resume="free"))
        written = TASKS / len(speeds) / sum(1 / speed for speed in speeds)
        as_times = TASKS / len(speeds) / sum(speed / MEAN_S for speed in speeds)
        simulated = {"all done, s": _mean(found, lambda outcome: outcome.end_s), "mean turnaround, s": _mean(found, _turnaround)}
        formulas = {"as written (r: speeds)": written, "r: seconds a task": as_times, "N·E[T]/Σr": makespan(speeds)}
        rows.append(Row("r = " + ", ".join(f"{speed:g}" for speed in speeds), formulas, simulated))
    return Claim(
        "N tasks on K processors: T_avg = (N/K) · 1/Σ(1/r_k) (4.2.2)",
        rows,
        "It does not hold. With r_k as speeds, 1/r_k is the time of a unit of work, and the sum of times is no capacity: for K "
        "equal speeds the formula gives N·r/K², so four times faster processors would take four times as long. If r_k is read "
        "as the seconds of a task, Σ(1/r_k) is the capacity indeed, but N/Σ(1/r_k) is then already the time of all N, and the "
        "factor 1/K makes it K times too short. The capacity is Σ r_k and the time of all tasks about N·E[T]/Σ r_k; the "
        "simulated time is somewhat longer, since a task stays where it was put and the processors do not end together.",
    )


def _turnaround(outcome: Outcome) -> float:
    return statistics.fmean(task.ended - task.submitted for task in outcome.tasks)


# --- 4.2.3 ------------------------------------------------------------------------------------------------------------------------

LOAD_S: Final = 30.0


def _loading(seeds: Sequence[int]) -> Claim:
    rows = []
    for groups in (1, 4, 20, TASKS):
        fleet = Fleet(slots=1, costs=PROCESSOR, resume="free", groups=groups, load_s=LOAD_S)
        found = _over(seeds, BATCH, fleet)
        formulas = {
            "(N/M)·T_s, T_s = loading": TASKS / groups * LOAD_S,
            "M·T_s": groups * LOAD_S,
            "(N/M)·E[T]": TASKS / groups * MEAN_S,
        }
        simulated = {
            "loading in all, s": _mean(found, lambda outcome: outcome.end_s - outcome.busy_s),
            "a group's run, s": _mean(found, _run_of_group),
            "mean turnaround, s": _mean(found, _turnaround),
        }
        rows.append(Row(f"M = {groups}", formulas, simulated))
    return Claim(
        f"Loading in M groups: T_avg = (N/M) · T_s, each load takes {LOAD_S:g} s (4.2.3)",
        rows,
        "As a time of loading it does not hold: loading takes M·T_s in all and M·T_s/N a task, and grows with the number of "
        "groups where the formula shrinks; they agree only where M² = N (here M = 20). With T_s as the time of a task, as the "
        "article's text says, (N/M)·T_s is the time in which one group of N/M tasks runs one after another, and that holds, on "
        "one processor, with E[T] for T_s; but it holds no loading at all. Groups save memory and cost time: few large groups "
        "are better than many small ones.",
    )


def _run_of_group(outcome: Outcome) -> float:
    return statistics.fmean(done - up for up, done in zip(outcome.groups_up, outcome.groups_done, strict=True))


# --- the assumption ---------------------------------------------------------------------------------------------------------------

USE: Final = 0.7
MANY: Final = 1_500
"""Tasks, as waiting needs long runs."""
KINDS: Final[tuple[LengthKind, ...]] = ("constant", "exponential", "lognormal", "pareto")


def waiting(variation: float) -> float:
    """Pollaczek and Khinchine: mean waiting of one processor by the squared coefficient of variation of its tasks; 1 is M/M/1."""
    return USE / (1 - USE) * MEAN_S * (1 + variation) / 2


def _exponential(seeds: Sequence[int]) -> Claim:
    rows = [_waits(seeds, kind, kind, "poisson") for kind in KINDS]
    rows.append(_waits(seeds, "exponential, in bursts", "exponential", "bursty"))
    return Claim(
        f"Task times exponential and independent (all of 4.2); Poisson arrivals at {USE:.0%} use",
        rows,
        "The article's formulas use the mean only, and totals such as throughput need no more. Waiting does: under fifo the "
        "M/M/1 value holds for exponential tasks; for others it is that of Pollaczek and Khinchine, which grows with the "
        "variance: answers of language models have heavy tails and wait many times as long, and agents that come in bursts, not "
        "independently, wait longer still. Feedback (mlfq) keeps short turns from waiting behind long ones, so there the tail "
        "matters less. With heavy tails the interval is wide: a few tasks hold much of the work, and a run of this length sees "
        "few of them.",
    )


def _waits(seeds: Sequence[int], case: str, kind: LengthKind, arrivals: ArrivalKind) -> Row:
    lengths, fleet = Lengths(kind, MEAN_TOKENS), Fleet(slots=1, costs=PROCESSOR, resume="free")
    workload = Workload(MANY, arrivals, USE / MEAN_S, tokens=lengths, prompt=BATCH.prompt)
    first_come, feedback = _over(seeds, workload, fleet), _over(seeds, workload, fleet, "mlfq")
    simulated = {
        "waiting, s (fifo)": _mean(first_come, _waited),
        "median response, fifo": _mean(first_come, _median),
        "median response, mlfq": _mean(feedback, _median),
    }
    return Row(case, {"M/M/1": waiting(1.0), "M/G/1": waiting(lengths.variation)}, simulated)


def _waited(outcome: Outcome) -> float:
    return statistics.fmean(task.waited for task in outcome.tasks)


def _median(outcome: Outcome) -> float:
    return statistics.median(task.first - task.submitted for task in outcome.tasks)
