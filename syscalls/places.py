"""Where things lie on disk, and how a client finds the kernel.

With `KERNOS_HOME` set, everything lies under that folder. Otherwise the XDG base directories are used.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from .errors import UnreachableError

MAX_SOCKET_PATH = 104
"""Longest path of a Unix socket that works everywhere, in bytes."""


@dataclass(frozen=True)
class Places:
    """The folders of one Kernos installation."""

    config: Path
    """Policies and configuration."""
    state: Path
    """Logs, public keys of principals, the lock."""
    models: Path
    """The model store."""
    runtime: Path
    """Sockets and the connection file; gone after a reboot."""

    @property
    def keys(self) -> Path:
        """Secret keys, one file per principal, mode 0600."""
        return self.config / "keys"

    @property
    def connection(self) -> Path:
        """How to reach the running kernel."""
        return self.runtime / "connection.json"

    @property
    def logs(self) -> Path:
        """One file per process."""
        return self.state / "logs"

    @property
    def apps(self) -> Path:
        """A folder per app, for what it keeps from one run to the next."""
        return self.state / "apps"

    def socket(self, name: str) -> str:
        """The endpoint of a socket in the runtime folder; `UnreachableError` if its path is too long for Unix."""
        path = self.runtime / f"{name}.sock"
        if len(os.fsencode(path)) > MAX_SOCKET_PATH:
            raise UnreachableError(
                f"The socket path {path} is longer than {MAX_SOCKET_PATH} bytes. Set KERNOS_HOME (or XDG_RUNTIME_DIR) to a shorter folder."
            )
        return f"ipc://{path}"


class Connection(msgspec.Struct, frozen=True):
    """The connection file: written by the kernel when its sockets are open, removed when it stops."""

    os_pid: int
    calls: str
    control: str
    public_key: str
    abi: str


def places(home: Path | None = None) -> Places:
    """The folders under `home`, `KERNOS_HOME` or the XDG base directories, in this order."""
    root = home or (Path(os.environ["KERNOS_HOME"]) if os.environ.get("KERNOS_HOME") else None)
    if root is not None:
        root = root.expanduser().absolute()
        models = os.environ.get("KERNOS_MODELS")
        return Places(root / "config", root / "state", Path(models).absolute() if models else root / "models", root / "run")
    user = Path.home()
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/kernos-{os.getuid()}"  # noqa: S108  (mode and owner are checked)
    return Places(
        Path(os.environ.get("XDG_CONFIG_HOME") or user / ".config") / "kernos",
        Path(os.environ.get("XDG_STATE_HOME") or user / ".local" / "state") / "kernos",
        Path(os.environ.get("KERNOS_MODELS") or Path(os.environ.get("XDG_DATA_HOME") or user / ".local" / "share") / "kernos" / "models"),
        Path(runtime) / "kernos",
    )


def read_connection(where: Places) -> Connection:
    """How to reach the kernel; `UnreachableError` if none is running here."""
    try:
        if where.connection.stat().st_uid != os.getuid():
            raise UnreachableError(f"{where.connection} was written by another user and is not trusted. Remove it, or set KERNOS_HOME.")
        connection = msgspec.json.decode(where.connection.read_bytes(), type=Connection)
    except FileNotFoundError:
        raise UnreachableError(f"No kernel is running (no {where.connection}). Start one with `kernos serve`.") from None
    except (OSError, msgspec.MsgspecError) as error:
        raise UnreachableError(f"The connection file {where.connection} cannot be read: {error}. Restart the kernel.") from None
    if not Path(f"/proc/{connection.os_pid}").exists() and connection.calls.startswith("ipc://"):
        raise UnreachableError(f"The kernel that wrote {where.connection} has died. Start one with `kernos serve`.")
    return connection
