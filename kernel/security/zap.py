"""The ZeroMQ Authentication Protocol (RFC 27), server side, as a pure function of a request's frames.

Our own and not pyzmq's, because the reply's user id shall be the principal's name, so that libzmq itself stamps it on every message of
the connection; and because a key that is enrolled must count at once, without reading a folder of certificates again.
"""

import os

from kernos.syscalls.keys import key_text

from .identity import Identities

VERSION = b"1.0"


def answer_zap(frames: list[bytes], identities: Identities) -> list[bytes]:
    """The reply to a handshake: 200 and the principal's name, or 400 and the reason."""
    request_id = frames[1] if len(frames) > 1 else b""
    principal, reason = _judge(frames, identities)
    if principal is None:
        return [VERSION, request_id, b"400", reason.encode(), b"", b""]
    return [VERSION, request_id, b"200", b"OK", principal.encode(), b""]


def _judge(frames: list[bytes], identities: Identities) -> tuple[str | None, str]:
    if len(frames) != 7 or frames[0] != VERSION or frames[5] != b"CURVE" or len(frames[6]) != 32:
        return None, "not a CURVE handshake"
    if not same_user(frames[3].decode("utf-8", "replace")):
        return None, "another Unix user"
    principal = identities.principal(key_text(frames[6]))
    return (principal, "") if principal else (None, "unknown key")


def same_user(address: str) -> bool:
    """Whether the peer of a Unix socket runs under the kernel's uid. libzmq gives its address as `localhost:UID:GID:PID`."""
    parts = address.split(":")
    return len(parts) != 4 or parts[1] == str(os.getuid())


def peer_pid(address: str) -> int:
    """The process id in a Unix peer's address; 0 for a peer on the network."""
    parts = address.split(":")
    return int(parts[3]) if len(parts) == 4 and parts[3].isdigit() else 0
