"""The ZeroMQ Authentication Protocol (RFC 27), server side, as a pure function of a request's frames.

Our own and not pyzmq's, because the reply's user id shall be the badge of the key, so that libzmq itself stamps it on every message of
the connection; and because a key that is enrolled must count at once, without reading a folder of certificates again.
"""

import os

from kernos.syscalls.keys import key_text

from .identity import Holder, Identities

VERSION = b"1.0"


def answer_zap(frames: list[bytes], identities: Identities) -> list[bytes]:
    """The reply to a handshake: 200 and the badge of the key, or 400 and the reason."""
    request_id = frames[1] if len(frames) > 1 else b""
    holder, reason = _judge(frames, identities)
    if holder is None:
        return [VERSION, request_id, b"400", reason.encode(), b"", b""]
    return [VERSION, request_id, b"200", b"OK", holder.badge.encode(), b""]


def _judge(frames: list[bytes], identities: Identities) -> tuple[Holder | None, str]:
    if len(frames) != 7 or frames[0] != VERSION or frames[5] != b"CURVE" or len(frames[6]) != 32:
        return None, "not a CURVE handshake"
    address = frames[3].decode("utf-8", "replace")
    if not same_user(address):
        return None, "another Unix user"
    holder = identities.holder(key_text(frames[6]))
    if holder is not None and holder.os_pid and holder.os_pid != peer_pid(address):
        return None, f"a key of {holder.principal} that was lent to another process"
    return holder, "unknown key"


def same_user(address: str) -> bool:
    """Whether the peer of a Unix socket runs under the kernel's uid. libzmq gives its address as `localhost:UID:GID:PID`."""
    parts = address.split(":")
    return len(parts) != 4 or parts[1] == str(os.getuid())


def peer_pid(address: str) -> int:
    """The process id in a Unix peer's address; 0 for a peer on the network."""
    parts = address.split(":")
    return int(parts[3]) if len(parts) == 4 and parts[3].isdigit() else 0
