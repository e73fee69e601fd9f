"""First boot, every boot, and what a kernel finds that died."""

import getpass
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import msgspec
import pytest

from kernos.kernel import __main__ as main_module
from kernos.kernel import boot
from kernos.kernel.boot import BootError, enroll_administrator, install_policies, kernel_key, lock_state, make_folders
from kernos.kernel.config import Config, ConfigError, load_config
from kernos.kernel.launch import Trace, launch_device, reap_orphans
from kernos.kernel.law import enforced
from kernos.kernel.security.identity import Identities
from kernos.kernel.security.liveness import start_time
from kernos.kernel.security.rules import PolicyError
from kernos.syscalls.errors import StorageError
from kernos.syscalls.keys import key_file, read_key
from kernos.syscalls.places import Places
from kernos.syscalls.sources import read_files
from tests.kernel.fakes import EPOCH, make_policy, make_world


@pytest.fixture
def where(tmp_path: Path) -> Places:
    return Places(tmp_path / "config", tmp_path / "state", tmp_path / "models", tmp_path / "run")


@pytest.fixture(autouse=True)
def _locks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close what a refused start leaves open: in the kernel the end of the process does that, here it would be a warning."""
    opened: list[IO[str]] = []
    really = Path.open

    def recording(path: Path, *arguments: Any, **options: Any) -> Any:
        file = really(path, *arguments, **options)
        if path.name == "kernel.lock":
            opened.append(file)
        return file

    monkeypatch.setattr(Path, "open", recording)
    yield
    for file in opened:
        file.close()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class TestFirstBoot:
    def test_folders_are_the_owners_alone(self, where: Places) -> None:
        before = os.umask(0)
        try:
            make_folders(where)
        finally:
            os.umask(before)
        assert [mode(folder) for folder in (where.config, where.state, where.runtime, where.logs)] == [0o700] * 4

    def test_an_open_runtime_folder_is_closed(self, where: Places) -> None:
        where.runtime.mkdir(parents=True)
        where.runtime.chmod(0o777)
        make_folders(where)
        assert mode(where.runtime) == 0o700

    def test_an_open_folder_of_policies_is_closed_or_refused(self, where: Places) -> None:
        where.config.mkdir(parents=True)
        where.config.chmod(0o777)
        try:
            make_folders(where)
        except BootError:
            return
        assert mode(where.config) & 0o022 == 0

    def test_folders_of_somebody_else_are_refused(self, where: Places, monkeypatch: pytest.MonkeyPatch) -> None:
        make_folders(where)
        monkeypatch.setattr(os, "getuid", lambda: 12_345)
        with pytest.raises(BootError, match="belongs to another user"):
            make_folders(where)

    def test_the_administrators_key(self, where: Places) -> None:
        make_folders(where)
        identities = Identities(where.state / "principals")
        key = enroll_administrator(where, identities)
        assert key.principal == f"admin:{getpass.getuser()}"
        assert mode(key_file(where, key.principal)) == 0o600
        assert mode(where.keys) == 0o700
        assert identities.principal(key.public) == key.principal
        assert Identities(where.state / "principals").principal(key.public) == key.principal

    def test_a_login_that_is_no_name(self, where: Places, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(getpass, "getuser", lambda: "DOM\\Jos\u00e9 d'A")
        make_folders(where)
        assert enroll_administrator(where, Identities(where.state / "principals")).principal == "admin:DOM_Jos__d_A"

    def test_a_login_that_is_not_there(self, where: Places, monkeypatch: pytest.MonkeyPatch) -> None:
        def nobody() -> str:
            raise KeyError("getpwuid(): uid not found: 12345")

        monkeypatch.setattr(getpass, "getuser", nobody)
        make_folders(where)
        assert enroll_administrator(where, Identities(where.state / "principals")).principal == f"admin:uid{os.getuid()}"

    def test_the_policies_name_the_administrator(self, where: Places) -> None:
        make_folders(where)
        law = enforced(install_policies(where, "admin:anna", EPOCH))
        policy, folder = law.policy, where.config / "policies"
        assert policy.allows("admin:anna", "system", "stop")
        assert not policy.allows("admin:bert", "system", "stop")
        assert policy.limits("admin:anna")["turns"] > policy.limits("admin:bert")["turns"]
        assert law.installed is not None
        assert (law.installed.number, law.installed.author, law.installed.time) == (1, "admin:anna", EPOCH)
        assert {"model.conf", "limits.toml", "policy.d/00-system.csv", "roles.d/90-local.csv"} <= read_files(folder).keys()
        assert read_files(folder) == read_files(folder / "active") == policy.files, "the working copy is what is in force"

    def test_the_kernels_key_is_not_a_client(self, where: Places) -> None:
        make_folders(where)
        assert kernel_key(where).principal == "device:kernel"
        assert Identities(where.state / "principals").principal(kernel_key(where).public) is None


class TestSecondBoot:
    def test_keys_stay(self, where: Places) -> None:
        make_folders(where)
        first = enroll_administrator(where, Identities(where.state / "principals")), kernel_key(where)
        make_folders(where)
        assert (enroll_administrator(where, Identities(where.state / "principals")), kernel_key(where)) == first

    def test_policies_stay_as_they_were_edited(self, where: Places) -> None:
        make_folders(where)
        generations = install_policies(where, "admin:anna", EPOCH)
        local = where.config / "policies" / "roles.d" / "90-local.csv"
        local.write_text("not a rule\n", "utf-8")
        install_policies(where, "admin:bert", EPOCH)
        assert local.read_text("utf-8") == "not a rule\n"
        assert enforced(generations).policy.allows("admin:anna", "system", "stop"), "editing a file changes nothing"
        assert generations.active == 1

    def test_policies_that_were_not_installed_are(self, where: Places) -> None:
        """The kernel died between the working copy and the first generation, or somebody brought a working copy."""
        make_folders(where)
        install_policies(where, "admin:anna", EPOCH)
        shutil.rmtree(where.config / "policies" / "generations")
        (where.config / "policies" / "active").unlink()
        assert enforced(install_policies(where, "admin:bert", EPOCH)).policy.allows("admin:anna", "system", "stop")

    @pytest.mark.parametrize("lost", [True, False])
    def test_it_is_not_guessed_which_generation_is_in_force(self, where: Places, lost: bool) -> None:
        """The pointer is gone, or somebody copied the folder with what it pointed to in its place."""
        make_folders(where)
        generations = install_policies(where, "admin:anna", EPOCH)
        active = where.config / "policies" / "active"
        active.unlink()
        if not lost:
            active.mkdir()
        (where.config / "policies" / "policy.d" / "90-edited.csv").write_text("p, app:*, **, *, allow\n# end\n", "utf-8")
        assert install_policies(where, "admin:anna", EPOCH).history() == generations.history(), "what was edited is not installed"
        with pytest.raises(StorageError, match="ln -s generations/0001"):
            enforced(generations)

    def test_a_working_copy_with_a_mistake_is_no_first_generation(self, where: Places) -> None:
        make_folders(where)
        make_policy(where.config / "policies", "p, app:*, system, ping, dney\n")
        with pytest.raises(PolicyError, match=r"policy.d/50-test.csv:1:25: error"):
            install_policies(where, "admin:anna", EPOCH)

    def test_policies_that_were_half_installed_are_installed(self, where: Places) -> None:
        make_folders(where)
        (where.config / "policies.part" / "policy.d").mkdir(parents=True)
        (where.config / "policies.part" / "rubbish").write_text("x", "utf-8")
        assert enforced(install_policies(where, "admin:anna", EPOCH)).policy.allows("admin:anna", "system", "stop")
        assert not (where.config / "policies.part").exists()
        assert not (where.config / "policies" / "rubbish").exists()

    def test_an_administrators_key_that_was_lost_is_replaced(self, where: Places) -> None:
        """The book of principals was lost, and the key was not."""
        make_folders(where)
        key = enroll_administrator(where, Identities(where.state / "principals"))
        for file in (where.state / "principals").iterdir():
            file.unlink()
        identities = Identities(where.state / "principals")
        enroll_administrator(where, identities)
        assert identities.principal(key.public) == key.principal

    def test_an_administrators_key_file_that_was_lost(self, where: Places) -> None:
        make_folders(where)
        identities = Identities(where.state / "principals")
        first = enroll_administrator(where, identities)
        key_file(where, first.principal).unlink()
        identities = Identities(where.state / "principals")
        second = enroll_administrator(where, identities)
        assert identities.principal(second.public) == second.principal


class TestLock:
    def test_a_second_kernel_is_refused_until_the_first_ends(self, where: Places) -> None:
        make_folders(where)
        lock = lock_state(where)
        with pytest.raises(BootError, match=r"running on .* already"):
            lock_state(where)
        lock.close()
        lock_state(where).close()

    def test_children_do_not_keep_it(self, where: Places, child: "subprocess.Popen[bytes]") -> None:
        make_folders(where)
        lock = lock_state(where)
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as heir:
            lock.close()
            lock_state(where).close()
            heir.communicate(b"\n")


# --- orphans -----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def child() -> Iterator["subprocess.Popen[bytes]"]:
    """A process that lives until it is killed."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def write_trace(where: Places, trace: Trace | bytes, name: str = "decoder") -> Path:
    folder = where.state / "devices"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.json"
    file.write_bytes(trace if isinstance(trace, bytes) else msgspec.json.encode(trace))
    return file


