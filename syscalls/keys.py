"""CURVE key pairs of principals: made, kept in files of mode 0600, and found again."""

import getpass
import os
import re
from pathlib import Path

import msgspec
import zmq
from zmq.utils import z85

from .errors import UnreachableError
from .places import Places


class Key(msgspec.Struct, frozen=True):
    """Who one is: a principal's name and its key pair (Z85 text)."""

    principal: str
    public: str
    secret: str

    def __repr__(self) -> str:
        return f"Key({self.principal}, public={self.public})"


def make_key(principal: str) -> Key:
    """A fresh key pair."""
    public, secret = zmq.curve_keypair()
    return Key(principal, public.decode(), secret.decode())


def key_file(where: Places, principal: str) -> Path:
    """The file of a principal's secret key."""
    return where.keys / f"{principal.replace(':', '-', 1)}.key"


def write_key(where: Places, key: Key, path: Path | None = None) -> Path:
    """Keep a key, in its own file unless another is named.

    The file is born with mode 0600 in a folder of mode 0700, so it is never readable by others, not even for a moment.
    """
    where.keys.mkdir(mode=0o700, parents=True, exist_ok=True)
    where.keys.chmod(0o700)  # it may have been there before
    path = path or key_file(where, key.principal)
    part = path.with_suffix(".part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(msgspec.json.encode(key))
    part.replace(path)
    return path


def read_key(path: Path) -> Key:
    """A key from its file; `UnreachableError` if it is missing, damaged or readable by others."""
    try:
        if path.stat().st_mode & 0o077:
            raise UnreachableError(f"The key file {path} is readable by others. Run `chmod 600 {path}`, and replace the key if it leaked.")
        return msgspec.json.decode(path.read_bytes(), type=Key)
    except FileNotFoundError:
        raise UnreachableError(
            f"There is no key at {path}. The first `kernos serve` makes the administrator's key; `kernos run APP` makes an app's."
        ) from None
    except (PermissionError, msgspec.MsgspecError) as error:
        raise UnreachableError(f"The key file {path} cannot be read: {error}") from None


_passed: list[Key] = []
"""The key that `kernos run` passed: its descriptor can be read once, but a process may connect many times."""


def administrator() -> str:
    """The name of whoever boots a kernel first as this Unix user: an administrator."""
    try:
        return f"admin:{re.sub(r'[^A-Za-z0-9_.-]', '_', getpass.getuser())}"
    except (KeyError, OSError):  # a container whose uid has no name
        return f"admin:uid{os.getuid()}"


def own_key(where: Places) -> Key:
    """The key of this process: from the file descriptor that `kernos run` passes, from `KERNOS_KEY`, else the administrator's."""
    if descriptor := os.environ.pop("KERNOS_KEY_FD", None):
        with os.fdopen(int(descriptor), "rb") as file:
            _passed.append(msgspec.json.decode(file.read(), type=Key))
    if _passed:
        return _passed[-1]
    if path := os.environ.get("KERNOS_KEY"):
        return read_key(Path(path))
    found = sorted(where.keys.glob("admin-*.key"))
    if (own := key_file(where, administrator())) in found:
        return read_key(own)  # there may be keys of further administrators, made here and not carried away yet
    if not found:
        raise UnreachableError(f"No key: KERNOS_KEY is not set and {where.keys} holds no administrator's key. Run `kernos serve` once.")
    return read_key(found[0])


def key_text(raw: bytes) -> str:
    """A public key as text (Z85) from its 32 bytes, as a handshake shows it."""
    return z85.encode(raw).decode()
