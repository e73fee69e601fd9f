"""What the blocking and the async client share: numbering calls, writing their frames, reading their answers. No sockets."""

import secrets
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from .bounds import MAX_MESSAGE_BYTES
from .call import Call
from .errors import BadRequestError, KernelRestartedError, UnknownCallError, raised
from .table import ROWS, Cost, Row
from .wire import Kind, RequestHeader, decode_error, decode_reply_header, encode, encode_request

LIGHT_TIMEOUT_S: Final = 30.0
"""Deadline of calls that are answered at once, if the caller names none. Calls that wait or compute have none unless asked for."""

_LAST: Final = frozenset({int(Kind.REPLY), int(Kind.ERROR), int(Kind.CUT_OFF)})

GRACE_S: Final = 2.0
"""The kernel keeps deadlines and says so; the client gives up by itself only this much later."""


class Request(msgspec.Struct, frozen=True, gc=False):
    """A call ready to be sent."""

    id: int
    row: Row
    frames: tuple[bytes, bytes]
    patience_s: float | None
    """After which the client gives up by itself."""


class Answer(msgspec.Struct, frozen=True, gc=False):
    """A message of the kernel."""

    id: int
    kind: int
    body: bytes


class Numbers:
    """Ids of calls: a random start, so that ids of two clients do not meet, then one by one."""

    def __init__(self) -> None:
        self._last = secrets.randbits(62)

    def take(self) -> int:
        """The next id."""
        self._last += 1
        return self._last


def row_of(call: Call[Any]) -> Row:
    """The row of a call; `UnknownCallError` if it is none."""
    row = ROWS.get(type(call))
    if row is None:
        raise UnknownCallError(f"{type(call).__name__} is not a system call. The calls are listed in docs/syscalls.md.")
    return row


def timeout_of(row: Row, timeout: float | None) -> float | None:
    """Seconds that a call may take; the default of its kind if its caller names none."""
    return LIGHT_TIMEOUT_S if timeout is None and row.cost in (Cost.LIGHT, Cost.DISK) else timeout


def make_request(call: Call[Any], id_: int, pid: int, stream: bool, timeout: float | None, key: str | None) -> Request:
    """Write the frames of a call; `timeout` in seconds. `BadRequestError` if it is too large: the kernel would cut the connection."""
    row = row_of(call)
    limit = None if timeout is None else max(1, int(timeout * 1_000))
    frames = encode_request(RequestHeader(id_, pid, stream, limit, key), call)
    if len(frames[0]) + len(frames[1]) > MAX_MESSAGE_BYTES:
        raise BadRequestError(f"This {row.name} has {len(frames[1])} bytes, and a message has at most {MAX_MESSAGE_BYTES}. Split it.")
    return Request(id_, row, frames, None if timeout is None else timeout + GRACE_S)


def read_answer(frames: Sequence[bytes]) -> Answer:
    """A message of the kernel."""
    header = decode_reply_header(frames[0])
    return Answer(header.id, header.kind, frames[1])


def lost_answer() -> Answer:
    """What a call in flight gets when its connection breaks."""
    error = KernelRestartedError("The connection to the kernel was lost while this call was in flight. Make the call again.")
    return Answer(0, Kind.ERROR, encode(error.body()))


def outcome(row: Row, answer: Answer) -> Any:
    """The reply in the last answer of a call, or its error raised."""
    if answer.kind == Kind.REPLY:
        return row.reply_decoder.decode(answer.body)
    raise raised(decode_error(answer.body))


def event_of(row: Row, answer: Answer) -> Any | None:
    """The event in an answer; None for a kind that only a newer kernel knows."""
    return row.event_decoder.decode(answer.body) if answer.kind == Kind.EVENT else None


def is_last(answer: Answer) -> bool:
    """Whether an answer is the last word on its call."""
    return answer.kind in _LAST