class TestOrphans:
    def test_the_very_process_is_killed(self, where: Places, child: "subprocess.Popen[bytes]") -> None:
        file = write_trace(where, Trace(child.pid, start_time(child.pid)))
        assert reap_orphans(where.state) == [child.pid]
        assert child.wait() == -9
        assert not file.exists()

    def test_another_process_of_the_same_pid_is_not(self, where: Places, child: "subprocess.Popen[bytes]") -> None:
        file = write_trace(where, Trace(child.pid, start_time(child.pid) + 1))
        assert reap_orphans(where.state) == []
        assert child.poll() is None
        assert not file.exists()

    def test_a_process_that_is_no_more(self, where: Places, child: "subprocess.Popen[bytes]") -> None:
        write_trace(where, Trace(child.pid, start_time(child.pid)))
        child.kill()
        child.wait()
        assert reap_orphans(where.state) == []

    def test_nothing_left_behind(self, where: Places) -> None:
        assert reap_orphans(where.state) == []

    def test_a_trace_without_a_start(self, where: Places, child: "subprocess.Popen[bytes]") -> None:
        child.kill()
        child.wait()
        write_trace(where, Trace(child.pid, 0))
        assert reap_orphans(where.state) == []

    @pytest.mark.parametrize("text", [b"", b'{"os_pid": 1', b"[]", b'{"os_pid": "x", "start_time": 1}'])
    def test_a_damaged_trace_is_no_reason_not_to_boot(self, where: Places, text: bytes) -> None:
        file = write_trace(where, text)
        assert reap_orphans(where.state) == []
        assert not file.exists()

    def test_start_times(self, child: "subprocess.Popen[bytes]") -> None:
        assert start_time(os.getpid()) > 0
        assert start_time(os.getpid()) == start_time(os.getpid())
        assert start_time(2**22 + 1) == 0


