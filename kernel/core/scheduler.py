"""Who computes: turns, the slots of the lanes they run in, and leases. Pure: `handle(event, now) -> list[Action]`.

A **turn** is one generation of an agent. A **lane** is a loaded decoder with a number of slots and of KV pages. A turn in a slot holds a
**lease**, a number of tokens it may still produce; it is renewed before it runs out, so that the device never waits. A turn that has run
its **quantum** gives way if somebody better waits: its lease runs out and the slot changes hands. It goes on later where it was.

The device makes a step while the report of the one before is on its way. So a slot is passed on when one token of the lease is left: it
is produced meanwhile, the commands act right after it, and no row is idle for a step. That last token is reported, and charged, when its
turn is back in the queue; the turn may even end by it.

Service is counted per agent, over all its turns (`accounts.py`). Who is next is a policy's to say (`policies.py`); whatever it says, these
hold:

* the running turns of a lane never need more than its pages together; one that needs more than there are runs alone;
* a turn that finds no room takes it at once from the lowest less urgent class, from its youngest turns there, if that is enough;
* the next turn blocks those behind it until it has room, else small turns would overtake a large one for ever;
* a class that waits longer than `STARVE_S` while others run gets one slot of the lane for `AGED_TOKENS`, and no more (aging);
* a held agent (signal `stop`) keeps its place in the queue but gets no slot.

A decision costs O(log n) in the turns that wait, by heaps whose stale entries are left in place (`queues.py`).
"""

from dataclasses import dataclass
from typing import get_args

from kernos.syscalls.process import Priority

from ..limits import AGED_TOKENS, LEASE_LAST, LEASE_LOW, LEASE_TOKENS, PREFILL_WEIGHT, QUANTUM_TOKENS, STARVE_S
from .accounts import Account, quantum_of
from .lanes import UNBOUNDED, Lane
from .policies import POLICIES, Key, Policy
from .queues import Queue

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
    prompt_left: int = 0
    """Prompt tokens not charged yet; those computed again after a crash are not the agent's fault."""
    deadline: float = float("inf")
    """When its caller gives up."""
    pages: int = 0
    """KV pages it needs at the most while it runs."""
    arrived: int = 0
    """Its place in the order of arrival, which it keeps when it is put back."""
    queued: int = 0
    """As `arrived`, but counted anew each time it is put back."""
    lease: int = 0
    quantum: int = 0
    """Tokens it may run before it gives way to an equal; below 0 while none is better."""
    running: bool = False


@dataclass(frozen=True, slots=True)
class Submitted:
    """A new turn."""

    turn: Turn


@dataclass(frozen=True, slots=True)
class Produced:
    """A running turn produced tokens, and computed so much of its prompt."""

    turn: int
    tokens: int
    prefilled: int = 0


