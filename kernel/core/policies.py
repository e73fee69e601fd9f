"""Who goes first: six scheduling policies behind one small interface, each on a few lines.

A policy orders turns; everything else (slots, leases, aging, holding) is the scheduler's. `rank` splits turns into classes, of which a
more urgent one takes slots from a less urgent one at once. Within a class `key` says who is next, and `gives_way` whether a running
turn leaves its slot, at the end of a lease, for the next one. A key may only grow while its turn waits: the queues rely on it.
"""

from typing import TYPE_CHECKING, Literal, Protocol

from ..limits import LEVEL_TOKENS

if TYPE_CHECKING:
    from .accounts import Account
    from .scheduler import Turn

Key = tuple[float, ...]

PolicyName = Literal["fair", "fifo", "rr", "priority", "mlfq", "deadline"]


class Policy(Protocol):
    """An order of turns. Stateless: what it needs to know is in the turn and in the account of its agent."""

    by_service: bool
    """Whether it compares what agents were served: then a prompt is a part of its turn's first quantum."""

    def rank(self, turn: "Turn") -> int:
        """The class of a turn; 0 is the most urgent."""
        ...

    def key(self, turn: "Turn", account: "Account") -> Key:
        """The place of a turn in its class; the smallest is next."""
        ...

    def gives_way(self, running: Key, waiting: Key) -> bool:
        """Whether a turn that has run its quantum leaves its slot for one of its class that waits."""
        ...


class Fair:
    """Strict classes; within one, the agent with the least weighted service is next (virtual token counter, Sheng et al. 2024)."""

    by_service = True

    def rank(self, turn: "Turn") -> int:
        """The class of the agent."""
        return turn.rank

    def key(self, turn: "Turn", account: "Account") -> Key:
        """Virtual service, so that splitting work into many turns gains nothing; then order of arrival."""
        return (account.position, turn.arrived)

    def gives_way(self, running: Key, waiting: Key) -> bool:
        """Whoever is ahead of another. Both counters are of agents with work, so the lead is what was served too much."""
        return running[0] > waiting[0]


class Fifo:
    """First come, first served, whatever the class: the baseline."""

    by_service = False

    def rank(self, turn: "Turn") -> int:  # noqa: ARG002
        """One class for all."""
        return 0

    def key(self, turn: "Turn", account: "Account") -> Key:  # noqa: ARG002
        """Order of arrival."""
        return (turn.arrived,)

    def gives_way(self, running: Key, waiting: Key) -> bool:  # noqa: ARG002
        """Never."""
        return False


class RoundRobin(Fifo):
    """Every turn in its turn, a quantum at a time."""

    def key(self, turn: "Turn", account: "Account") -> Key:  # noqa: ARG002
        """Who has waited longest since arriving or leaving a slot."""
        return (turn.queued,)

    def gives_way(self, running: Key, waiting: Key) -> bool:  # noqa: ARG002
        """Always."""
        return True


class Priority(Fair):
    """Strict classes; within one, first come, first served, to the end."""

    by_service = False

    def key(self, turn: "Turn", account: "Account") -> Key:  # noqa: ARG002
        """Order of arrival."""
        return (turn.arrived,)

    def gives_way(self, running: Key, waiting: Key) -> bool:  # noqa: ARG002
        """Never within a class."""
        return False


class Mlfq(Fair):
    """Strict classes; within one, feedback queues: the less an agent has been served, the higher its queue, which doubles by level.

    The service is that of the agent over all its turns (as in Autellix' PLAS), so an agent cannot stay on top by many short turns.
    """

    def key(self, turn: "Turn", account: "Account") -> Key:
        """The level, then who has waited longest in it."""
        level = max(0, int(account.service) // LEVEL_TOKENS).bit_length()
        return (level, turn.queued)

    def gives_way(self, running: Key, waiting: Key) -> bool:
        """To a queue as high or higher: within a level it is round robin."""
        return waiting[0] <= running[0]


class Deadline(Fair):
    """Strict classes; within one, the earliest deadline is next; calls without one come last, by arrival."""

    by_service = False

    def key(self, turn: "Turn", account: "Account") -> Key:  # noqa: ARG002
        """The deadline."""
        return (turn.deadline, turn.arrived)

    def gives_way(self, running: Key, waiting: Key) -> bool:
        """To an earlier deadline."""
        return waiting[0] < running[0]


POLICIES: dict[PolicyName, Policy] = {
    "fair": Fair(),
    "fifo": Fifo(),
    "rr": RoundRobin(),
    "priority": Priority(),
    "mlfq": Mlfq(),
    "deadline": Deadline(),
}
