"""The scheduler, a device that honours leases, and wires on which commands and reports are late; `check()` after every event."""

from collections import deque
from dataclasses import dataclass, field

from kernos.kernel.core.lanes import UNBOUNDED
from kernos.kernel.core.policies import POLICIES, PolicyName
from kernos.kernel.core.scheduler import (
    Action,
    Ended,
    Event,
    Extend,
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

LANES = ("a", "b")


@dataclass
class Sequence:
    """A turn on the device."""

    seq: int
    turn: int
    lane: str
    left: int
    lease: int


@dataclass
class Device:
    """What a device server does with commands, token by token."""

    slots: int
    sequences: dict[int, Sequence] = field(default_factory=dict)
    idle_steps: int = 0
    """Times a sequence wanted to go on and had no lease."""

    def apply(self, command: "Sequence | tuple[int, int] | int") -> None:
        if isinstance(command, Sequence):
            taken = [sequence for sequence in self.sequences.values() if sequence.lane == command.lane]
            assert len(taken) < self.slots, "begun without a free slot"
            self.sequences[command.seq] = command
        elif isinstance(command, tuple):
            if command[0] in self.sequences:
                self.sequences[command[0]].lease += command[1]
        else:
            self.sequences.pop(command, None)

    def step(self, most: int) -> list[tuple[int, int, bool]]:
        """(seq, tokens, finished) of every sequence with a lease; at most so many tokens each."""
        reports = []
        for sequence in list(self.sequences.values()):
            tokens = min(most, sequence.lease, sequence.left)
            if not tokens:
                self.idle_steps += 1
                continue
            sequence.lease -= tokens
            sequence.left -= tokens
            if not sequence.left:
                del self.sequences[sequence.seq]
            reports.append((sequence.seq, tokens, not sequence.left))
        return reports


class Rig:
    """The scheduler, its device, and the slow wires between them; the part of `Turns` that numbers sequences is done here."""

    def __init__(self, slots: int, policy: PolicyName = "fair", pages: int = UNBOUNDED) -> None:
        self.scheduler = Scheduler(POLICIES[policy])
        self.slots = slots
        self.pages = pages
        self.device = Device(slots)
        self.to_device: deque[Sequence | tuple[int, int] | int] = deque()
        self.to_kernel: deque[tuple[int, int, bool]] = deque()
        self.turn_of: dict[int, int] = {}
        """Also of a sequence that was stopped, until its turn is begun again: its last reports may be on their way."""
        self.seq_of: dict[int, int] = {}
        self.wanted: dict[int, int] = {}
        self.produced: dict[int, int] = {}
        self.ended: set[int] = set()
        self.withdrawn: set[int] = set()
        self.seqs = 0
        self.lanes_up: set[str] = set()

    def handle(self, event: Event) -> list[Action]:
        actions = self.scheduler.handle(event, 0.0)
        if isinstance(event, LaneUp):
            self.lanes_up.add(event.lane)
        elif isinstance(event, LaneDown):
            self.lanes_up.discard(event.lane)
        self.scheduler.check()
        self.check_order()
        for action in actions:
            self.act(action)
        return actions

    def act(self, action: Action) -> None:
        match action:
            case Start(turn, lease):
                self.unseat(turn)
                self.seqs += 1
                self.turn_of[self.seqs], self.seq_of[turn] = turn, self.seqs
                assert lease > 0
                left = self.wanted[turn] - self.produced[turn]
                self.to_device.append(Sequence(self.seqs, turn, self.scheduler.turns[turn].lane, left, lease))
            case Extend(turn, tokens):
                assert tokens > 0
                self.to_device.append((self.seq_of[turn], tokens))
            case Stop(turn):
                self.to_device.append(self.seq_of[turn])

    def unseat(self, turn: int) -> None:
        self.turn_of.pop(self.seq_of.pop(turn, 0), None)

    def check_order(self) -> None:
        """There is room for all that run, none for the next that waits even without those less urgent, and no token is counted twice."""
        rank = self.scheduler.policy.rank
        for name in self.lanes_up:
            running = [turn for turn in self.scheduler.turns.values() if turn.lane == name and turn.running]
            assert len(running) == 1 or sum(turn.pages for turn in running) <= self.pages
            waiting = self.waiting(name)
            if waiting:
                rest = [turn for turn in running if rank(turn) <= rank(waiting[0])]
                assert len(rest) == self.slots or sum(turn.pages for turn in [*rest, waiting[0]]) > self.pages
                assert rest, "the next turn waits for less urgent ones"
        for turn in self.scheduler.turns.values():
            assert turn.tokens_left == self.wanted[turn.id] - self.produced[turn.id]

    def waiting(self, lane: str) -> list[Turn]:
        """Turns that wait and may run, the next one first."""
        policy, account = self.scheduler.policy, self.scheduler.account
        turns = [turn for turn in self.scheduler.turns.values() if turn.lane == lane and not turn.running]
        free = [turn for turn in turns if turn.pid not in self.scheduler.held]
        return sorted(free, key=lambda turn: (policy.rank(turn), policy.key(turn, account(turn.pid)), turn.id))

    def submit(self, pid: int, lane: str, rank: int, tokens: int, pages: int = 0) -> int:
        id_ = len(self.wanted) + 1
        self.wanted[id_], self.produced[id_] = tokens, 0
        self.handle(Submitted(Turn(id_, pid, lane, rank, tokens, pages=pages)))
        return id_

    def withdraw(self, turn: int) -> None:
        if turn in self.wanted and turn not in self.ended:
            self.withdrawn.add(turn)
            self.handle(Withdrawn(turn))
            self.unseat(turn)

    def crash(self, lane: str) -> None:
        """The lane is gone with all that ran there; what was under way to the kernel still comes."""
        self.handle(LaneDown(lane))
        for seq, turn in list(self.turn_of.items()):
            if self.scheduler.turns[turn].lane == lane:
                self.unseat(turn)
                assert not self.scheduler.turns[turn].running
                del seq
        self.device.sequences = {seq: row for seq, row in self.device.sequences.items() if row.lane != lane}
        self.to_device = deque(c for c in self.to_device if not (isinstance(c, Sequence) and c.lane == lane))

    def up(self, lane: str) -> None:
        if lane not in self.lanes_up:
            self.handle(LaneUp(lane, self.slots, self.pages))

    def deliver_commands(self, most: int = 1_000_000) -> None:
        for _ in range(min(most, len(self.to_device))):
            self.device.apply(self.to_device.popleft())

    def deliver_reports(self, most: int = 1_000_000) -> None:
        for _ in range(min(most, len(self.to_kernel))):
            seq, tokens, finished = self.to_kernel.popleft()
            turn = self.turn_of.get(seq)
            if turn is None:
                continue  # of a sequence that was stopped meanwhile
            if finished:
                self.produced[turn] += tokens
                self.ended.add(turn)
                self.unseat(turn)
                self.handle(Ended(turn, tokens))
            else:
                self.handle_produced(turn, tokens)

    def handle_produced(self, turn: int, tokens: int) -> None:
        self.produced[turn] += tokens
        self.handle(Produced(turn, tokens))

    def step(self, tokens: int) -> None:
        self.to_kernel.extend(self.device.step(tokens))

    def run_dry(self) -> None:
        """Let everything that is wanted come to its end."""
        for pid in list(self.scheduler.held):
            self.handle(Released(pid))
        for lane in LANES:
            self.up(lane)
        for _ in range(10_000):
            if not self.scheduler.turns:
                return
            self.deliver_commands()
            self.step(3)
            self.deliver_reports()
        raise AssertionError(f"turns that never end: {self.scheduler.turns}")

    def check_end(self) -> None:
        for id_, wanted in self.wanted.items():
            assert (id_ in self.ended) != (id_ in self.withdrawn)
            assert self.produced[id_] == wanted or id_ in self.withdrawn
        assert sum(account.service for account in self.scheduler.accounts.values()) == sum(self.produced.values())
