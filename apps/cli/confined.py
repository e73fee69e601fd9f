"""A process that gives up what an app does not need, and then becomes the app: `python -m kernos.apps.cli.confined SPEC COMMAND…`.

It may never gain privileges, ends when its launcher does, holds bounded memory, files and file sizes, leaves no core dump, and, where the
system has Landlock, opens nothing but the paths it was given, connects to no TCP port but those it was given, and signals no process
outside. All of it outlives `exec` and binds every child. Only the standard library, and as little of it as will do: each start pays for it.

Landlock is spoken to by number, as the C library has no names for its calls: see landlock(7) and linux/landlock.h.
"""

import ctypes
import json
import os
import resource
import signal
import struct
import sys
from typing import Any, Final

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_VERSION: Final = 1
_PATH_BENEATH, _NET_PORT = 1, 2
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38

# Rights, as bits of linux/landlock.h.
_EXECUTE, _WRITE, _READ, _LIST = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_TRUNCATE, _DEVICE = 1 << 14, 1 << 15
_FOLDERS: Final = 0b1_1111_1111_0000  # remove and make entries of any kind
_REFER: Final = 1 << 13
_BIND, _CONNECT = 1 << 0, 1 << 1
_ABSTRACT_SOCKETS, _SIGNALS = 1 << 0, 1 << 1

_KNOWN: Final = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}
"""Rights to files that a version of Landlock knows; later ones know all that are used here."""

GRANTS: Final[dict[str, int]] = {
    "code": _EXECUTE | _READ | _LIST,
    "read": _READ | _LIST,
    "write": _READ | _LIST | _WRITE | _TRUNCATE | _FOLDERS | _REFER,
    "devices": _READ | _WRITE | _DEVICE,
}
"""What each list of paths in the specification allows."""

_OF_FILES: Final = _EXECUTE | _READ | _WRITE | _TRUNCATE | _DEVICE

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Confine this process and become the command."""
    spec, command = json.loads(sys.argv[1]), sys.argv[2:]
    _end_with(spec["parent"])
    _limit(spec["limits"])
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    if not restrict(spec):
        print("kernos: this system has no Landlock, so that the app can open whatever its user can.", file=sys.stderr, flush=True)
    os.execv(command[0], command)  # noqa: S606


def version() -> int:
    """The version of Landlock; 0 if there is none."""
    return max(0, _syscall(_CREATE, None, 0, _VERSION))


def restrict(spec: dict[str, Any]) -> bool:
    """Allow what the specification names and nothing else; whether the system can."""
    abi = version()
    if not abi:
        return False
    known = _KNOWN.get(abi, (1 << 16) - 1)
    attributes = struct.pack("<QQQ", known, _BIND | _CONNECT, _ABSTRACT_SOCKETS | _SIGNALS)
    attributes = attributes[: 24 if abi >= 6 else 16 if abi >= 4 else 8]
    ruleset = _checked(_syscall(_CREATE, attributes, len(attributes), 0))
    for kind, rights in GRANTS.items():
        for path in spec[kind]:
            _allow(ruleset, path, rights & known)
    for port in spec["connect"] if abi >= 4 else ():
        _checked(_syscall(_ADD, ruleset, _NET_PORT, struct.pack("<QQ", _CONNECT, port), 0))
    _checked(_syscall(_RESTRICT, ruleset, 0))
    os.close(ruleset)
    return True


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # there is nothing to be allowed
    try:
        if not os.path.isdir(path):  # noqa: PTH112  (pathlib would be the slowest import of all)
            rights &= _OF_FILES
        _checked(_syscall(_ADD, ruleset, _PATH_BENEATH, struct.pack("<Qi", rights, fd), 0))
    finally:
        os.close(fd)


def _end_with(parent: int) -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before it could be watched
        os.kill(os.getpid(), signal.SIGKILL)


def _limit(limits: dict[str, int]) -> None:
    for name, most in limits.items():
        number = getattr(resource, name)
        _, hard = resource.getrlimit(number)
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(number, (least, least))


def _prctl(option: int, value: int) -> None:
    _checked(_libc.prctl(option, value, 0, 0, 0))


def _syscall(number: int, *arguments: Any) -> int:
    return int(_libc.syscall(ctypes.c_long(number), *(ctypes.c_long(one) if isinstance(one, int) else one for one in arguments)))


def _checked(result: int) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"the app cannot be confined: {os.strerror(error)}")
    return result


if __name__ == "__main__":
    main()
