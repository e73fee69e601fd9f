"""Servers take a device in turns, as real processes with real locks."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from kernos.kernel.devices.turnstile import Turnstile

SERVER = """
import sys
from pathlib import Path
from tests.devices.test_turnstile import serve
serve(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
"""


def serve(folder: Path, name: str, turns: int, neighbour: int) -> None:
    """Take the device so often, each time until the neighbour waits for it, if there is one, and write down when."""
    turnstile = Turnstile(folder, "cpu:0")
    print("ready", flush=True)
    for _ in range(turns):
        with turnstile.turn(), (folder / "story").open("a", buffering=1) as story:
            story.write(f"[{name}\n")
            if neighbour:
                wait_until(lambda: waits(neighbour))
            story.write("]\n")


def start(folder: Path, name: str, turns: int, neighbour: int = 0) -> "subprocess.Popen[str]":
    words = [sys.executable, "-c", SERVER, str(folder), name, str(turns), str(neighbour)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def waits(pid: int) -> bool:
    """Whether a process waits for a lock of a file that another holds."""
    return re.search(rf"-> FLOCK .* {pid} ", Path("/proc/locks").read_text("ascii")) is not None


def wait_until(true: Callable[[], bool]) -> None:
    while not true():
        os.sched_yield()


def story(folder: Path) -> str:
    return (folder / "story").read_text().replace("\n", "")


def test_one_has_it_at_a_time(tmp_path: Path) -> None:
    with Turnstile(tmp_path, "cpu:0").turn():
        both = [start(tmp_path, name, 30) for name in "ab"]
    for process in both:
        process.communicate()
        assert process.returncode == 0
    told = story(tmp_path)
    assert (told.count("[a]"), told.count("[b]"), len(told)) == (30, 30, 180), "one began before the other had ended"


def test_who_waits_has_it_before_who_had_it(tmp_path: Path) -> None:
    mine = Turnstile(tmp_path, "cpu:0")
    with mine.turn():
        other = start(tmp_path, "a", 10, neighbour=os.getpid())
        wait_until(lambda: waits(other.pid))
    for number in range(1, 11):
        with mine.turn():
            assert story(tmp_path) == "[a]" * number
            if number < 10:
                wait_until(lambda: waits(other.pid))
    other.communicate()


def test_it_is_free_when_its_holder_dies(tmp_path: Path) -> None:
    holder = start(tmp_path, "a", 1, neighbour=-1)
    wait_until((tmp_path / "story").exists)
    holder.kill()
    holder.communicate()
    with Turnstile(tmp_path, "cpu:0").turn():
        assert story(tmp_path) in ("", "[a")


def test_a_turn_within_a_turn_ends_with_the_outer_one(tmp_path: Path) -> None:
    mine = Turnstile(tmp_path, "cpu:0")
    with mine.turn():
        other = start(tmp_path, "a", 1)
        wait_until(lambda: waits(other.pid))
        with mine.turn():
            pass
        assert waits(other.pid)
    other.communicate()
    assert story(tmp_path) == "[a]"


def test_devices_and_servers_that_share_nothing_wait_for_nobody(tmp_path: Path) -> None:
    with Turnstile(tmp_path, "cpu:0").turn(), Turnstile(tmp_path, "cuda:0").turn(), Turnstile(None, "cpu:0").turn():
        pass