@dataclass(frozen=True, slots=True)
class Ended:
    """A turn is over, for whatever reason, and its device knows: the slot is free. The rest is what its last step did."""

    turn: int
    tokens: int = 0
    prefilled: int = 0


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A turn is no longer wanted; a running one must be stopped. The rest is what its last step did, if it ends by one."""

    turn: int
    tokens: int = 0
    prefilled: int = 0


@dataclass(frozen=True, slots=True)
class LaneUp:
    """A model is ready to run."""

    lane: str
    slots: int
    pages: int = UNBOUNDED
    """KV pages that its running turns may need together."""
    quantum: int = QUANTUM_TOKENS
    """Of an agent of weight 1; longer where coming back is dear."""


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


class Scheduler:
    """The state and its one door, `handle`."""

    def __init__(self, policy: Policy = POLICIES["fair"]) -> None:
        self.policy = policy
        self.turns: dict[int, Turn] = {}
        self.lanes: dict[str, Lane] = {}
        self.accounts: dict[int, Account] = {}
        self.held: set[int] = set()
        self.queued = 0
        """Turns without a slot."""
        self._arrivals = 0

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take in what happened and say what to do about it."""
        match event:
            case Submitted(turn):
                return self._submit(turn, now)
            case Produced():
                return self._produce(event, now)
            case Ended():
                return self._leave(event, now, stop=False)
            case Withdrawn():
                return self._leave(event, now, stop=True)
            case LaneUp(name, slots, pages, quantum):
                self._lose(name, now)
                lane = self._lane(name)
                lane.slots, lane.pages, lane.quantum = slots, pages, quantum
                return self._fill(name, now)
            case LaneDown(name):
                self._lose(name, now)
                return []
            case Held(pid):
                return self._hold(pid, now)
            case Released(pid):
                return self._release(pid, now)

    @property
    def running(self) -> int:
        """Turns in a slot."""
        return len(self.turns) - self.queued

    @property
    def urgency(self) -> int | None:
        """The most urgent class that has a slot; None: nobody has."""
        return min((self.turns[id_].rank for lane in self.lanes.values() for id_ in lane.running), default=None)

    def account(self, pid: int) -> Account:
        """The books of an agent."""
        account = self.accounts.get(pid)  # not setdefault: it is asked several times an event, and would make one each time
        if account is None:
            account = self.accounts[pid] = Account()
        return account

    def weight(self, pid: int) -> float:
        """The share of an agent in its class, also of one without books yet."""
        return self.accounts[pid].weight if pid in self.accounts else Account().weight

    def weigh(self, pid: int, weight: float) -> None:
        """Change the share of an agent in its class."""
        self.account(pid).weight = weight
        for turn in self.of(pid):  # its position may have fallen
            if not turn.running:
                self._queue(turn).wake(turn.id)

    def restore(self, pid: int, weight: float, service: float) -> None:
        """Take over the account of an agent from another kernel. Nobody is ahead or behind then, as after idleness."""
        self.accounts[pid] = Account(weight, service)

    def forget(self, pid: int) -> None:
        """An agent is no more. Its turns have been withdrawn."""
        self.accounts.pop(pid, None)
        self.held.discard(pid)

    def of(self, pid: int) -> list[Turn]:
        """The turns of an agent."""
        account = self.accounts.get(pid)
        return [self.turns[id_] for id_ in sorted(account.turns)] if account else []

    def upcoming(self, lane: str, count: int) -> list[int]:
        """The turns that come next in a lane if nothing changes, at most so many; O(count log n)."""
        return self.lanes[lane].upcoming(count) if lane in self.lanes else []

    # --- events -------------------------------------------------------------------------------------------------------------------

    def _submit(self, turn: Turn, now: float) -> list[Action]:
        account = self.account(turn.pid)
        if not account.turns:
            account.come_back(self._present(turn))
        account.turns.add(turn.id)
        self._arrivals += 1
        turn.arrived = self._arrivals
        self.turns[turn.id] = turn
        self._wait(turn, now)
        return self._fill(turn.lane, now)

    def _produce(self, event: Produced, now: float) -> list[Action]:
        turn = self.turns.get(event.turn)
        if turn is None:
            return []
        self._charge(turn, event)
        turn.tokens_left -= event.tokens
        if not turn.running:
            return []
        turn.quantum -= event.tokens
        lane = self.lanes[turn.lane]
        lane.quiet += 1
        if lane.aged == turn.id and turn.quantum <= LEASE_LAST:
            lane.aged = None  # it had its share; from here on it is a turn like any other
            return self._settle(turn, now) + self._fill(turn.lane, now)
        return self._settle(turn, now) or self._age(turn.lane, now)

    def _charge(self, turn: Turn, event: Produced | Ended | Withdrawn) -> None:
        prompt = min(event.prefilled, turn.prompt_left)
        turn.prompt_left -= prompt
        account = self.account(turn.pid)
        self.lanes[turn.lane].floor[self.policy.rank(turn)] = account.virtual
        account.charge(event.tokens, prompt, leased=turn.running)
        if turn.running:  # else the report was on its way when it left its slot
            turn.lease -= event.tokens

    def _grant(self, turn: Turn, tokens: int) -> None:
        turn.lease += tokens
        self.account(turn.pid).grant(tokens)

    def _settle(self, turn: Turn, now: float) -> list[Action]:
        """Renew a lease that runs low, or let it run out and pass the slot on."""
        if turn.lease > LEASE_LOW:
            return []
        left = turn.quantum - turn.lease
        if left <= 0 and self._must_go(turn):
            if turn.lease > LEASE_LAST:
                return []
            lane = self.lanes[turn.lane]
            if lane.quiet < len(lane.running) and turn.tokens_left > turn.lease:
                # Another slot passes on in this step; one at a time, so that no step waits for the pages of all rows at once.
                self._grant(turn, 1)
                return [Extend(turn.id, 1)]
            lane.quiet = 0
            self._unseat(turn, now)
            return [Stop(turn.id), *self._fill(turn.lane, now)]
        if left <= 0:  # nobody better waits: it has a quantum more, and may be asked again before that is over
            left = self._quantum(turn)
        more = min(LEASE_TOKENS, left, turn.tokens_left - turn.lease)
        if more <= 0:
            return []
        self._grant(turn, more)
        return [Extend(turn.id, more)]

    def _must_go(self, turn: Turn) -> bool:
        """Whether a turn at the end of its quantum gives way to one of its own class that waits."""
        queue = self.lanes[turn.lane].queues.get(self.policy.rank(turn))
        first = queue.first() if queue else None
        return first is not None and self.policy.gives_way(self._key(turn), first[0])

    def _leave(self, event: Ended | Withdrawn, now: float, *, stop: bool) -> list[Action]:
        turn = self.turns.get(event.turn)
        if turn is None:
            return []
        self._charge(turn, event)
        actions: list[Action] = [Stop(turn.id)] if stop and turn.running else []
        if turn.running:
            self._vacate(turn)
        else:
            self._take_out(turn)
        del self.turns[turn.id]
        self.account(turn.pid).turns.discard(turn.id)
        return actions + self._fill(turn.lane, now)

    def _lose(self, name: str, now: float) -> None:
        lane = self._lane(name)
        lane.slots = 0
        for id_ in list(lane.running):
            self._unseat(self.turns[id_], now)

    def _hold(self, pid: int, now: float) -> list[Action]:
        self.held.add(pid)
        stopped = [turn for turn in self.of(pid) if turn.running]
        for turn in stopped:
            self._unseat(turn, now)
        actions: list[Action] = [Stop(turn.id) for turn in stopped]
        return actions + [action for name in {turn.lane: None for turn in stopped} for action in self._fill(name, now)]

    def _release(self, pid: int, now: float) -> list[Action]:
        self.held.discard(pid)
        lanes: dict[str, None] = {}
        for turn in self.of(pid):
            if not turn.running:
                self._queue(turn).wake(turn.id)
                lanes[turn.lane] = None
        return [action for name in lanes for action in self._fill(name, now)]

    # --- slots --------------------------------------------------------------------------------------------------------------------

    def _fill(self, name: str, now: float) -> list[Action]:
        """Seat the next turn as long as there is room for it, or less urgent classes can make some."""
        actions: list[Action] = []
        lane = self._lane(name)
        while lane.slots and (first := lane.first()) is not None:
            best = self.turns[first]
            victims = self._victims(lane, best, self.policy.rank(best))
            if victims is None:
                break
            actions += self._replace(lane, victims, best, now)
        return actions + self._age(name, now)

    def _age(self, name: str, now: float) -> list[Action]:
        """Give a class that has waited too long one slot of a lane that others have for themselves."""
        lane = self.lanes[name]
        if lane.aged is not None or not lane.slots:
            return []
        starving = [rank for rank, queue in lane.queues.items() if len(queue) and now - lane.served[rank] > STARVE_S]
        for rank in sorted(starving):
            first = lane.queues[rank].first()
            if first is not None and not any(self.policy.rank(self.turns[id_]) == rank for id_ in lane.running):
                turn = self.turns[first[1]]
                actions = self._replace(lane, self._victims(lane, turn, -1) or [], turn, now)
                lane.aged, turn.quantum = turn.id, AGED_TOKENS
                return actions + self._fill(name, now)  # several may have left for it
        return []

    def _replace(self, lane: Lane, victims: list[Turn], turn: Turn, now: float) -> list[Action]:
        for victim in victims:
            self._unseat(victim, now)
        return [*(Stop(victim.id) for victim in victims), self._seat(lane, turn, now)]

    def _victims(self, lane: Lane, turn: Turn, rank: int) -> list[Turn] | None:
        """Who of classes less urgent than `rank` must leave for a turn to fit: the least urgent, the youngest of them; None: in vain.

        The one that runs because its class starved stays.
        """
        if lane.fits(turn):
            return []
        able = [other for other in map(self.turns.__getitem__, lane.running) if other.id != lane.aged and self.policy.rank(other) > rank]
        able.sort(key=lambda other: (self.policy.rank(other), other.arrived))
        victims: list[Turn] = []
        while able:
            victims.append(able.pop())
            if lane.fits(turn, victims):
                return victims
        return None

    def _seat(self, lane: Lane, turn: Turn, now: float) -> Start:
        self._take_out(turn)
        lane.running.add(turn.id)
        lane.used += turn.pages
        lane.served[self.policy.rank(turn)] = now
        turn.running, turn.quantum = True, self._first_quantum(turn)
        self._grant(turn, min(LEASE_TOKENS, turn.quantum, turn.tokens_left))
        return Start(turn.id, turn.lease)

    def _first_quantum(self, turn: Turn) -> int:
        """Less what the prompt costs, else agents of short calls would get ahead by both; enough to renew the lease in time."""
        prompt = PREFILL_WEIGHT * turn.prompt_left if self.policy.by_service else 0
        return max(LEASE_LAST + 1, self._quantum(turn) - round(prompt))

    def _quantum(self, turn: Turn) -> int:
        return quantum_of(self.account(turn.pid).weight, self.lanes[turn.lane].quantum)

    def _unseat(self, turn: Turn, now: float) -> None:
        self._vacate(turn)
        self._wait(turn, now)

    def _vacate(self, turn: Turn) -> None:
        lane = self.lanes[turn.lane]
        lane.running.discard(turn.id)
        lane.used -= turn.pages
        if lane.aged == turn.id:
            lane.aged = None
        account = self.account(turn.pid)
        account.give_back(turn.lease, waiting=any(not self.turns[id_].running for id_ in account.turns))
        turn.running, turn.lease = False, 0

    def _present(self, turn: Turn) -> float:
        """Where an agent that comes back from idleness begins: with the least served of its class, so that nobody saves up."""
        lane, rank = self._lane(turn.lane), self.policy.rank(turn)
        first = lane.queues[rank].first() if rank in lane.queues else None
        active = [self.turns[id_] for id_ in lane.running if self.policy.rank(self.turns[id_]) == rank]
        active += [self.turns[first[1]]] if first else []
        return min((self.account(other.pid).virtual for other in active), default=lane.floor.get(rank, 0.0))

    # --- queues -------------------------------------------------------------------------------------------------------------------

    def _wait(self, turn: Turn, now: float) -> None:
        self._arrivals += 1
        turn.queued = self._arrivals
        queue = self._queue(turn)
        if not len(queue):
            lane, rank = self.lanes[turn.lane], self.policy.rank(turn)
            lane.served[rank] = max(now, lane.served.get(rank, now))
        queue.push(turn.id)
        self.queued += 1

    def _take_out(self, turn: Turn) -> None:
        self._queue(turn).remove(turn.id)
        self.queued -= 1

    def _queue(self, turn: Turn) -> Queue:
        lane, rank = self._lane(turn.lane), self.policy.rank(turn)
        if rank not in lane.queues:
            lane.queues[rank] = Queue(self._key_if_free)
        return lane.queues[rank]

    def _lane(self, name: str) -> Lane:
        lane = self.lanes.get(name)
        if lane is None:
            lane = self.lanes[name] = Lane()
        return lane

    def _key(self, turn: Turn) -> Key:
        return self.policy.key(turn, self.account(turn.pid))

    def _key_if_free(self, id_: int) -> Key | None:
        turn = self.turns[id_]
        return None if turn.pid in self.held else self._key(turn)

    # --- for tests ----------------------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Assert what must hold after every event; tests call it at each step."""
        running = {turn.id for turn in self.turns.values() if turn.running}
        seated = [id_ for lane in self.lanes.values() for id_ in lane.running]
        assert len(seated) == len(set(seated)), "a turn sits in two slots"
        assert running == set(seated), "running turns and taken slots differ"
        assert self.queued == len(self.turns) - len(running), "the count of queued turns is off"
        for name, lane in self.lanes.items():
            assert len(lane.running) <= lane.slots, f"{name} has more turns than slots"
            assert lane.used == sum(self.turns[id_].pages for id_ in lane.running), f"the pages used in {name} are off"
            assert lane.used <= lane.pages or len(lane.running) == 1, f"the turns of {name} need more pages than it has"
            first = lane.first() if lane.slots else None
            best = None if first is None else self.turns[first]
            assert best is None or self._victims(lane, best, self.policy.rank(best)) is None, f"{name} has room for a turn that waits"
            assert lane.aged is None or lane.aged in lane.running, "an aged turn that does not run"
        for turn in self.turns.values():
            assert 0 <= turn.lease <= turn.tokens_left, "a lease beyond what the turn may produce"
            assert turn.running or turn.lease == 0, "a queued turn holds a lease"
            assert not (turn.running and turn.pid in self.held), "a held agent runs"
        for pid, account in self.accounts.items():
            assert account.leased == sum(turn.lease for turn in self.of(pid)), "an account and the leases of its turns differ"
            assert account.turns == {turn.id for turn in self.turns.values() if turn.pid == pid}, "an account and its turns differ"
