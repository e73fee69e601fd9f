"""The scheduler with late commands, late reports and crashes: nothing is lost, nobody idles, everybody gets their tokens."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernos.kernel.core.accounts import quantum_of
from kernos.kernel.core.lanes import UNBOUNDED
from kernos.kernel.core.policies import POLICIES, PolicyName
from kernos.kernel.core.scheduler import (
    RANK,
    Action,
    Ended,
    Extend,
    Held,
    LaneDown,
    LaneUp,
    Produced,
    Released,
    Scheduler,
    Start,
    Stop,
    Submitted,
    Turn,
    Withdrawn,
)
from kernos.kernel.limits import LEASE_LOW, LEASE_TOKENS
from tests.kernel.core.rig import LANES, Rig
from tests.kernel.fakes import examples

operations = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.integers(0, 3), st.integers(0, 3), st.integers(1, 100), st.integers(0, 6)),
        st.tuples(st.just("peek"), st.integers(0, 1), st.integers(0, 5)),
        st.tuples(st.just("withdraw"), st.integers(1, 20)),
        st.tuples(st.sampled_from(("hold", "release")), st.integers(0, 3)),
        st.tuples(st.sampled_from(("crash", "up")), st.integers(0, 1)),
        st.tuples(st.just("step"), st.integers(1, 40)),
        st.tuples(st.sampled_from(("commands", "reports")), st.integers(1, 6)),
    ),
    max_size=60,
)


def play(rig: Rig, steps: Iterable[tuple[object, ...]]) -> None:  # noqa: C901  (a branch per operation)
    for step in steps:
        match step:
            case ("submit", int(pid), int(rank), int(tokens), int(pages)):
                rig.submit(pid, LANES[pid % 2], rank, tokens, pages)
            case ("peek", int(lane), int(count)):
                assert rig.scheduler.upcoming(LANES[lane], count) == [turn.id for turn in rig.waiting(LANES[lane])][:count]
            case ("withdraw", int(turn)):
                rig.withdraw(turn)
            case ("hold", int(pid)):
                rig.handle(Held(pid))
            case ("release", int(pid)):
                rig.handle(Released(pid))
            case ("crash", int(lane)):
                rig.crash(LANES[lane])
            case ("up", int(lane)):
                rig.up(LANES[lane])
            case ("step", int(tokens)):
                rig.step(tokens)
            case ("commands", int(most)):
                rig.deliver_commands(most)
            case ("reports", int(most)):
                rig.deliver_reports(most)


@examples(250)
@given(st.sampled_from(sorted(POLICIES)), st.integers(1, 3), st.sampled_from((4, 9, UNBOUNDED)), operations)
def test_every_turn_ends_with_exactly_its_tokens(policy: PolicyName, slots: int, pages: int, steps: list[tuple[object, ...]]) -> None:
    rig = Rig(slots, policy, pages)
    for lane in LANES:
        rig.up(lane)
    play(rig, steps)
    rig.run_dry()
    rig.check_end()


@pytest.mark.parametrize("per_report", [1, 2, 4, 8])
@pytest.mark.parametrize("delay", [0, 1])
def test_a_lease_is_renewed_before_it_runs_out(per_report: int, delay: int) -> None:
    """Reports and renewals may each be a step late, and no sequence ever sits idle."""
    rig = Rig(slots=2)
    rig.up("a")
    for pid in range(2):
        rig.submit(pid, "a", 2, 300)
    rig.deliver_commands()
    while rig.scheduler.turns:
        due, commands = len(rig.to_kernel), len(rig.to_device)
        rig.step(per_report)
        rig.deliver_reports(due if delay else 1_000)
        rig.deliver_commands(commands if delay else 1_000)
    assert rig.device.idle_steps == 0
    rig.check_end()


@pytest.mark.parametrize("weight", [0.25, 1.0, 2.5])
def test_a_slot_is_passed_on_without_an_idle_step(weight: float) -> None:
    """Where a report takes as long as a step and what is sent then acts after it, every slot produces a token in every step."""
    rig = Rig(slots=4)
    rig.up("a")
    for pid in range(16):
        rig.scheduler.account(pid).weight = weight
        rig.submit(pid, "a", 2, 2_000)
    began = rig.seqs
    for _ in range(400):
        rig.deliver_commands()
        due = len(rig.to_kernel)
        rig.step(1)
        assert len(rig.to_kernel) == due + 4
        rig.deliver_reports(due)
    assert rig.device.idle_steps == 0
    assert rig.seqs - began > 0.7 * 4 * 400 / quantum_of(weight), "slots were not passed on at the end of a quantum"
    assert max(rig.produced.values()) - min(rig.produced.values()) <= 2 * quantum_of(weight)
    rig.run_dry()
    rig.check_end()


def test_a_turn_may_end_when_its_slot_is_passed_on_already() -> None:
    rig = Rig(1)
    rig.up("a")
    first, second = rig.submit(1, "a", 2, 32), rig.submit(2, "a", 2, 50)
    rig.deliver_commands()
    rig.step(31)
    rig.deliver_reports()
    assert [rig.scheduler.turns[id_].running for id_ in (first, second)] == [False, True]
    rig.step(1)
    rig.deliver_reports()
    assert rig.ended == {first}
    assert rig.scheduler.account(1).service == 32
    rig.run_dry()
    rig.check_end()


@given(st.integers(1, 200), st.lists(st.integers(1, LEASE_TOKENS + LEASE_LOW), max_size=50))
@examples(100)
def test_lease_stays_within_the_turn(tokens: int, reports: list[int]) -> None:
    scheduler = Scheduler()
    scheduler.handle(LaneUp("a", 1), 0.0)
    turn = Turn(1, 1, "a", 0, tokens)
    granted = sum(action.lease for action in scheduler.handle(Submitted(turn), 0.0) if isinstance(action, Start))
    produced = 0
    for wanted in reports:
        report = min(wanted, granted - produced)
        if not report:
            break
        produced += report
        for action in scheduler.handle(Produced(1, report), 0.0):
            assert isinstance(action, Extend)
            granted += action.tokens
        scheduler.check()
        assert turn.tokens_left == tokens - produced
        assert turn.lease == granted - produced
        assert granted <= tokens
        assert granted == tokens or turn.lease > LEASE_LOW


@given(st.integers(1, 4), st.lists(st.tuples(st.integers(0, 3), st.integers(1, 40)), min_size=1, max_size=30))
@examples(60)
def test_first_come_first_served_within_a_class(slots: int, turns: list[tuple[int, int]]) -> None:
    rig = Rig(slots)
    for rank, tokens in turns:
        rig.submit(0, "a", rank, tokens)
    started = [action.turn for action in rig.handle(LaneUp("a", slots)) if isinstance(action, Start)]
    ranks = {id_: rank for id_, (rank, _) in enumerate(turns, 1)}
    assert started == sorted(ranks, key=lambda id_: (ranks[id_], id_))[:slots]


def starts(actions: list[Action]) -> list[int]:
    return [action.turn for action in actions if isinstance(action, Start)]


def stops(actions: list[Action]) -> list[int]:
    return [action.turn for action in actions if isinstance(action, Stop)]


class TestPreemption:
    def test_a_higher_class_takes_a_slot_at_once(self) -> None:
        rig = Rig(1)
        rig.up("a")
        low = rig.submit(1, "a", RANK["batch"], 50)
        rig.handle_produced(low, 5)
        rig.wanted[99], rig.produced[99] = 10, 0
        actions = rig.handle(Submitted(Turn(99, 2, "a", RANK["realtime"], 10)))
        assert (stops(actions), starts(actions)) == ([low], [99])
        assert isinstance(actions[0], Stop), "the slot is freed before it is taken"
        assert rig.scheduler.turns[low].tokens_left == 45

    def test_the_youngest_of_the_lowest_class_goes(self) -> None:
        rig = Rig(3)
        rig.up("a")
        first, second, third = (rig.submit(1, "a", RANK[name], 50) for name in ("batch", "batch", "normal"))
        rig.submit(2, "a", RANK["interactive"], 10)
        assert rig.scheduler.turns[first].running
        assert not rig.scheduler.turns[second].running
        assert rig.scheduler.turns[third].running

    def test_an_equal_class_waits(self) -> None:
        rig = Rig(1)
        rig.up("a")
        rig.submit(1, "a", 2, 50)
        second = rig.submit(2, "a", 2, 50)
        assert not rig.scheduler.turns[second].running

    def test_the_preempted_turn_keeps_its_place(self) -> None:
        rig = Rig(1, "priority")
        rig.up("a")
        first, second = rig.submit(1, "a", 2, 50), rig.submit(2, "a", 2, 50)
        urgent = rig.submit(3, "a", 0, 5)
        assert starts(rig.handle(Ended(urgent))) == [first]
        assert not rig.scheduler.turns[second].running


class TestPages:
    def test_turns_run_as_far_as_there_are_pages(self) -> None:
        rig = Rig(4, pages=10)
        rig.up("a")
        turns = [rig.submit(pid, "a", 2, 50, pages=4) for pid in range(3)]
        assert [rig.scheduler.turns[id_].running for id_ in turns] == [True, True, False]
        assert starts(rig.handle(Withdrawn(turns[0]))) == [turns[2]]

    def test_the_next_turn_blocks_those_behind_it(self) -> None:
        rig = Rig(4, pages=10)
        rig.up("a")
        rig.submit(1, "a", 2, 50, pages=6)
        large, small = rig.submit(2, "a", 2, 50, pages=5), rig.submit(3, "a", 2, 50, pages=1)
        assert not rig.scheduler.turns[large].running
        assert not rig.scheduler.turns[small].running
        assert rig.scheduler.upcoming("a", 5) == [large, small]

    def test_one_that_needs_more_than_there_are_runs_alone(self) -> None:
        rig = Rig(4, pages=10)
        rig.up("a")
        first, huge = rig.submit(1, "a", 2, 50, pages=1), rig.submit(2, "a", 2, 50, pages=11)
        assert not rig.scheduler.turns[huge].running
        assert starts(rig.handle(Withdrawn(first))) == [huge]

    def test_an_urgent_turn_takes_as_many_slots_as_it_needs_pages(self) -> None:
        rig = Rig(4, pages=12)
        rig.up("a")
        low = [rig.submit(1, "a", RANK["batch"], 50, pages=4) for _ in range(3)]
        rig.wanted[99], rig.produced[99] = 10, 0
        actions = rig.handle(Submitted(Turn(99, 2, "a", RANK["interactive"], 10, pages=5)))
        assert (stops(actions), starts(actions)) == ([low[2], low[1]], [99])

    def test_nobody_is_put_out_in_vain(self) -> None:
        rig = Rig(4, pages=10)
        rig.up("a")
        rig.submit(1, "a", RANK["interactive"], 50, pages=6)
        low = rig.submit(2, "a", RANK["batch"], 50, pages=4)
        urgent = rig.submit(3, "a", RANK["interactive"], 50, pages=5)
        assert rig.scheduler.turns[low].running
        assert not rig.scheduler.turns[urgent].running

    def test_a_large_turn_gets_its_turn_among_small_ones(self) -> None:
        rig = Rig(3, pages=6)
        rig.up("a")
        for pid in range(6):
            rig.submit(pid, "a", 2, 400, pages=2)
        large = rig.submit(9, "a", 2, 40, pages=6)
        for _ in range(400):
            rig.deliver_commands()
            rig.step(1)
            rig.deliver_reports()
        assert large in rig.ended


class TestHolding:
    def test_a_held_agent_leaves_and_the_next_starts(self) -> None:
        rig = Rig(1)
        rig.up("a")
        first, second = rig.submit(1, "a", 2, 50), rig.submit(2, "a", 2, 50)
        actions = rig.handle(Held(1))
        assert (stops(actions), starts(actions)) == ([first], [second])
        assert starts(rig.handle(Ended(second))) == []
        assert starts(rig.handle(Released(1))) == [first]

    def test_new_turns_of_a_held_agent_wait_on_every_lane(self) -> None:
        rig = Rig(2)
        for lane in LANES:
            rig.up(lane)
        rig.handle(Held(1))
        turns = [rig.submit(1, lane, 0, 5) for lane in LANES]
        assert rig.scheduler.queued == 2
        assert starts(rig.handle(Released(1))) == turns

    def test_a_released_urgent_turn_takes_over(self) -> None:
        rig = Rig(1)
        rig.up("a")
        urgent, low = rig.submit(1, "a", 0, 5), rig.submit(2, "a", 3, 5)
        rig.handle(Held(1))
        assert rig.scheduler.turns[low].running
        actions = rig.handle(Released(1))
        assert (stops(actions), starts(actions)) == ([low], [urgent])


class TestLanes:
    def test_a_crash_loses_nothing(self) -> None:
        rig = Rig(2)
        rig.up("a")
        turns = [rig.submit(pid, "a", 2, 40) for pid in range(4)]
        rig.deliver_commands()
        rig.step(7)
        rig.deliver_reports()
        rig.crash("a")
        assert rig.scheduler.queued == 4
        again = starts(rig.handle(LaneUp("a", 2)))
        assert len(again) == 2
        assert set(again) <= set(turns)
        rig.run_dry()
        rig.check_end()

    def test_other_lanes_do_not_notice(self) -> None:
        rig = Rig(1)
        for lane in LANES:
            rig.up(lane)
        one, other = rig.submit(1, "a", 2, 40), rig.submit(1, "b", 2, 40)
        rig.crash("a")
        assert not rig.scheduler.turns[one].running
        assert rig.scheduler.turns[other].running

    def test_turns_wait_for_a_lane_that_never_was(self) -> None:
        rig = Rig(1)
        turn = rig.submit(1, "a", 2, 40)
        assert rig.scheduler.queued == 1
        rig.withdraw(turn)
        assert not rig.scheduler.turns

    def test_events_about_the_unknown_do_nothing(self) -> None:
        rig = Rig(1)
        for event in (Produced(7, 1), Ended(7), Withdrawn(7), LaneDown("x"), Released(7)):
            assert rig.handle(event) == []

    def test_the_turns_of_an_agent(self) -> None:
        rig = Rig(1)
        rig.submit(1, "a", 2, 40)
        rig.submit(2, "a", 2, 40)
        assert [turn.pid for turn in rig.scheduler.of(1)] == [1]

    def test_a_lane_that_comes_up_twice_starts_over(self) -> None:
        scheduler = Scheduler()
        scheduler.handle(LaneUp("a", 1), 0.0)
        scheduler.handle(Submitted(Turn(1, 1, "a", 0, 10)), 0.0)
        scheduler.handle(LaneUp("a", 1), 0.0)
        scheduler.check()
