"""The form of the audit log: one JSON object a line, each sealed on the line before. Pure, and without I/O.

The seal of a line is an HMAC-SHA256, cut to 128 bits, over the seal of the line before and the line's own bytes, and stands at its end. So
whoever lacks the key can change, add, move or take out no line unseen, but for cutting off the end. Whoever has the key can make the
whole chain anew; against both the head of the chain is kept elsewhere, as an `Anchor` (see `ledger.py`).
"""

import hmac
from collections.abc import Iterator
from typing import Final

import msgspec

from kernos.syscalls.audit import Entry

ZERO: Final = "0" * 32
"""What the first line of all is sealed on."""

_MARK: Final = b',"seal":"'
_TAIL: Final = len(_MARK) + len(ZERO) + len(b'"}')

_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(Entry)


class Position(msgspec.Struct, frozen=True):
    """A place between two lines of a file: the number and seal of the line before it, and the bytes up to it."""

    number: int
    seal: str
    size: int


class BrokenError(Exception):
    """The line after `at` is not what was written there; `then` is the place from which the chain can be followed again."""

    def __init__(self, what: str, at: Position, then: Position | None) -> None:
        super().__init__(what)
        self.at = at
        self.then = then


class CutError(BrokenError):
    """The file ends within a line: what a crash leaves of a last write."""


def seal(key: bytes, before: str, body: bytes) -> str:
    """The seal of a line on that of the line before; `body` is the line without its own."""
    return hmac.digest(key, before.encode() + body, "sha256")[: len(ZERO) // 2].hex()


def write(key: bytes, before: str, entry: Entry) -> tuple[bytes, str]:
    """An entry as a line, with its end, and the line's seal."""
    body = _encode(entry)
    mark = seal(key, before, body)
    return body[:-1] + _MARK + mark.encode() + b'"}\n', mark


def read(line: bytes) -> Entry:
    """The entry in a line, unchecked; raises `msgspec.MsgspecError` or `UnicodeDecodeError` if it is none."""
    return _decoder.decode(line)


def follow(key: bytes, data: bytes, start: Position) -> Iterator[Position]:
    """The place behind each line of a file from `start` on; raises `BrokenError` at the first line that does not belong there."""
    at = start
    while at.size < len(data):
        at = _step(key, data, at)
        yield at


def _step(key: bytes, data: bytes, at: Position) -> Position:
    end = data.find(b"\n", at.size)
    if end < 0:
        raise CutError(f"the file ends within entry {at.number + 1}, {len(data) - at.size} bytes into it", at, None)
    line = data[at.size : end]
    body, stated = line[:-_TAIL] + b"}", line[-_TAIL:][len(_MARK) : -2]
    number = number_of(line)
    # As it states its own seal, what follows can be checked even though this line is wrong.
    then = Position(at.number + 1 if number is None else number, stated.decode("ascii", "replace"), end + 1)
    if number is not None and number != at.number + 1:
        raise BrokenError(f"entry {at.number + 1} should stand here, and {number} does", at, then)
    whole = number is not None and line.endswith(b'"}') and line[-_TAIL:].startswith(_MARK)
    if not whole or not hmac.compare_digest(seal(key, at.seal, body).encode(), stated):
        raise BrokenError(f"entry {at.number + 1} was changed, or one before it was", at, then)
    return then


def number_of(line: bytes) -> int | None:
    """The number that a line gives itself; `None` if it is no entry."""
    try:
        return read(line).number
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
