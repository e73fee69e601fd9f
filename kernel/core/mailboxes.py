"""Mail: bounded boxes, first in first out, and readers who wait for one. Pure."""

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from ..limits import MAILBOX, MAILBOXES

M = TypeVar("M")
W = TypeVar("W")


class FullError(Exception):
    """The box, or the whole post office, takes no more."""


@dataclass
class Mailboxes(Generic[M, W]):
    """Mail `M` in boxes by name, and readers `W`, each waiting at one box."""

    boxes: dict[str, deque[M]] = field(default_factory=dict)
    readers: dict[str, deque[W]] = field(default_factory=dict)

    def send(self, to: str, mail: M) -> W | None:
        """Put a mail into a box, or return the reader who waits for it. `FullError` leaves everything as it was."""
        if waiting := self.readers.get(to):
            return self._leave(to, waiting)
        if to not in self.boxes and len(self.boxes) >= MAILBOXES:
            raise FullError(f"there are {MAILBOXES} boxes with mail")
        box = self.boxes.setdefault(to, deque())
        if len(box) >= MAILBOX:
            raise FullError(f"the box holds {MAILBOX} mails")
        box.append(mail)
        return None

    def take(self, box: str) -> M | None:
        """The oldest mail of a box; an empty box is forgotten."""
        mails = self.boxes.get(box)
        if not mails:
            return None
        mail = mails.popleft()
        if not mails:
            del self.boxes[box]
        return mail

    def wait(self, box: str, reader: W) -> None:
        """Let a reader wait at an empty box."""
        self.readers.setdefault(box, deque()).append(reader)

    def waiting(self, box: str) -> W | None:
        """The reader who has waited longest at a box; he waits no longer."""
        readers = self.readers.get(box)
        return self._leave(box, readers) if readers else None

    def give_up(self, box: str, reader: W) -> None:
        """A reader waits no longer."""
        waiting = self.readers.get(box)
        if waiting and reader in waiting:
            waiting.remove(reader)
            if not waiting:
                del self.readers[box]

    def count(self, box: str) -> int:
        """Mails in a box."""
        return len(self.boxes.get(box, ()))

    def close(self, box: str) -> None:
        """Forget a box and its mail, when its owner has ended."""
        self.boxes.pop(box, None)

    def _leave(self, box: str, waiting: deque[W]) -> W:
        reader = waiting.popleft()
        if not waiting:
            del self.readers[box]
        return reader
