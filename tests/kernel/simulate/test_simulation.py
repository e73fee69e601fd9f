"""The simulation is exact where it says so: the same by seed, nothing lost, and theory where there is one."""

import math
import random
import statistics
from dataclasses import replace

import pytest

from kernos.kernel.core.policies import POLICIES, PolicyName
from kernos.kernel.limits import PREFILL_WEIGHT
from kernos.kernel.simulate.devices import Costs
from kernos.kernel.simulate.engine import Fleet, Outcome, Resume, Simulation, simulate
from kernos.kernel.simulate.measures import interval, jain, measure
from kernos.kernel.simulate.workload import ARRIVAL_KINDS, LENGTH_KINDS, ArrivalKind, LengthKind, Lengths, Workload

PLAIN = Costs(step_s=0.01, row_s=0.0, prompt_s=0.001)
SMALL = Workload(agents=120, rate=1.0, turns=2)


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_seed_gives_the_same_outcome(policy: PolicyName) -> None:
    first, again, other = (measure(simulate(policy, SMALL, Fleet(), seed), 1) for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize("arrivals", ARRIVAL_KINDS)
@pytest.mark.parametrize("policy", POLICIES)
def test_every_turn_ends_and_every_token_is_charged_once(policy: PolicyName, arrivals: ArrivalKind) -> None:
    trace = replace(SMALL, arrivals=arrivals).trace(random.Random(3))
    simulation = Simulation(policy, trace, Fleet(speeds=(1.0, 2.5), slots=3), check=True)
    tasks = simulation.run().tasks
    jobs = [job for agent in trace for job in agent.jobs]
    assert sorted(task.id for task in tasks) == list(range(1, len(jobs) + 1))
    assert all(task.left == 0 for task in tasks)
    assert not simulation.scheduler.turns
    expected = sum(job.tokens + PREFILL_WEIGHT * job.prompt for job in jobs)
    assert sum(account.service for account in simulation.scheduler.accounts.values()) == pytest.approx(expected)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("resume", ["recompute", "copy", "free"])
def test_times_are_in_order(policy: PolicyName, resume: Resume) -> None:
    for task in simulate(policy, SMALL, Fleet(resume=resume), 5, check=True).tasks:
        assert task.submitted <= task.started < task.first <= task.ended
        assert 0 <= task.waited < task.ended - task.submitted


def test_a_turn_alone_takes_its_steps() -> None:
    alone = Workload(1, "together", tokens=Lengths("constant", 100), prompt=Lengths("constant", 512))
    (task,) = simulate("fair", alone, Fleet(costs=PLAIN), 1).tasks
    assert task.first == pytest.approx(2 * 0.01 + 512 * 0.001)
    assert task.ended == pytest.approx(task.first + 99 * 0.01)


@pytest.mark.parametrize("kind", ["exponential", "constant"])
def test_waiting_on_one_slot_agrees_with_theory(kind: LengthKind) -> None:
    """M/M/1 and M/D/1 under fifo, by the means of twelve runs."""
    lengths, use = Lengths(kind, 400), 0.6
    service = 0.01 * lengths.mean
    workload = Workload(1_200, "poisson", use / service, tokens=lengths, prompt=Lengths("constant", 0))
    means = [
        statistics.fmean(task.waited for task in simulate("fifo", workload, Fleet(slots=1, costs=PLAIN), seed).tasks) for seed in range(12)
    ]
    expected = use / (1 - use) * service * (1 + lengths.variation) / 2
    error = statistics.stdev(means) / math.sqrt(len(means))
    assert abs(statistics.fmean(means) - expected) < 3 * error
    assert error < expected / 10


def one_slot(policy: PolicyName, resume: Resume) -> Outcome:
    workload = Workload(200, "poisson", 0.3, tokens=Lengths("exponential", 500), prompt=Lengths("constant", 0))
    return simulate(policy, workload, Fleet(slots=1, costs=PLAIN, resume=resume), 7)


def test_a_policy_changes_who_waits_and_not_how_much_is_done() -> None:
    found = {policy: one_slot(policy, "free") for policy in POLICIES}
    first = found["fifo"]
    for outcome in found.values():
        assert outcome.busy_s == pytest.approx(first.busy_s, abs=0.1)  # a preempted turn may lose a token or two
        assert outcome.end_s == pytest.approx(first.end_s, abs=0.1)
    assert len({statistics.fmean(task.waited for task in outcome.tasks) for outcome in found.values()}) > 3


def test_an_urgent_class_waits_less_when_classes_count() -> None:
    waits = {
        policy: statistics.fmean(task.waited for task in one_slot(policy, "free").tasks if task.agent.priority == "interactive")
        for policy in POLICIES
    }
    assert waits["priority"] < waits["fifo"] / 5


def test_computing_again_costs_throughput_and_copying_hardly() -> None:
    free, copy, recompute = (one_slot("rr", resume) for resume in ("free", "copy", "recompute"))
    assert free.preemptions > 50
    assert copy.busy_s == pytest.approx(free.busy_s, rel=0.01)
    assert recompute.busy_s > 1.02 * free.busy_s


def test_fair_divides_by_weight_where_everybody_always_wants_more() -> None:
    greedy = Workload(24, "closed", turns=40, think_s=0.0, tokens=Lengths("constant", 300), classes=(("normal", 1),))
    index = {policy: measure(simulate(policy, greedy, Fleet(slots=4, resume="free"), 1), 1).fairness for policy in POLICIES}
    assert max(index, key=index.__getitem__) == "fair"


def test_groups_are_loaded_one_after_another() -> None:
    outcome = simulate("fifo", Workload(30, "together"), Fleet(groups=3, load_s=10.0), 1, check=True)
    assert outcome.groups_up == pytest.approx([10.0, *(done + 10.0 for done in outcome.groups_done[:-1])])
    assert outcome.end_s - outcome.busy_s == pytest.approx(30.0)


@pytest.mark.parametrize("kind", LENGTH_KINDS)
def test_lengths_have_the_mean_and_the_variation_that_they_say(kind: LengthKind) -> None:
    rng, lengths = random.Random(1), Lengths(kind, 100)
    drawn = [lengths.draw(rng) for _ in range(200_000)]
    assert statistics.fmean(drawn) == pytest.approx(100, rel=0.05)
    assert statistics.pvariance(drawn) / 100**2 == pytest.approx(lengths.variation, rel=0.3)


@pytest.mark.parametrize("arrivals", ["poisson", "bursty"])
def test_arrivals_come_at_their_rate(arrivals: ArrivalKind) -> None:
    trace = Workload(40_000, arrivals, rate=0.4).trace(random.Random(1))
    starts = [agent.jobs[0].pause for agent in trace]
    assert starts == sorted(starts)
    assert len(starts) / starts[-1] == pytest.approx(0.4, rel=0.1)


def test_measures() -> None:
    assert jain([1.0, 1.0, 1.0]) == pytest.approx(1.0)
    assert jain([1.0, 0.0, 0.0, 0.0]) == pytest.approx(0.25)
    assert interval([1.0, 2.0, 3.0]).half == pytest.approx(4.30 / math.sqrt(3))
