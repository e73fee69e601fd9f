"""Who computes: turns, the slots of the lanes they run in, and leases. Pure: `handle(event, now) -> list[Action]`.

A **turn** is one generation of an agent. A **lane** is a loaded decoder with a number of slots. A turn in a slot holds a **lease**, a
number of tokens it may still produce; it is renewed before it runs out, so that the device never waits, or the turn is taken out.

Order: by class, first come first served within a class. A turn that finds every slot taken puts the youngest turn of the lowest lower
class back into the queue; that one is computed again from its tokens when its time comes, and goes on where it was. The same happens
to every turn of a lane whose device crashes. A held agent (signal `stop`) keeps its place in the queue but gets no slot.
"""

from dataclasses import dataclass, field
from typing import get_args

from kernos.syscalls.process import Priority

from ..limits import LEASE_LOW, LEASE_TOKENS

RANK: dict[Priority, int] = {name: rank for rank, name in enumerate(get_args(Priority))}
"""0 is the most urgent class."""


@dataclass(slots=True)
class Turn:
    """A generation as the scheduler sees it."""

    id: int
    pid: int
    lane: str
    rank: int
    tokens_left: int
    """What it may still produce in all."""
    arrived: int = 0
    """Its place in the order of arrival, which it keeps when it is put back."""
    lease: int = 0
    running: bool = False


@dataclass(frozen=True, slots=True)
class Submitted:
    """A new turn."""

    turn: Turn


@dataclass(frozen=True, slots=True)
class Produced:
    """A running turn produced tokens."""

    turn: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Ended:
    """A turn is over, for whatever reason, and its device knows: the slot is free."""

    turn: int


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A turn is no longer wanted; a running one must be stopped."""

    turn: int


@dataclass(frozen=True, slots=True)
class LaneUp:
    """A model is ready to run."""

    lane: str
    slots: int


@dataclass(frozen=True, slots=True)
class LaneDown:
    """A model's device is gone; what ran there goes back into the queue."""

    lane: str


@dataclass(frozen=True, slots=True)
class Held:
    """An agent must leave the devices."""

    pid: int


@dataclass(frozen=True, slots=True)
class Released:
    """A held agent may compute again."""

    pid: int


Event = Submitted | Produced | Ended | Withdrawn | LaneUp | LaneDown | Held | Released


@dataclass(frozen=True, slots=True)
class Start:
    """Put a turn into a slot with a lease."""

    turn: int
    lease: int


