"""Generations: whole, unchanging, and one of them in force, whatever ends the kernel in the middle."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kernos.kernel.law import enforced
from kernos.kernel.security import generations as module
from kernos.kernel.security.generations import Generations
from kernos.syscalls.errors import NotFoundError, StorageError
from kernos.syscalls.sources import Files, hash_files, read_files
from tests.kernel.fakes import EPOCH, make_policy

FIRST = "p, app:a, system, ping, allow\n"


def policy(folder: Path, text: str = FIRST) -> Files:
    return read_files(make_policy(folder, text))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return policy(tmp_path / "draft")


@pytest.fixture
def generations(tmp_path: Path) -> Generations:
    (tmp_path / "policies").mkdir()
    return Generations(tmp_path / "policies")


def test_what_was_installed_is_read_back(generations: Generations, files: Files) -> None:
    assert generations.active == 0
    made = generations.install(files, "admin:root", 'a "reason"\nof \\two lines \x7f\u00fc', EPOCH)
    found = generations.read(0)
    assert found.files == files
    assert found.generation == made
    assert (made.number, made.hash, made.active, generations.active) == (1, hash_files(files), True, 1)


def test_each_is_a_new_one_and_the_newest_counts(generations: Generations, files: Files) -> None:
    for number in (1, 2, 3):
        assert generations.install({**files, "flows.csv": b"x" * number}, "admin:root", "", EPOCH + number).number == number
    assert [entry.number for entry in generations.history()] == [3, 2, 1]
    assert [entry.active for entry in generations.history()] == [True, False, False]
    assert generations.read(2).files["flows.csv"] == b"xx", "a file that nobody reads yet is kept with the others"


def test_nobody_but_the_owner_can_look_in_and_nobody_writes(generations: Generations, files: Files) -> None:
    generations.install(files, "admin:root", "", EPOCH)
    folder = generations.folder / "generations" / "0001"
    assert {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()} == {0o400}
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["policy.d/50-test.csv", "model.conf", "manifest.toml"])
@pytest.mark.parametrize("harm", ["change", "cut", "remove"])
def test_damage_is_found_and_the_way_back_is_told(generations: Generations, files: Files, name: str, harm: str) -> None:
    """A file cut at the end of a line would load cleanly, without its deny: the manifest says that it is not what was installed."""
    generations.install(files, "admin:root", "", EPOCH)
    generations.install({**files, "flows.csv": b""}, "admin:root", "", EPOCH)
    file = generations.folder / "active" / name
    data = file.read_bytes()
    file.chmod(0o600)
    if harm == "remove":
        file.unlink()
    else:
        file.write_bytes(data[: len(data) // 2] if harm == "cut" else data.replace(b"a", b"b", 1))
    with pytest.raises(StorageError, match=r"damaged.* ln -s generations/0001 "):
        enforced(generations)
    assert [entry.number for entry in generations.history()] == [1]


def test_a_generation_that_there_is_not(generations: Generations, files: Files) -> None:
    for number in (0, 7):
        with pytest.raises(NotFoundError):
            generations.read(number)


def test_old_ones_are_forgotten(generations: Generations, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT", 3)
    for _ in range(5):
        generations.install(files, "admin:root", "", EPOCH)
    assert [entry.number for entry in generations.history()] == [5, 4, 3]


VICTIM = """
import os, signal, sys
from pathlib import Path
from kernos.kernel.security.generations import Generations
from kernos.syscalls.sources import read_files

calls = iter(range(10_000))
def dying(event, arguments):
    # Before every step that changes something on the disk.
    if event in ("os.rename", "os.symlink", "os.mkdir", "os.remove", "open") and "policies" in str(arguments[:2]):
        if event != "open" or arguments[2] & (os.O_WRONLY | os.O_RDWR) or arguments[2] & os.O_DIRECTORY:
            if next(calls) == int(sys.argv[3]):
                os.kill(os.getpid(), signal.SIGKILL)
files = read_files(Path(sys.argv[2]))
sys.addaudithook(dying)
Generations(Path(sys.argv[1])).install(files, "admin:root", "second", 2.0)
"""


def test_killed_at_every_step_it_is_the_old_one_or_the_new_one(generations: Generations, files: Files, tmp_path: Path) -> None:
    generations.install(files, "admin:root", "first", 1.0)
    old, new = files, policy(tmp_path / "new", "p, app:b, system, ping, allow\n")
    seen: list[Files] = []
    for step in range(0, 200, 1 if os.environ.get("KERNOS_PROVE") else 5):
        command = [sys.executable, "-c", VICTIM, str(generations.folder), str(tmp_path / "new"), str(step)]
        code = subprocess.run(command, check=False, env=dict(os.environ)).returncode
        found = generations.read(0)
        assert found.files in (old, new), step
        assert enforced(generations).policy.hash == hash_files(found.files)
        seen.append(found.files)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        if found.files == new:
            generations.install(old, "admin:root", "back", 3.0)
    assert seen[0] == old
    assert seen[-1] == new
    assert len(seen) > 4, "too few steps were seen"
    assert not list(generations.folder.rglob("*.part"))
