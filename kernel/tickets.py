"""A ticket is one call in flight: who asked, as which agent, until when, and the way to answer."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from kernos.syscalls.call import Call
from kernos.syscalls.errors import KernosError
from kernos.syscalls.table import Row

from .core.processes import Process
from .core.quotas import Payers
from .host import Client, Timer
from .memory.records import Request

if TYPE_CHECKING:
    from .gate import Gate

T = TypeVar("T")


class Ticket:
    """Made by the gate; a handler that cannot answer at once keeps it and returns `LATER`.

    Exactly one of `reply` and `fail` ends it; what comes after that is left out, so that a late answer to a cancelled call is harmless.
    """

    __slots__ = (
        "_gate",
        "asked",
        "call",
        "client",
        "deadline",
        "entry",
        "id",
        "key",
        "on_end",
        "open",
        "process",
        "request",
        "row",
        "stream",
        "timer",
    )

    def __init__(
        self,
        gate: "Gate",
        client: Client,
        id_: int,
        row: Row,
        call: Call[Any],
        process: Process | None,
        stream: bool,
        deadline: float | None,
        request: Request | None,
    ) -> None:
        self._gate = gate
        self.client = client
        self.id = id_
        self.row = row
        self.call = call
        self.process = process
        self.stream = stream
        self.deadline = deadline
        self.request = request
        """What tells it from other calls, if it carries an idempotency key and changes something."""
        self.key = request.key if request is not None else None
        """As long as its outcome is to be remembered under it."""
        self.asked: list[str] | None = None
        """What the policy was asked for it, if the audit log covers it."""
        self.entry = 0
        """Its entry there, if there is one already."""
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
    def source(self) -> str:
        """What is read by it, as people would say it."""
        read = next((value for field in ("context", "path", "mailbox", "tool", "pid") if (value := getattr(self.call, field, None))), "")
        return f"{self.row.name} {read}".rstrip()

    @property
    def payers(self) -> Payers:
        """Who is charged for the call."""
        return self.process.payers if self.process is not None else (self.principal,)

    def reply(self, value: Any) -> bool:
        """End the call with its reply; whether it could be sent."""
        return self._gate.finish(self, value)

    def answer(self, reply: bytes) -> bool:
        """End the call with a reply that is encoded already; whether it could be sent."""
        return self._gate.answer(self, reply)

    def fail(self, error: KernosError) -> None:
        """End the call with an error."""
        self._gate.fail(self, error)

    def then(self, act: Callable[[T], object], *, anyway: bool = False) -> Callable[[T | Exception], None]:
        """What takes an outcome that comes later: it goes on with `act`, if the call has not ended. Errors, also those of `act`, end it.

        With `anyway` it goes on even if the call has ended: the outcome is a change that others must hear of, whoever wants the reply.
        """

        def come(outcome: T | Exception) -> None:
            if isinstance(outcome, Exception):
                self._gate.fault(self, outcome)
            elif anyway or self.open:
                try:
                    act(outcome)
                except Exception as error:
                    self._gate.fault(self, error)

        return come

    def event(self, value: Any) -> None:
        """Send an event, if the caller wants events."""
        if self.stream and self.open:
            self._gate.event(self, value)


class Later:
    """The type of `LATER`."""


LATER = Later()
"""What a handler returns when it has kept the ticket."""
