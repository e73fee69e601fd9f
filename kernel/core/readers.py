"""Readers who wait at boxes that are empty, each box's in the order in which they came. Pure; the mail itself is in the database."""

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

W = TypeVar("W")


@dataclass
class Readers(Generic[W]):
    """Readers `W` by box; a box without any is forgotten."""

    waiting: dict[str, deque[W]] = field(default_factory=dict)

    def wait(self, box: str, reader: W) -> None:
        """Let a reader wait."""
        self.waiting.setdefault(box, deque()).append(reader)

    def next(self, box: str) -> W | None:
        """The reader who has waited longest; he waits no longer."""
        readers = self.waiting.get(box)
        if readers is None:
            return None
        reader = readers.popleft()
        self._tidy(box)
        return reader

    def give_up(self, box: str, reader: W) -> None:
        """A reader waits no longer, if he did."""
        readers = self.waiting.get(box)
        if readers is not None and reader in readers:
            readers.remove(reader)
            self._tidy(box)

    def _tidy(self, box: str) -> None:
        if not self.waiting[box]:
            del self.waiting[box]
