"""A ticket is one call in flight: who asked, as which agent, until when, and the way to answer."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kernos.syscalls.errors import KernosError
from kernos.syscalls.table import Row

from .core.processes import Process
from .core.quotas import Payers
from .host import Client, Timer

if TYPE_CHECKING:
    from .gate import Gate


class Ticket:
    """Made by the gate; a handler that cannot answer at once keeps it and returns `LATER`.

    Exactly one of `reply` and `fail` ends it; what comes after that is left out, so that a late answer to a cancelled call is harmless.
    """

    __slots__ = ("_gate", "client", "deadline", "id", "key", "on_end", "open", "process", "row", "stream", "timer")

    def __init__(
        self,
        gate: "Gate",
        client: Client,
        id_: int,
        row: Row,
        process: Process | None,
        stream: bool,
        deadline: float | None,
        key: str | None,
    ) -> None:
        self._gate = gate
        self.client = client
        self.id = id_
        self.row = row
        self.process = process
        self.stream = stream
        self.deadline = deadline
        self.key = key
        self.open = True
        self.on_end: Callable[[], object] | None = None
        """Called when somebody else than the handler ends the call: undo what was begun."""
        self.timer: Timer | None = None

    @property
    def principal(self) -> str:
        """Whose connection asked."""
        return self.client.principal

    @property
    def agent(self) -> Process:
        """The agent that asked; for calls whose row demands one."""
        assert self.process is not None, f"{self.row.name} is not marked as needing an agent"  # noqa: S101
        return self.process

    @property
    def payers(self) -> Payers:
        """Who is charged for the call."""
        return self.process.payers if self.process is not None else (self.principal,)

    def reply(self, value: Any) -> bool:
        """End the call with its reply; whether it could be sent."""
        return self._gate.finish(self, value)

    def fail(self, error: KernosError) -> None:
        """End the call with an error."""
        self._gate.fail(self, error)

    def event(self, value: Any) -> None:
        """Send an event, if the caller wants events."""
        if self.stream and self.open:
            self._gate.event(self, value)


class Later:
    """The type of `LATER`."""


LATER = Later()
"""What a handler returns when it has kept the ticket."""
