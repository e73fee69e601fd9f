"""Frames: what is written is read, and headers of other minor versions are understood."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernos.syscalls import MAJOR, MINOR
from kernos.syscalls.errors import BadRequestError
from kernos.syscalls.system import Ping
from kernos.syscalls.table import request_decoder
from kernos.syscalls.wire import Kind, ReplyHeader, RequestHeader, decode_reply_header, decode_request_header, encode, encode_request

FULL = RequestHeader(1, 2, True, 3, "key", 4, "trace", MAJOR, MINOR)


def test_a_request_is_two_frames() -> None:
    header, body = encode_request(FULL, Ping(payload=b"x"))
    assert decode_request_header(header) == FULL
    assert request_decoder().decode(body) == Ping(payload=b"x")


def test_the_order_of_the_header_is_the_protocol() -> None:
    assert msgspec.msgpack.decode(encode(FULL)) == [1, 2, True, 3, "key", 4, "trace", MAJOR, MINOR]
    assert msgspec.msgpack.decode(encode(ReplyHeader(1, Kind.EVENT))) == [1, 2, MAJOR, MINOR]


def test_the_numbers_of_the_kinds_are_the_protocol() -> None:
    assert [kind.value for kind in (Kind.REPLY, Kind.ERROR, Kind.EVENT, Kind.CUT_OFF)] == [0, 1, 2, 3]


@pytest.mark.parametrize("length", range(1, 10))
def test_a_shorter_header_takes_defaults(length: int) -> None:
    short = msgspec.structs.astuple(FULL)[:length]
    assert decode_request_header(encode(short)) == RequestHeader(*short)


def test_a_longer_header_is_read_as_far_as_it_is_known() -> None:
    assert decode_request_header(encode([*msgspec.structs.astuple(FULL), {"of": "tomorrow"}, 1])) == FULL
    assert decode_reply_header(encode([1, 9, MAJOR, MINOR + 1, "tomorrow"])) == ReplyHeader(1, 9, MAJOR, MINOR + 1)


def test_a_longer_body_is_read_as_far_as_it_is_known() -> None:
    body = encode({"call": "system.ping", "payload": b"x", "of_tomorrow": [1]})
    assert request_decoder().decode(body) == Ping(payload=b"x")


BROKEN = {
    "nothing": b"",
    "empty": encode([]),
    "map": encode({"id": 1}),
    "text id": encode(["1"]),
    "negative id": encode([-1]),
    "id too large": encode([1 << 63]),
    "pid too large": encode([1, (1 << 53) + 1]),
    "no time": encode([1, 0, False, 0]),
    "too much time": encode([1, 0, False, 86_400_001]),
    "long key": encode([1, 0, False, None, "k" * 65]),
    "long trace": encode([1, 0, False, None, None, None, "t" * 65]),
    "cut": encode(FULL)[:-1],
    "trailing": encode(FULL) + b"\0",
    "bad utf-8": b"\x95\x01\x00\xc2\xc0\xa1\xff",
    "deep": b"\x99" + encode(1) + b"\x91" * 100_000,
    "claims 4 GB": b"\x95\x01\x00\xc2\xc0\xdb\xff\xff\xff\xff",
    "claims 4 G items": b"\xdd\xff\xff\xff\xff\x01",
}


@pytest.mark.parametrize("frame", BROKEN.values(), ids=BROKEN)
def test_what_is_no_header_is_a_bad_request(frame: bytes) -> None:
    with pytest.raises(BadRequestError, match="header"):
        decode_request_header(frame)


@given(st.binary(max_size=64))
def test_any_bytes_are_a_header_or_a_bad_request(frame: bytes) -> None:
    try:
        header = decode_request_header(frame)
    except BadRequestError:
        return
    assert decode_request_header(encode(header)) == header
