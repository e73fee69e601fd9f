"""What an app needs of the machine: declared in `needs.toml` in its folder, and all that `kernos run` lets it have.

    read = ["/srv/catalogue"]      # paths it may read; `~` is the home folder of whoever runs it, `$NAME` a variable that may be unset
    write = ["~/reports"]          # paths it may also change
    connect = [443]                # TCP ports it may connect to
    memory_mb = 2048               # address space
    open_files = 256
    file_mb = 100                  # the largest file it may write

Every field may be left out, and so may the file. Besides, an app has Python and its libraries, its own folder, a folder for what it keeps
from one run to the next, a temporary one, the files and folders that its arguments name (to read), and the kernel. The folders that hold
keys, policies and the kernel's state it never has.
"""

import json
import os
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Final

import click
import msgspec
from msgspec import Meta

import kernos
from kernos.syscalls import Places

Port = Annotated[int, Meta(ge=1, le=65_535)]

FILE: Final = "needs.toml"

_SYSTEM: Final = ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache")
_FACTS: Final = (
    "/etc/localtime",
    "/etc/passwd",
    "/etc/nsswitch.conf",
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/sys/devices/system/cpu",
)
_NETWORK: Final = ("/etc/hosts", "/etc/resolv.conf", "/etc/ssl", "/etc/ca-certificates")
_DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom", "/dev/tty")


class Needs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file as it is read."""

    read: list[str] = []
    write: list[str] = []
    connect: list[Port] = []
    memory_mb: Annotated[int, Meta(ge=64)] = 4_096
    open_files: Annotated[int, Meta(ge=16)] = 1_024
    file_mb: Annotated[int, Meta(ge=1)] = 1_024


def needs_of(app: str) -> Needs:
    """What an app declares; a mistake in the file is told and ends the command."""
    spec = find_spec(f"kernos.apps.{app}")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        file = Path(folder) / FILE
        try:
            return msgspec.convert(tomllib.loads(file.read_text("utf-8")), Needs)
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
            raise click.ClickException(f"{file}: {error}. Its fields are told in `kernos.apps.cli.needs`.") from None
    return Needs()


def confined(command: list[str], needs: Needs, where: Places, *own: Path) -> list[str]:
    """The command, made to give up first what is not needed; `own` are the folders that it has for itself."""
    hidden = (where.config.resolve(), where.state.resolve())
    declared = _declared(needs.read), _declared(needs.write)
    for path in (*declared[0], *declared[1]):
        if _shows(path, hidden):
            raise click.ClickException(f"{path} holds keys, policies or the kernel's state, and no app may have it. See its {FILE}.")
    named = [path for path in map(_named, command[1:]) if path is not None and not _shows(path, hidden)]
    spec = {
        "parent": os.getpid(),
        "limits": {
            "RLIMIT_AS": needs.memory_mb << 20,
            "RLIMIT_NOFILE": needs.open_files,
            "RLIMIT_FSIZE": needs.file_mb << 20,
            "RLIMIT_CORE": 0,
        },
        "code": [*_SYSTEM, *(str(path) for path in _python() if not _shows(path, hidden))],
        "read": [str(path) for path in (where.runtime, *declared[0], *named)] + [*_FACTS, *(_NETWORK if needs.connect else ())],
        "write": [str(path) for path in (*own, *declared[1])],
        "devices": list(_DEVICES),
        "connect": needs.connect,
    }
    return [sys.executable, "-P", "-m", "kernos.apps.cli.confined", json.dumps(spec), *command]


def _python() -> set[Path]:
    """Where code is imported from: the interpreter, its libraries, and this package, whose folders may be links."""
    package = Path(kernos.__file__).parent
    found = [Path(sys.prefix), Path(sys.base_prefix), package, *package.iterdir(), *(Path(entry) for entry in sys.path if entry)]
    return {path.resolve() for path in found if path.exists()}


def _declared(paths: list[str]) -> list[Path]:
    """The paths as they are on this machine, without those whose variable is not set."""
    known = [path for path in map(os.path.expandvars, paths) if not path.startswith("$")]
    return [Path(path).expanduser().resolve() for path in known]


def _named(argument: str) -> Path | None:
    """The file or folder that an argument names, as it is or behind an equals sign."""
    name = argument.rpartition("=")[2] if argument.startswith("--") else argument
    return Path(name).resolve() if 0 < len(name) < 1_024 and Path(name).exists() else None


def _shows(path: Path, hidden: tuple[Path, ...]) -> bool:
    """Whether a path lies in a hidden folder, or above it."""
    return any(path == folder or path in folder.parents or folder in path.parents for folder in hidden)
