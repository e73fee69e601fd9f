"""Frames. A message is two frames, header and body, each msgpack; no sockets here.

Headers are positional arrays, because one goes with every message and their shape is the protocol's own; new fields go to the end, and
a reader ignores those it does not know. Bodies are maps, so that calls can grow fields in any order.
"""

from enum import IntEnum
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from .bounds import CallId, Pid
from .call import Call
from .errors import BadRequestError, ErrorBody
from .version import MAJOR, MINOR


class Kind(IntEnum):
    """What a message from the kernel is."""

    REPLY = 0
    """The last word on a call."""
    ERROR = 1
    """The last word on a call: an `ErrorBody`."""
    EVENT = 2
    """One of a stream's events."""
    CUT_OFF = 3
    """An `ErrorBody` that ends every call in flight of this connection."""


class RequestHeader(msgspec.Struct, frozen=True, array_like=True):
    """What goes before every request."""

    id: CallId
    pid: Pid = 0
    """The agent that calls."""
    stream: bool = False
    """Whether events are wanted."""
    timeout_ms: Annotated[int, Meta(ge=1, le=86_400_000)] | None = None
    """Time the kernel has to answer, from when it gets the call; relative, so the clocks need not agree."""
    key: Annotated[str, Meta(max_length=64)] | None = None
    """Idempotency key: the same key of the same principal within a day is the same call, applied once."""
    cause: CallId | None = None
    """The call that led to this one."""
    trace: Annotated[str, Meta(max_length=64)] | None = None
    """W3C traceparent."""
    major: int = MAJOR
    minor: int = MINOR


class ReplyHeader(msgspec.Struct, frozen=True, array_like=True):
    """What goes before every message of the kernel."""

    id: int
    kind: Annotated[int, Meta(ge=0)]
    """A `Kind`; kept a plain number so that a newer kernel's kinds can be skipped."""
    major: int = MAJOR
    minor: int = MINOR


_encoder: Final = msgspec.msgpack.Encoder()
_request_header: Final = msgspec.msgpack.Decoder(RequestHeader)
_reply_header: Final = msgspec.msgpack.Decoder(ReplyHeader)
_error_body: Final = msgspec.msgpack.Decoder(ErrorBody)

encode = _encoder.encode
decode_reply_header = _reply_header.decode
decode_error = _error_body.decode


def encode_request(header: RequestHeader, call: Call[Any]) -> tuple[bytes, bytes]:
    """The frames of a request."""
    return encode(header), encode(call)


def decode_request_header(frame: bytes) -> RequestHeader:
    """The header of a request; `BadRequestError` if it is not one."""
    try:
        return _request_header.decode(frame)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        # The last two are no MsgspecError, but bytes from outside raise them all the same.
        raise BadRequestError(f"The header frame is not a request header: {error}. See docs/wire.md.") from None
