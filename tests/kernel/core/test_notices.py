"""Notices: everybody who watches is told once, and nothing waits longer than it has to."""

from collections import defaultdict
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from kernos.kernel.core.notices import Notices, Watcher
from tests.kernel.fakes import examples

CHAT = "chat"
GRACE = 10.0


def watched(*pids: int) -> Notices[int, str]:
    """Agents that watch, each read by its pid."""
    notices: Notices[int, str] = Notices()
    for pid in pids:
        assert notices.watch(CHAT, Watcher(pid, GRACE, pid)) == []
    return notices


def told(notices: Notices[int, str], until: int, now: float = 0.0) -> list[int]:
    return [watcher.reader for watcher in notices.give(CHAT, until, now)]


def test_where_nobody_watches_nothing_waits() -> None:
    notices = watched()
    assert told(notices, 5) == []
    assert notices.may_leave(CHAT, 0.0)


def test_messages_wait_until_all_who_were_told_are_back() -> None:
    notices = watched(1, 2)
    assert told(notices, 5) == [1, 2]
    assert not notices.may_leave(CHAT, 0.0)
    assert notices.wait(CHAT, "turn") == GRACE
    assert notices.back(CHAT, 1) == []
    assert notices.watch(CHAT, Watcher(2, GRACE, 2)) == ["turn"]
    assert notices.may_leave(CHAT, 0.0)


def test_after_the_deadline_nothing_waits() -> None:
    notices = watched(1)
    told(notices, 5)
    assert not notices.may_leave(CHAT, GRACE - 0.1)
    assert notices.may_leave(CHAT, GRACE)


def test_an_end_counts_as_being_back_and_who_comes_next_is_told_anew() -> None:
    notices = watched(1)
    told(notices, 5)
    notices.wait(CHAT, "turn")
    assert notices.ended(1) == ["turn"]
    notices.watch(CHAT, Watcher(2, GRACE, 2))
    assert told(notices, 5) == [2]


def test_nobody_is_told_twice_and_who_is_busy_is_not_told_of_more() -> None:
    notices = watched(1)
    told(notices, 5)
    assert told(notices, 5) == told(notices, 8) == []
    notices.watch(CHAT, Watcher(1, GRACE, 1))
    assert told(notices, 5) == []
    assert told(notices, 8) == [1]
    assert (notices.given[CHAT].start, notices.until(CHAT)) == (5, 8)


def test_who_gave_up_is_not_told() -> None:
    notices = watched(1, 2)
    notices.give_up(CHAT, 1)
    notices.give_up(CHAT, 3)
    assert told(notices, 5) == [2]
    notices.give_up(CHAT, 2)
    assert notices.watching == {}


def test_what_waited_long_enough_goes_on_once() -> None:
    notices = watched(1)
    told(notices, 5)
    notices.wait(CHAT, "turn")
    assert notices.give_in(CHAT, "turn") == ["turn"]
    assert notices.give_in(CHAT, "turn") == notices.back(CHAT, 1) == []


def test_a_context_that_went_back_or_is_gone_is_forgotten() -> None:
    notices = watched(1)
    told(notices, 5)
    notices.wait(CHAT, "turn")
    notices.watch(CHAT, Watcher(2, GRACE, 2))
    assert notices.forget(CHAT) == ["turn"]
    assert notices.until(CHAT) == 0
    assert notices.delete(CHAT) == [2]
    assert notices == Notices()


STEPS = st.tuples(st.sampled_from(["watch", "give", "back", "ended", "wait", "pass"]), st.integers(1, 3), st.integers(0, 12))


@dataclass
class Story:
    """Three agents, one context and a clock; `step` does something and looks whether all is as promised."""

    notices: Notices[int, int] = field(default_factory=Notices[int, int])
    now: float = 0.0
    heard: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    """Up to which message an agent, while it lives, was told."""
    waiting: dict[int, float] = field(default_factory=dict)
    turns: int = 0

    def step(self, kind: str, pid: int, number: int) -> None:
        match kind:
            case "watch":
                self.free(self.notices.watch(CHAT, Watcher(pid, 1.0 + number, pid)))
            case "give":
                pids = {watcher.pid for watcher in self.notices.give(CHAT, number, self.now)}
                assert all(self.heard[pid] < number for pid in pids)
                self.heard.update(dict.fromkeys(pids, number))
            case "back":
                self.free(self.notices.back(CHAT, pid))
            case "ended":
                self.notices.give_up(CHAT, pid)
                self.free(self.notices.ended(pid))
                self.heard.pop(pid, None)
            case "wait" if not self.notices.may_leave(CHAT, self.now):
                self.turns += 1
                self.waiting[self.turns] = self.notices.wait(CHAT, self.turns)
            case _:
                self.now += number
        for turn in [turn for turn, deadline in self.waiting.items() if deadline <= self.now]:
            self.free(self.notices.give_in(CHAT, turn))
        assert all(self.now < deadline <= self.now + 13 for deadline in self.waiting.values())
        assert not self.waiting or not self.notices.may_leave(CHAT, self.now)

    def free(self, turns: list[int]) -> None:
        for turn in turns:
            del self.waiting[turn]  # each goes on once


@given(st.lists(STEPS, max_size=40))
@examples(200)
def test_nothing_waits_without_a_reason_and_nobody_hears_twice(steps: list[tuple[str, int, int]]) -> None:
    story = Story()
    for step in steps:
        story.step(*step)
    for pid in (1, 2, 3):
        story.step("ended", pid, 0)
    assert not story.waiting
    assert story.notices.watching == {}
