"""Notice that messages are about to leave a window: who waits for it, who was given it, and what waits for them. Pure.

Of a context's messages each agent that watches it is told once, before they leave. What would take them out waits until all who were told
are back (they watch again, have written of the last message, or have ended), and no longer than the deadline. So nothing waits for ever;
where nobody watches, or whoever was told is still busy with it when the deadline has passed, nothing waits at all.
"""

from dataclasses import dataclass, field
from typing import Generic, TypeVar

W = TypeVar("W")
"""How a watcher is answered."""
T = TypeVar("T")
"""What waits."""


@dataclass(frozen=True)
class Watcher(Generic[W]):
    """An agent that waits for the next notice, and for how many seconds at most it wants what it is told of to stay."""

    pid: int
    grace: float
    reader: W


@dataclass
class Notice(Generic[T]):
    """Messages `start` to `until` are about to leave, which the agents `told` know; the `busy` ones are not back yet."""

    start: int
    until: int
    deadline: float
    told: set[int]
    busy: set[int]
    waiting: list[T] = field(default_factory=list)


@dataclass
class Notices(Generic[W, T]):
    """Watchers, and the last notice of each context."""

    watching: dict[str, list[Watcher[W]]] = field(default_factory=dict)
    given: dict[str, Notice[T]] = field(default_factory=dict)

    def watch(self, id_: str, watcher: Watcher[W]) -> list[T]:
        """An agent waits for the next notice of a context, and so is back from the last; what need not wait any more."""
        self.watching.setdefault(id_, []).append(watcher)
        return self.back(id_, watcher.pid)

    def give_up(self, id_: str, reader: W) -> None:
        """A watcher waits no longer, if it did."""
        left = [watcher for watcher in self.watching.get(id_, ()) if watcher.reader is not reader]
        if left:
            self.watching[id_] = left
        else:
            self.watching.pop(id_, None)

    def give(self, id_: str, until: int, now: float) -> list[Watcher[W]]:
        """Messages before `until` are about to leave: who is to be told now. Nobody, if they know or are still busy with earlier ones."""
        if until <= self.until(id_) or not self.may_leave(id_, now):
            return []
        last, watchers = self.given.get(id_), self.watching.pop(id_, [])
        if watchers:
            told = {watcher.pid for watcher in watchers}
            deadline = now + max(watcher.grace for watcher in watchers)
            self.given[id_] = Notice(last.until if last else 0, until, deadline, told, {*told}, last.waiting if last else [])
        return watchers

    def until(self, id_: str) -> int:
        """Before which message all were told of; 0: of none."""
        return self.given[id_].until if id_ in self.given else 0

    def may_leave(self, id_: str, now: float) -> bool:
        """Whether nobody has to be waited for."""
        notice = self.given.get(id_)
        return notice is None or not notice.busy or now >= notice.deadline

    def wait(self, id_: str, turn: T) -> float:
        """Something waits for those who were told; the deadline. Pre: it may not leave."""
        self.given[id_].waiting.append(turn)
        return self.given[id_].deadline

    def give_in(self, id_: str, turn: T) -> list[T]:
        """Something has waited long enough; it, if it still waits."""
        waiting = self.given[id_].waiting if id_ in self.given else []
        if turn not in waiting:
            return []
        waiting.remove(turn)
        return [turn]

    def back(self, id_: str, pid: int) -> list[T]:
        """An agent has done what it wanted about the last notice; what need not wait any more."""
        notice = self.given.get(id_)
        if notice is None:
            return []
        notice.busy.discard(pid)
        return self._free(notice)

    def ended(self, pid: int) -> list[T]:
        """An agent has ended; what need not wait any more. What nobody else was told of counts as not told."""
        freed = []
        for id_, notice in list(self.given.items()):
            notice.told.discard(pid)
            freed += self.back(id_, pid)
            if not notice.told:
                del self.given[id_]
        return freed

    def forget(self, id_: str) -> list[T]:
        """Messages are gone or other ones, so that the last notice says nothing; what need not wait any more."""
        notice = self.given.pop(id_, None)
        return notice.waiting if notice is not None else []

    def delete(self, id_: str) -> list[W]:
        """A context is gone; those who wait for notice of it."""
        return [watcher.reader for watcher in self.watching.pop(id_, [])]

    @staticmethod
    def _free(notice: Notice[T]) -> list[T]:
        if notice.busy:
            return []
        freed, notice.waiting = notice.waiting, []
        return freed
