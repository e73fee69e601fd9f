"""What the policies promise, on a device that produces one token per sequence and step, and a clock moved by hand."""

import math
import sys
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernos.kernel.core.accounts import quantum_of
from kernos.kernel.core.policies import POLICIES, PolicyName
from kernos.kernel.core.scheduler import RANK, Action, Ended, LaneUp, Produced, Scheduler, Start, Stop, Submitted, Turn
from kernos.kernel.limits import AGED_TOKENS, LEASE_LAST, LEASE_LOW, LEASE_TOKENS, LEVEL_TOKENS, PREFILL_WEIGHT, QUANTUM_TOKENS, STARVE_S
from tests.kernel.fakes import examples

BATCH, NORMAL, INTERACTIVE = RANK["batch"], RANK["normal"], RANK["interactive"]


@dataclass
class World:
    """A lane of some slots; a step takes a tenth of a second."""

    policy: PolicyName = "fair"
    slots: int = 2
    now: float = 0.0
    served: Counter[int] = field(default_factory=Counter)
    """Tokens produced by agent."""
    order: list[int] = field(default_factory=list)
    """Turns as they ended."""

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(POLICIES[self.policy])
        self.scheduler.handle(LaneUp("m", self.slots), 0.0)
        self.turns = 0

    def submit(self, pid: int, tokens: int, rank: int = NORMAL, prompt: int = 0, deadline: float = math.inf) -> int:
        self.turns += 1
        self.scheduler.handle(Submitted(Turn(self.turns, pid, "m", rank, tokens, prompt, deadline)), self.now)
        self.scheduler.check()
        return self.turns

    def running(self) -> list[Turn]:
        return [turn for turn in self.scheduler.turns.values() if turn.running]

    def step(self) -> list[Action]:
        """Every sequence with a lease produces a token."""
        self.now += 0.1
        actions: list[Action] = []
        for turn in self.running():
            if not turn.running or not turn.lease:
                continue
            self.served[turn.pid] += 1
            if turn.tokens_left == 1:
                self.order.append(turn.id)
                actions += self.scheduler.handle(Ended(turn.id, 1, turn.prompt_left), self.now)
            else:
                actions += self.scheduler.handle(Produced(turn.id, 1, turn.prompt_left), self.now)
        return actions

    def run(self) -> None:
        while self.scheduler.turns:
            self.step()
            self.scheduler.check()


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_brings_everything_to_its_end(policy: PolicyName) -> None:
    world = World(policy)
    for pid in range(9):
        world.submit(pid, 40 + 90 * pid, rank=pid % 4)
    world.run()
    assert world.served == {pid: 40 + 90 * pid for pid in range(9)}


def test_fifo_looks_at_no_class() -> None:
    world = World("fifo", slots=1)
    turns = [world.submit(1, 5, BATCH), world.submit(2, 5, NORMAL), world.submit(3, 5, INTERACTIVE)]
    world.run()
    assert world.order == turns


def test_round_robin_divides_time() -> None:
    world = World("rr", slots=1)
    for pid in (1, 2):
        world.submit(pid, 4 * QUANTUM_TOKENS)
    while not world.order:
        world.step()
        assert abs(world.served[1] - world.served[2]) <= QUANTUM_TOKENS


def test_feedback_lets_a_short_turn_past_a_long_one() -> None:
    world = World("mlfq", slots=1)
    long = world.submit(1, 6 * LEVEL_TOKENS)
    for _ in range(2 * LEVEL_TOKENS):
        world.step()
    short = world.submit(2, 10)
    world.run()
    assert world.order == [short, long]


def test_the_earliest_deadline_is_first() -> None:
    world = World("deadline", slots=1)
    turns = [world.submit(1, 300), world.submit(2, 5, deadline=90.0), world.submit(3, 5, deadline=50.0), world.submit(4, 5)]
    world.run()
    assert world.order == [turns[2], turns[1], turns[0], turns[3]]


