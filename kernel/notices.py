"""Notice to agents before messages leave a window, so that they can write a summary of them first. See `core/notices.py`.

Nothing of it outlives the kernel: the next one pages out as if nobody watched, until an agent watches again.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from kernos.syscalls.context import AwaitNotice, Notice
from kernos.syscalls.errors import NotFoundError

from .core import notices as core
from .core.notices import Watcher
from .limits import NOTICE_MESSAGES, NOTICE_S
from .memory import transcripts
from .memory.connection import Connection
from .tickets import Ticket

if TYPE_CHECKING:
    from .system import System

Turn = Callable[[None], None]
"""Goes on with a turn; `None`: if it has not ended."""


class Notices:
    """Watchers are calls, and what waits for them are turns."""

    def __init__(self, system: "System") -> None:
        self.system = system
        self._core: core.Notices[Ticket, Turn] = core.Notices()

    def watch(self, ticket: Ticket, call: AwaitNotice) -> None:
        """Let a call wait for the next notice."""
        ticket.on_end = lambda: self._core.give_up(call.context, ticket)
        _go_on(self._core.watch(call.context, Watcher(ticket.agent.pid, min(call.grace, NOTICE_S), ticket)))

    def give(self, id_: str, until: int) -> None:
        """Tell those who watch a context that messages before `until` are about to leave."""
        for watcher in self._core.give(id_, until, self.system.host.now):
            watcher.reader.on_end = None
            watcher.reader.then(partial(self._tell, watcher.reader))(id_)

    def until(self, id_: str) -> int:
        """Before which message all were told of; 0: of none."""
        return self._core.until(id_)

    def wait(self, ticket: Ticket, id_: str, patience: float, then: Callable[[None], object]) -> bool:
        """Whether a turn has to wait for those who were told, and goes on with `then`; no longer than `patience`, a time of the clock."""
        now = self.system.host.now
        if now >= patience or self._core.may_leave(id_, now):
            return False
        turn = ticket.then(then)
        deadline = self._core.wait(id_, turn)
        self.system.host.at(min(deadline, patience), lambda: _go_on(self._core.give_in(id_, turn)))
        return True

    def summarized(self, id_: str, pid: int, stop: int) -> None:
        """An agent has written a summary that ends before message `stop`: if that is all it was told of, nobody waits for it any more."""
        if stop >= self._core.until(id_):
            _go_on(self._core.back(id_, pid))

    def ended(self, pid: int) -> None:
        """An agent has ended."""
        _go_on(self._core.ended(pid))

    def forget(self, id_: str) -> None:
        """A context has gone back in its history."""
        _go_on(self._core.forget(id_))

    def delete(self, id_: str) -> None:
        """A context was deleted."""
        for ticket in self._core.delete(id_):
            ticket.fail(NotFoundError(f"The context {id_} was deleted. There will be no notice of it."))
        self.forget(id_)

    def _tell(self, ticket: Ticket, id_: str) -> None:
        """Answer a watcher with the messages. One that cannot be told is not waited for."""
        notice, actor = self._core.given[id_], self.system.contexts.actor(id_, ticket.agent)
        deadline = self.system.storage.clock + notice.deadline - self.system.host.now

        def query(connection: Connection) -> Notice:
            row = transcripts.find(connection, actor, id_, "own")
            start, stop = max(notice.start, row.resident), min(notice.until, row.length)
            found = transcripts.messages_of(connection, row, start, min(stop, start + NOTICE_MESSAGES))
            return Notice(id_, start, max(start, stop), [message.said for message in found], deadline, list(row.labels))

        def told(answer: Notice) -> None:
            if not ticket.reply(answer):
                _go_on(self._core.back(id_, ticket.agent.pid))

        self.system.storage.fetch(ticket, query, told)


def _go_on(turns: list[Turn]) -> None:
    for turn in turns:
        turn(None)
