"""A loaded decoder as the scheduler sees it: its slots, its KV pages, what runs in them, and a queue per class."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from ..limits import QUANTUM_TOKENS
from .queues import Queue

if TYPE_CHECKING:
    from .scheduler import Turn

UNBOUNDED: Final = 1 << 62
"""Pages of a lane that nobody counts."""


class Lane:
    """Kept by the scheduler, which alone changes it."""

    def __init__(self) -> None:
        self.slots = 0
        self.pages = UNBOUNDED
        self.quantum = QUANTUM_TOKENS
        self.used = 0
        """Pages that the running turns need."""
        self.running: set[int] = set()
        self.queues: dict[int, Queue] = {}
        self.served: dict[int, float] = {}
        """When each class last got a slot or began to wait."""
        self.floor: dict[int, float] = {}
        """Per class, the virtual counter of the agent served last."""
        self.quiet = 0
        """Reports of running turns since a slot was last passed on; each step brings one of each."""
        self.aged: int | None = None
        """The turn that runs because its class starved."""

    def first(self) -> int | None:
        """The next turn: of the most urgent class that has one which may run."""
        for rank in sorted(self.queues):
            first = self.queues[rank].first()
            if first is not None:
                return first[1]
        return None

    def upcoming(self, count: int) -> list[int]:
        """The next turns, at most so many; O(count log n)."""
        found: list[int] = []
        for rank in sorted(self.queues):
            found += self.queues[rank].upcoming(count - len(found))
        return found

    def fits(self, turn: "Turn", victims: Sequence["Turn"] = ()) -> bool:
        """Whether a turn has room, once these have left. One that needs more pages than there are has it alone."""
        running = len(self.running) - len(victims)
        used = self.used - sum(victim.pages for victim in victims)
        return running < self.slots and (not running or used + turn.pages <= self.pages)
