"""`system.*`: the kernel itself."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from .bounds import CallId, ShortText
from .call import Call, Done


class Pong(msgspec.Struct, frozen=True):
    """The payload, back again."""

    payload: Annotated[bytes, Meta(max_length=65_536)]


class Device(msgspec.Struct, frozen=True):
    """A device server."""

    device: ShortText
    state: Literal["starting", "up", "restarting", "failed"]
    os_pid: int
    accelerator: ShortText
    rows: int
    """Sequences that hold a slot."""
    slots: int
    restarts: int


class PageUse(msgspec.Struct, frozen=True):
    """The KV pages of a loaded model in one tier of memory."""

    model: ShortText
    tier: Literal["device", "host", "disk"]
    slots: int
    held: int
    """Pages of turns that wait and of conversations that are kept; each counts once, however many share it."""
    cached: int
    """Pages that nobody holds: beginnings that somebody may come back to, the first to go."""


class Status(msgspec.Struct, frozen=True):
    """How the kernel does."""

    version: ShortText
    abi: ShortText
    os_pid: int
    uptime_s: float
    boot_ms: float
    """From the start of the process to the open sockets."""
    state: Literal["serving", "draining"]
    clients: int
    agents: int
    calls: int
    refused: int
    in_flight: int
    queued_turns: int
    policy: ShortText
    """Hash of the policy in force."""
    devices: Annotated[list[Device], Meta(max_length=1_024)]
    pages: Annotated[list[PageUse], Meta(max_length=4_096)] = []
    damage: ShortText = ""
    """What this kernel found lost of the database when it started; empty: nothing."""


class Ping(Call[Pong], tag="system.ping", frozen=True):
    """The null call."""

    payload: Annotated[bytes, Meta(max_length=65_536)] = b""


class GetStatus(Call[Status], tag="system.status", frozen=True):
    """How the kernel does."""


class Cancel(Call[Done], tag="system.cancel", frozen=True):
    """End one of the principal's own calls in flight; it fails with `CancelledError`. An id that is not in flight is no error."""

    id: CallId


class BackedUp(msgspec.Struct, frozen=True):
    """A backup that was written: its bytes, and how many commits it holds."""

    size: int
    commits: int


class BackUp(Call[BackedUp], tag="system.backup", frozen=True):
    """Copy the database into a file that is not there yet, encrypted under its own key, while it goes on being used.

    The kernel writes the file, so the path is absolute and the kernel's user must be allowed to write there.
    """

    path: Annotated[str, Meta(max_length=1_024, pattern=r"^/")]


class StopKernel(Call[Done], tag="system.stop", frozen=True):
    """End the kernel; with `drain`, first let the calls in flight end (new ones are refused meanwhile)."""

    drain: bool = False