def test_a_device_server_is_started_with_its_own_key_and_traced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for Python that copies its boot line to the log."""
    stand_in = tmp_path / "python"
    stand_in.write_text("#!/bin/sh\nexec cat\n", "utf-8")
    stand_in.chmod(0o700)
    world = make_world(tmp_path, config=Config(threads=4, nice=7))
    monkeypatch.setattr(sys, "executable", str(stand_in))
    monkeypatch.setattr(subprocess, "Popen", lambda command, **options: _popen(command[:1], **options))
    with launch_device(world.system, "encoder", "ipc://x", "kernel's key") as process:
        process.wait()
    said = msgspec.json.decode((world.system.where.logs / "device-encoder.log").read_bytes())
    assert world.system.identities.principal(said["public"]) == "device:encoder"
    assert (said["endpoint"], said["kernel_public"], said["device"]) == ("ipc://x", "kernel's key", "cpu:0")
    assert (said["threads"], said["nice"], said["parent"]) == (4, 7, os.getpid())
    trace = msgspec.json.decode((world.system.where.state / "devices" / "encoder.json").read_bytes(), type=Trace)
    assert trace.os_pid == process.pid


_popen = subprocess.Popen


# --- settings ----------------------------------------------------------------------------------------------------------------------


class TestConfig:
    def test_no_file_is_all_defaults(self, tmp_path: Path) -> None:
        assert load_config(tmp_path / "kernos.toml") == Config()

    def test_settings(self, tmp_path: Path) -> None:
        file = tmp_path / "kernos.toml"
        file.write_text('decoder = "x"\nslots = 3\ndtype = "float32"\n', "utf-8")
        assert load_config(file) == Config(decoder="x", slots=3, dtype="float32")

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("slots = 0", "slots"),
            ("slots = 257", "slots"),
            ('slots = "8"', "slots"),
            ("slot = 8", "slot"),
            ('dtype = "float16"', "dtype"),
            ("nice = -1", "nice"),
            ("decoder = ", "value"),
            ("[decoder]\nname = 1", "decoder"),
        ],
    )
    def test_a_wrong_setting_is_named_with_its_file(self, tmp_path: Path, text: str, says: str) -> None:
        file = tmp_path / "kernos.toml"
        file.write_text(text, "utf-8")
        with pytest.raises(ConfigError) as caught:
            load_config(file)
        assert str(file) in str(caught.value)
        assert says in str(caught.value)
        assert "Correct the file" in str(caught.value)

    def test_a_file_that_is_no_text(self, tmp_path: Path) -> None:
        file = tmp_path / "kernos.toml"
        file.write_bytes(b"\xff\xfe")
        with pytest.raises(ConfigError):
            load_config(file)
        with pytest.raises(ConfigError):
            load_config(tmp_path)


# --- the start of the program ------------------------------------------------------------------------------------------------------


class TestMain:
    """Everything that fails before the sockets are open."""

    @pytest.fixture(autouse=True)
    def home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("KERNOS_HOME", str(tmp_path))
        monkeypatch.setenv("KERNOS_MODELS", str(tmp_path / "models"))
        monkeypatch.setattr(sys, "argv", ["kernos.kernel"])
        monkeypatch.setattr(main_module, "open_log", lambda folder: None)
        monkeypatch.setattr(main_module, "Loop", lambda key: None)
        return tmp_path

    def fails(self, capsys: pytest.CaptureFixture[str]) -> str:
        assert main_module.main() == 1
        error = capsys.readouterr().err
        assert error.startswith("kernos: the kernel cannot start. ")
        return error

    def test_a_wrong_setting(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (home / "config").mkdir()
        (home / "config" / "kernos.toml").write_text("slots = 0", "utf-8")
        assert "kernos.toml" in self.fails(capsys)

    def test_settings_that_are_not_there(self, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "argv", ["kernos.kernel", "--config", str(home / "none.toml")])
        assert "none.toml" in self.fails(capsys)

    def test_a_wrong_policy(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        rules = home / "config" / "policies" / "policy.d"
        rules.mkdir(parents=True)
        (rules.parent / "model.conf").write_bytes((Path(boot.__file__).parents[1] / "policies" / "model.conf").read_bytes())
        (rules / "10-x.csv").write_text("p, app:x, system, ping, Allow\n", "utf-8")
        assert "policy.d/10-x.csv:1:25: error: the effect is `Allow`" in self.fails(capsys)

    def test_a_kernel_that_runs_already(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        where = Places(home / "config", home / "state", home / "models", home / "run")
        make_folders(where)
        with lock_state(where):
            assert "running" in self.fails(capsys)

    def test_a_key_that_others_can_read(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        where = Places(home / "config", home / "state", home / "models", home / "run")
        make_folders(where)
        key = enroll_administrator(where, Identities(where.state / "principals"))
        key_file(where, key.principal).chmod(0o644)
        assert "readable by others" in self.fails(capsys)
        key_file(where, key.principal).chmod(0o600)
        assert read_key(key_file(where, key.principal)) == key

    def test_a_home_that_is_too_deep(self, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KERNOS_HOME", str(home / ("deep" * 20)))
        assert "longer than 104 bytes" in self.fails(capsys)


@pytest.mark.parametrize("module", ["kernos.kernel.__main__", "kernos.kernel.gate", "kernos.kernel.loop"])
def test_the_kernel_imports_nothing_heavy(module: str) -> None:
    heavy = {"torch", "transformers", "faiss", "sentence_transformers"}
    code = f"import {module}, sys; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.split() == []
