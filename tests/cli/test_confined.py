"""What a confined process can and cannot do, tried by real ones."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import click
import pytest

from kernos.apps.cli import needs
from kernos.apps.cli.confined import version
from kernos.apps.cli.needs import Needs, confined, needs_of
from kernos.syscalls import Places, places

landlock = pytest.mark.skipif(not version(), reason="this system has no Landlock")


@pytest.fixture
def where(tmp_path: Path) -> Places:
    found = places(tmp_path / "home")
    for folder in (found.keys, found.state, found.runtime, tmp_path / "own", tmp_path / "data"):
        folder.mkdir(parents=True)
    (found.keys / "admin-root.key").write_text("secret")
    (found.state / "kernos.key").write_text("secret")
    (found.runtime / "connection.json").write_text("{}")
    return found


def tried(where: Places, text: str, needed: Needs | None = None, *args: str) -> str:
    """What a confined program prints; an `OSError` prints its name."""
    program = (
        f"import errno, os, resource, socket, sys\ntry:\n    {text}\nexcept OSError as error:\n    print(errno.errorcode[error.errno])"
    )
    own = where.config.parent.parent / "own"
    command = confined([sys.executable, "-P", "-c", program, *args], needed or Needs(), where, own)
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def opened(path: Path | str, mode: str = "r") -> str:
    return f"open({str(path)!r}, {mode!r}).close(); print('opened')"


@landlock
def test_keys_policies_and_state_are_hidden(where: Places) -> None:
    for path in (where.keys / "admin-root.key", where.state / "kernos.key"):
        assert tried(where, opened(path)) == "EACCES"
    for folder in (where.config, where.keys, where.state):
        assert tried(where, f"print(os.listdir({str(folder)!r}))") == "EACCES"


@landlock
def test_what_is_not_declared_is_closed_and_what_is_declared_is_open(where: Places, tmp_path: Path) -> None:
    file = tmp_path / "data" / "file"
    file.write_text("x")
    assert tried(where, opened(file)) == "EACCES"
    reading, writing = Needs(read=[str(file.parent)]), Needs(write=[str(file.parent)])
    assert tried(where, opened(file), reading) == "opened"
    assert tried(where, opened(file, "a"), reading) == "EACCES"
    assert tried(where, opened(file, "a"), writing) == "opened"
    assert tried(where, f"os.mkdir({str(file.parent / 'new')!r}); print('made')", writing) == "made"
    assert tried(where, "import tempfile; tempfile.TemporaryFile(dir=sys.argv[1])", None, str(tmp_path)) == "EACCES"


@landlock
def test_it_has_python_a_folder_of_its_own_and_the_kernels_socket(where: Places, tmp_path: Path) -> None:
    assert tried(where, "import kernos.syscalls, numpy, ssl, sqlite3; print('imported')") == "imported"
    assert tried(where, opened(tmp_path / "own" / "file", "w")) == "opened"
    assert tried(where, opened(where.connection)) == "opened"


@landlock
def test_the_files_that_its_arguments_name_are_readable(where: Places, tmp_path: Path) -> None:
    file, other = tmp_path / "data" / "file", tmp_path / "data" / "other"
    file.write_text("x")
    other.write_text("x")
    assert tried(where, opened(file), None, "--script", str(file)) == "opened"
    assert tried(where, opened(file), None, f"--script={file}") == "opened"
    assert tried(where, opened(file, "a"), None, str(file)) == "EACCES"
    assert tried(where, opened(other), None, str(file)) == "EACCES"
    for name in (str(file.parent), f"--data={file.parent}"):
        assert tried(where, opened(other), None, name) == "opened", "what lies in a folder that is named"
    key = where.keys / "admin-root.key"
    for name in (str(key), str(key.parent), "/"):
        assert tried(where, opened(key), None, name) == "EACCES", "but for what is hidden"
    assert tried(where, opened(other), None, "", "--data=") == "EACCES", "an empty name is not the folder one is in"


@landlock
def test_a_declared_variable_counts_where_it_is_set(where: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "data" / "file"
    file.write_text("x")
    needed = Needs(read=["$KERNOS_TEST_FOLDER"])
    assert tried(where, opened(file), needed) == "EACCES"
    monkeypatch.setenv("KERNOS_TEST_FOLDER", str(file.parent))
    assert tried(where, opened(file), needed) == "opened"


@landlock
@pytest.mark.skipif(version() < 4, reason="this Landlock knows no ports")
def test_only_declared_ports_can_be_connected_to(where: Places) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        connect = f"socket.create_connection(('127.0.0.1', {port})).close(); print('connected')"
        assert tried(where, connect) == "EACCES"
        assert tried(where, connect, Needs(connect=[port])) == "connected"
    assert tried(where, "socket.create_server(('127.0.0.1', 0))") == "EACCES"


@landlock
@pytest.mark.skipif(version() < 6, reason="this Landlock knows no signals")
def test_it_signals_nobody_outside(where: Places) -> None:
    assert tried(where, f"os.kill({os.getpid()}, 0)") == "EPERM"


@landlock
def test_its_children_are_bound_too(where: Places) -> None:
    key = where.keys / "admin-root.key"
    assert "denied" in tried(where, f"import subprocess; print(subprocess.run(['cat', {str(key)!r}], capture_output=True).stderr)")


def test_resources_are_bounded_and_privileges_are_not_gained(where: Places) -> None:
    text = "print([resource.getrlimit(getattr(resource, 'RLIMIT_' + name)) for name in ('AS', 'NOFILE', 'FSIZE', 'CORE')])"
    assert json.loads(tried(where, text, Needs(memory_mb=512, open_files=99, file_mb=2)).replace("(", "[").replace(")", "]")) == [
        [512 << 20] * 2,
        [99] * 2,
        [2 << 20] * 2,
        [0, 0],
    ]
    assert "NoNewPrivs:\t1" in tried(where, "print(open('/proc/self/status').read())")


def test_it_ends_with_its_launcher(where: Places, tmp_path: Path) -> None:
    """However the launcher ends: here by SIGKILL, which it can pass on to nobody."""
    waiting = "import os, sys; print(os.getpid(), flush=True); sys.stdin.read()"
    launcher = (
        "import subprocess, sys; from pathlib import Path; from kernos.apps.cli.needs import *; from kernos.syscalls import places\n"
        "home, own = Path(sys.argv[1]), Path(sys.argv[2])\n"
        f"subprocess.Popen(confined([sys.executable, '-c', {waiting!r}], Needs(), places(home), own)).wait()"
    )
    command = [sys.executable, "-c", launcher, str(tmp_path / "home"), str(tmp_path / "own")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        app = os.pidfd_open(int(process.stdout.readline()))
        process.send_signal(signal.SIGKILL)
        assert select.select([app], [], [], 10)[0], "the app is still there"
        os.close(app)


def test_an_app_without_a_file_needs_nothing_and_the_bundled_one_declares() -> None:
    assert needs_of("cli") == Needs()
    assert needs_of("customer_service").write == []


@pytest.mark.parametrize("text", ["reed = []", "read = 1", "connect = [0]", "connect = [99999]", "memory_mb = 1", "read = ["])
def test_a_mistake_in_the_file_is_told(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needy").mkdir()
    (tmp_path / "needy" / "__init__.py").touch()
    (tmp_path / "needy" / needs.FILE).write_text(text)
    monkeypatch.setattr("kernos.apps.__path__", [str(tmp_path)])
    with pytest.raises(click.ClickException, match=r"needs\.toml: "):
        needs_of("needy")


@pytest.mark.parametrize("which", ["keys", "state", "home", "/"])
def test_hidden_folders_cannot_be_declared(where: Places, which: str, tmp_path: Path) -> None:
    path = {"keys": where.keys, "state": where.state, "home": where.config.parent}.get(which, Path("/"))
    for needed in (Needs(read=[str(path)]), Needs(write=[str(path)])):
        with pytest.raises(click.ClickException, match="no app may have it"):
            confined(["x"], needed, where, tmp_path / "own")