@dataclass(frozen=True, slots=True)
class Extend:
    """Renew a lease by this many tokens."""

    turn: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Take a turn out of its slot at the next token; it may start again later."""

    turn: int


Action = Start | Extend | Stop


@dataclass
class Lane:
    """The slots of a loaded decoder."""

    slots: int
    up: bool = True
    running: set[int] = field(default_factory=set)

    @property
    def free(self) -> int:
        """Slots that can be taken now."""
        return self.slots - len(self.running) if self.up else 0


class Scheduler:
    """The state and its one door, `handle`."""

    def __init__(self) -> None:
        self.turns: dict[int, Turn] = {}
        self.lanes: dict[str, Lane] = {}
        self.held: set[int] = set()
        self._arrivals = 0

    def handle(self, event: Event, now: float) -> list[Action]:  # noqa: ARG002  (policies that age turns will read it)
        """Take in what happened and say what to do about it."""
        match event:
            case Submitted(turn):
                return self._submit(turn)
            case Produced(id_, tokens):
                return self._renew(self.turns.get(id_), tokens)
            case Ended(id_):
                return self._leave(id_, stop=False)
            case Withdrawn(id_):
                return self._leave(id_, stop=True)
            case LaneUp(name, slots):
                self._lose(name)
                self.lanes[name] = Lane(slots)
                return self._fill(name)
            case LaneDown(name):
                self._lose(name)
                return []
            case Held(pid):
                self.held.add(pid)
                return self._hold(pid)
            case Released(pid):
                self.held.discard(pid)
                return [action for name in self.lanes for action in self._fill(name)]

    @property
    def queued(self) -> int:
        """Turns without a slot."""
        return sum(not turn.running for turn in self.turns.values())

    def of(self, pid: int) -> list[Turn]:
        """The turns of an agent."""
        return [turn for turn in self.turns.values() if turn.pid == pid]

    def check(self) -> None:
        """Assert what must hold after every event; tests call it at each step."""
        running = {turn.id for turn in self.turns.values() if turn.running}
        seated = [id_ for lane in self.lanes.values() for id_ in lane.running]
        assert len(seated) == len(set(seated)), "a turn sits in two slots"
        assert running == set(seated), "running turns and taken slots differ"
        for name, lane in self.lanes.items():
            assert len(lane.running) <= lane.slots, f"{name} has more turns than slots"
            assert lane.up or not lane.running, f"{name} is down but has turns"
            assert not lane.free or self._best(name) is None, f"{name} has a free slot and a turn that could use it"
        for turn in self.turns.values():
            assert 0 <= turn.lease <= turn.tokens_left, "a lease beyond what the turn may produce"
            assert turn.running or turn.lease == 0, "a queued turn holds a lease"
            assert not (turn.running and turn.pid in self.held), "a held agent runs"

    def _submit(self, turn: Turn) -> list[Action]:
        self._arrivals += 1
        turn.arrived = self._arrivals
        self.turns[turn.id] = turn
        return self._fill(turn.lane)

    def _renew(self, turn: Turn | None, tokens: int) -> list[Action]:
        if turn is None or not turn.running:
            return []
        turn.tokens_left -= tokens
        turn.lease = min(turn.lease - tokens, turn.tokens_left)
        more = min(LEASE_TOKENS, turn.tokens_left - turn.lease)
        if turn.lease > LEASE_LOW or more <= 0:
            return []
        turn.lease += more
        return [Extend(turn.id, more)]

    def _leave(self, id_: int, *, stop: bool) -> list[Action]:
        turn = self.turns.pop(id_, None)
        if turn is None:
            return []
        actions: list[Action] = [Stop(id_)] if stop and turn.running else []
        if turn.running:
            self.lanes[turn.lane].running.discard(id_)
        return actions + self._fill(turn.lane)

    def _lose(self, name: str) -> None:
        lane = self.lanes.get(name)
        if lane is not None:
            lane.up = False
            for id_ in list(lane.running):
                self._unseat(self.turns[id_])

    def _hold(self, pid: int) -> list[Action]:
        stopped = [turn for turn in self.of(pid) if turn.running]
        for turn in stopped:
            self._unseat(turn)
        actions: list[Action] = [Stop(turn.id) for turn in stopped]
        return actions + [action for name in {turn.lane for turn in stopped} for action in self._fill(name)]

    def _fill(self, name: str) -> list[Action]:
        """Seat queued turns of a lane while there is a free slot, or one held by a lower class."""
        actions: list[Action] = []
        lane = self.lanes.get(name)
        while lane is not None and lane.up and (best := self._best(name)) is not None:
            if not lane.free:
                victim = max((self.turns[id_] for id_ in lane.running), key=lambda turn: (turn.rank, turn.arrived))
                if victim.rank <= best.rank:
                    break
                self._unseat(victim)
                actions.append(Stop(victim.id))
            best.running, best.lease = True, min(LEASE_TOKENS, best.tokens_left)
            lane.running.add(best.id)
            actions.append(Start(best.id, best.lease))
        return actions

    def _best(self, name: str) -> Turn | None:
        waiting = (turn for turn in self.turns.values() if turn.lane == name and not turn.running and turn.pid not in self.held)
        return min(waiting, key=lambda turn: (turn.rank, turn.arrived), default=None)

    def _unseat(self, turn: Turn) -> None:
        turn.running, turn.lease = False, 0
        self.lanes[turn.lane].running.discard(turn.id)
