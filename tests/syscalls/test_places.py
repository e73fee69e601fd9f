"""Where things lie, and how a running kernel is found."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from kernos.syscalls import Places, places
from kernos.syscalls.errors import UnreachableError
from kernos.syscalls.places import MAX_SOCKET_PATH, Connection, read_connection

VARIABLES = ("KERNOS_HOME", "KERNOS_MODELS", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR")
HERE = Connection(os.getpid(), "ipc://calls", "ipc://control", "k" * 40, "1.0")


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/users/ann")


def test_kernos_home_holds_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNOS_HOME", "/srv/k")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/elsewhere")
    root = Path("/srv/k")
    assert places() == Places(root / "config", root / "state", root / "models", root / "run")
    assert places().keys == root / "config/keys"
    assert places().connection == root / "run/connection.json"
    assert places().logs == root / "state/logs"


def test_a_home_that_is_given_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNOS_HOME", "/srv/k")
    assert places(Path("/srv/other")).runtime == Path("/srv/other/run")


def test_a_home_may_be_written_from_here_or_from_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNOS_HOME", "~/k")
    assert places().runtime == Path("/users/ann/k/run")
    monkeypatch.setenv("KERNOS_HOME", "k")
    assert places().runtime == Path.cwd() / "k/run"


def test_models_may_lie_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNOS_MODELS", "/big/models")
    assert places().models == Path("/big/models")
    assert places(Path("/srv/k")).models == Path("/big/models")


def test_xdg_folders_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONFIG", "STATE", "DATA"):
        monkeypatch.setenv(f"XDG_{name}_HOME", f"/xdg/{name.lower()}")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/xdg/run")
    root = Path("/xdg")
    assert places() == Places(root / "config/kernos", root / "state/kernos", root / "data/kernos/models", root / "run/kernos")


def test_without_any_variable_the_users_folders_are_used() -> None:
    home = Path("/users/ann")
    found = places()
    assert (found.config, found.state) == (home / ".config/kernos", home / ".local/state/kernos")
    assert found.models == home / ".local/share/kernos/models"
    assert str(os.getuid()) in str(found.runtime)


def test_a_socket_path_has_a_bound() -> None:
    def socket(length: int) -> str:
        return places(Path("/" + "d" * (length - len("//run/calls.sock")))).socket("calls")

    assert len(socket(MAX_SOCKET_PATH)) == len("ipc://") + MAX_SOCKET_PATH
    with pytest.raises(UnreachableError, match="KERNOS_HOME"):
        socket(MAX_SOCKET_PATH + 1)


def test_a_socket_path_is_counted_in_bytes() -> None:
    with pytest.raises(UnreachableError):
        places(Path("/" + "ü" * 60)).socket("calls")


def write(where: Places, content: bytes) -> None:
    where.runtime.mkdir(parents=True)
    where.connection.write_bytes(content)


def test_a_running_kernel_is_found(where: Places) -> None:
    write(where, msgspec.json.encode(HERE))
    assert read_connection(where) == HERE


def test_no_kernel_is_said_to_run(where: Places) -> None:
    with pytest.raises(UnreachableError, match="kernos serve"):
        read_connection(where)


def test_a_damaged_connection_file_is_said_to_be(where: Places) -> None:
    write(where, b'{"os_pid": 1')
    with pytest.raises(UnreachableError, match="cannot be read"):
        read_connection(where)


def test_a_dead_kernel_is_said_to_be(where: Places) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    write(where, msgspec.json.encode(msgspec.structs.replace(HERE, os_pid=ended.pid)))
    with pytest.raises(UnreachableError, match="died"):
        read_connection(where)
