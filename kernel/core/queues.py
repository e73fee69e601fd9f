"""The queue of one class of one lane: the next turn in O(log n), though keys grow while turns wait.

A heap of (key, order, turn). Keys only grow, so an entry is never too late, only too early: when it comes up, its key is computed
again, and if it has grown the entry goes back where it belongs. Turns that left are dropped when they come up.
"""

import heapq
from collections.abc import Callable

from .policies import Key


class Queue:
    """Waiting turns by id; `key_of` gives a turn's present key, or None if it may not run now (its agent is held)."""

    def __init__(self, key_of: Callable[[int], Key | None]) -> None:
        self._key_of = key_of
        self._heap: list[tuple[Key, int]] = []
        self._waiting: set[int] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    def push(self, id_: int) -> None:
        """Let a turn wait here."""
        self._waiting.add(id_)
        self.wake(id_)

    def wake(self, id_: int) -> None:
        """A turn that waits here may run again."""
        key = self._key_of(id_)
        if key is not None and id_ in self._waiting:
            heapq.heappush(self._heap, (key, id_))

    def remove(self, id_: int) -> None:
        """A turn waits no longer."""
        self._waiting.discard(id_)

    def first(self) -> tuple[Key, int] | None:
        """The next turn and its key, or None."""
        while self._heap:
            key, id_ = self._heap[0]
            now = self._key_of(id_) if id_ in self._waiting else None
            if now == key:
                return key, id_
            if now is None:
                heapq.heappop(self._heap)
            else:
                heapq.heapreplace(self._heap, (now, id_))
        return None

    def upcoming(self, count: int) -> list[int]:
        """The next turns in order, at most so many; all go on waiting."""
        taken: dict[int, tuple[Key, int]] = {}
        while len(taken) < count and self.first() is not None:
            entry = heapq.heappop(self._heap)
            taken[entry[1]] = entry  # a turn that was woken can have two entries; one goes back
        for entry in taken.values():
            heapq.heappush(self._heap, entry)
        return list(taken)