def test_weights_divide_service() -> None:
    """21 agents that always have work, of weights 1, 2 and 4 and of very different call sizes."""
    world = World(slots=8)
    weights = {pid: (1, 2, 4)[pid % 3] for pid in range(21)}
    sizes = {pid: (30, 200, 700)[pid // 7] for pid in range(21)}
    for pid, weight in weights.items():
        world.scheduler.account(pid).weight = weight
    steps = 30_000
    for _ in range(steps):
        busy = {turn.pid for turn in world.scheduler.turns.values()}
        for pid in weights.keys() - busy:
            world.submit(pid, sizes[pid])
        world.step()
    total, shares = sum(world.served.values()), sum(weights.values())
    assert total > 7.9 * steps, "slots stood empty"
    for pid, weight in weights.items():
        assert world.served[pid] / total == pytest.approx(weight / shares, rel=0.05)


def test_weights_divide_service_closely() -> None:
    """As above with three calls of each at a time, over so few steps that an agent has some thirty quanta."""
    world = World(slots=8)
    weights = {pid: (0.25, 0.5, 1.0)[pid % 3] for pid in range(21)}
    for pid, weight in weights.items():
        world.scheduler.account(pid).weight = weight
    before: dict[int, float] = {}
    for step in range(400 + 1_500):
        for pid in weights:
            while len(world.scheduler.of(pid)) < 3:
                world.submit(pid, (8, 16, 24, 80, 160, 240, 400)[pid // 3], prompt=25)
        if step == 400:
            before = {pid: world.scheduler.account(pid).virtual for pid in weights}
        world.step()
    gained = [world.scheduler.account(pid).virtual - before[pid] for pid in weights]
    assert max(gained) / min(gained) < 1.06


@pytest.mark.parametrize(("policy", "tokens"), [("fair", QUANTUM_TOKENS - 100 * PREFILL_WEIGHT), ("rr", QUANTUM_TOKENS)])
def test_a_prompt_is_a_part_of_the_first_quantum_where_service_counts(policy: PolicyName, tokens: float) -> None:
    world = World(policy, slots=1)
    turn = world.scheduler.turns[world.submit(1, 400, prompt=100)]
    world.submit(2, 400, prompt=100)
    while turn.running:
        world.step()
    assert world.served[1] == tokens - LEASE_LAST, "the last token is reported when another has the slot"


def test_an_agent_with_many_turns_is_not_next_with_all_of_them() -> None:
    world = World(slots=0)
    for _ in range(5):
        world.submit(1, 50)
    others = [world.submit(pid, 50) for pid in (2, 3, 4)]
    actions = world.scheduler.handle(LaneUp("m", 4), 0.0)
    assert [action.turn for action in actions] == [1, *others]


def test_a_new_weight_counts_at_once() -> None:
    """Also for a turn that waits behind others, with a lease given back."""
    world = World(slots=0)
    one, other = world.submit(1, 100), world.submit(2, 100)
    world.scheduler.account(1).ahead, world.scheduler.account(2).ahead = 30, 10
    assert world.scheduler.upcoming("m", 2) == [other, one]
    world.scheduler.weigh(1, 16.0)
    assert world.scheduler.upcoming("m", 2) == [one, other]


def test_splitting_work_gains_nothing() -> None:
    world = World(slots=2)
    for _ in range(8_000):
        mine = [turn for turn in world.scheduler.turns.values() if turn.pid == 1]
        for _ in range(10 - len(mine)):
            world.submit(1, 20)
        for pid in (2, 3):
            if not world.scheduler.of(pid):
                world.submit(pid, 200)
        world.step()
    assert world.served[1] == pytest.approx(world.served[2], rel=0.05)


def test_prompts_are_charged_once_and_for_less() -> None:
    world = World(slots=1)
    world.submit(1, 2, prompt=100)
    world.step()
    assert world.scheduler.account(1).service == pytest.approx(1 + 100 * PREFILL_WEIGHT)


def test_the_last_step_is_charged_too() -> None:
    world = World(slots=1)
    world.submit(1, 1, prompt=100)
    world.step()
    assert world.scheduler.account(1).service == pytest.approx(1 + 100 * PREFILL_WEIGHT)


def test_nobody_saves_up_while_idle() -> None:
    world = World(slots=1)
    world.submit(1, 5 * QUANTUM_TOKENS)
    for _ in range(3 * QUANTUM_TOKENS):
        world.step()
    world.submit(2, 5 * QUANTUM_TOKENS)
    before = Counter(world.served)
    for _ in range(4 * QUANTUM_TOKENS):
        world.step()
    gained = {pid: world.served[pid] - before[pid] for pid in (1, 2)}
    assert abs(gained[1] - gained[2]) <= 2 * QUANTUM_TOKENS, "the newcomer was served as if it had waited all the time"


ROUNDING = 1e-6
"""Of sums of fractions of tokens."""


@examples(40)
@given(
    st.lists(st.tuples(st.sampled_from((0.1, 0.5, 1.0, 1.5, 4.0)), st.integers(1, 400), st.integers(0, 300)), min_size=2, max_size=8),
    st.integers(1, 3),
)
def test_nobody_who_waits_is_overtaken_beyond_the_bound(works: list[tuple[float, int, int]], slots: int) -> None:
    """While an agent waits, one that is ahead of it is served at most to the end of its quantum, or of the lease it has beyond it.

    This is the bound of the virtual token counter (Sheng et al. 2024, theorem 4.4) with our grain of decisions: who is ahead may be next
    once more while it is not yet ahead of the waiting one's position, which counts a token that was under way when it left its slot; then
    it is charged for two prompts, each in one step.
    """
    world = World(slots=slots)
    for pid, (weight, _, _) in enumerate(works):
        world.scheduler.account(pid).weight = weight
    overtaken: dict[tuple[int, int], float] = {}
    for _ in range(800):
        for pid, (_, tokens, prompt) in enumerate(works):
            if not world.scheduler.of(pid):
                world.submit(pid, tokens, prompt=prompt)
        before = {pid: world.scheduler.account(pid).service for pid in range(len(works))}
        waiting = {turn.pid for turn in world.scheduler.turns.values() if not turn.running}
        world.step()
        for pair in ((waits, ahead) for waits in range(len(works)) for ahead in range(len(works))):
            books, others = world.scheduler.account(pair[0]), world.scheduler.account(pair[1])
            if pair[0] in waiting and others.virtual > books.virtual:
                overtaken[pair] = overtaken.get(pair, 0.0) + others.service - before[pair[1]]
                weight, _, prompt = works[pair[1]]
                quantum, under_way = quantum_of(weight), LEASE_LAST / works[pair[0]][0] * weight
                bound = under_way + max(quantum, LEASE_LOW + min(quantum, LEASE_TOKENS)) + 2 * PREFILL_WEIGHT * prompt
                assert overtaken[pair] <= bound + ROUNDING
            else:
                overtaken[pair] = 0.0


class TestAging:
    def test_a_starving_class_gets_one_slot_and_no_more(self) -> None:
        world = World("fair", slots=2)
        for pid in range(6):
            world.submit(pid, 100_000, INTERACTIVE)
        waiting = [world.submit(pid, 10_000, BATCH) for pid in range(10, 13)]
        while world.now < STARVE_S:
            assert not any(world.scheduler.turns[id_].running for id_ in waiting)
            world.step()
        world.step()
        world.step()
        for _ in range(AGED_TOKENS - 5):
            assert sum(world.scheduler.turns[id_].running for id_ in waiting) == 1
            world.step()
        for _ in range(20):
            world.step()
        assert not any(world.scheduler.turns[id_].running for id_ in waiting), "the aged turn outstayed its quantum"

    def test_it_is_not_put_out_by_a_newcomer(self) -> None:
        world = World(slots=1)
        world.submit(1, 100_000, INTERACTIVE)
        low = world.submit(2, 10_000, BATCH)
        while not world.scheduler.turns[low].running:
            world.step()
        world.submit(3, 5, RANK["realtime"])
        assert world.scheduler.turns[low].running


def cost_of_a_decision(agents: int) -> float:
    """Python calls that a rotation of the scheduler takes with so many agents waiting: a count, so the machine's mood is no matter."""
    scheduler = Scheduler()
    scheduler.handle(LaneUp("m", 8), 0.0)
    for pid in range(agents + 8):
        scheduler.handle(Submitted(Turn(pid, pid, "m", NORMAL, 10_000)), 0.0)
    counted = 0

    def count(*_: object) -> None:
        nonlocal counted
        counted += 1

    rounds = 40
    sys.setprofile(count)
    try:
        for _ in range(rounds):
            running = next(id_ for id_ in scheduler.lanes["m"].running)
            turn = scheduler.turns[running]
            actions = scheduler.handle(Produced(running, turn.lease), 1.0)
            assert all(isinstance(action, Start | Stop) or action for action in actions)
    finally:
        sys.setprofile(None)
    return counted / rounds


def test_a_decision_costs_no_more_than_log_n() -> None:
    few, many = cost_of_a_decision(10), cost_of_a_decision(5_000)
    assert many / few <= math.log2(5_008) / math.log2(18)


def test_heaps_are_left_with_nothing_stale_at_the_end() -> None:
    world = World(slots=2)
    for pid in range(50):
        world.submit(pid, 20)
    world.run()
    assert world.scheduler.queued == 0
    assert all(queue.first() is None for queue in world.scheduler.lanes["m"].queues.values())
