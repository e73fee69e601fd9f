"""What the kernel needs of the world: a clock, sockets, threads and child processes. The loop is the real one; tests bring their own."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Protocol, TypeVar

from .devices.messages import AnyCommand

if TYPE_CHECKING:
    from .tickets import Ticket

T = TypeVar("T")


class Delivery(Enum):
    """What became of a message to a client."""

    SENT = "sent"
    FULL = "full"
    """Its queue is full: it does not read."""
    GONE = "gone"
    """There is no such connection any more."""


@dataclass(eq=False, slots=True)
class Client:
    """One connection, as the sockets see it. The principal was proven by its key, whose badge libzmq stamps on every message."""

    address: bytes
    principal: str
    os_pid: int
    control: bool
    start_time: int = 0
    """Of its program, as in `Process`."""
    cut_off: bool = False
    badge: str = ""
    tickets: "dict[int, Ticket]" = field(default_factory=dict)


class Timer(Protocol):
    """Something that will happen unless it is cancelled."""

    def cancel(self) -> None:
        """Let it not happen."""
        ...


class Host(Protocol):
    """The world."""

    @property
    def now(self) -> float:
        """Seconds on a clock that only goes forward; the same for all that happens in one turn of the loop."""
        ...

    @property
    def clock(self) -> float:
        """Seconds since the Unix epoch, for what outlives this kernel or is read by people."""
        ...

    @property
    def clients(self) -> int:
        """Connections."""
        ...

    def send(self, client: Client, frames: tuple[bytes, bytes]) -> Delivery:
        """Send to a client, without waiting."""
        ...

    def command(self, server: str, command: AnyCommand) -> None:
        """Send to a device server, without waiting; to one that is not up this does nothing."""
        ...

    def start_device(self, server: str) -> int:
        """Start a device server; its process id."""
        ...

    def watch_program(self, os_pid: int, start_time: int) -> bool:
        """Tell the system when a program ends; whether it is there."""
        ...

    def at(self, when: float, act: Callable[[], None]) -> Timer:
        """Do something when the clock has reached `when`."""
        ...

    def offload(self, work: Callable[[], T], then: Callable[[T | Exception], object]) -> None:
        """Do slow work on a thread, then hand its result (or error) back in the loop."""
        ...

    def post(self, act: Callable[[], object]) -> None:
        """Do something in the loop, after what was posted before; may be called in any thread."""
        ...

    def stop(self) -> None:
        """Leave the loop."""
        ...
