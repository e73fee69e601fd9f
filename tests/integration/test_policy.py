"""The policy of a real kernel is changed under calling clients, and a kernel is killed in the middle of a change."""

import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import pytest

from benchmarks.kernel import RunningKernel, booted
from benchmarks.report import percentile
from kernos.syscalls import Kernel, Key
from kernos.syscalls.errors import DeniedError, KernosError
from kernos.syscalls.policy import ApplyPolicy, FetchPolicy, GetPolicy
from kernos.syscalls.process import ListProcesses
from kernos.syscalls.sources import Files, hash_files
from kernos.syscalls.system import Ping

PROVE = bool(os.environ.get("KERNOS_PROVE"))
RELOADS = 1_000 if PROVE else 20
KILLS = 60 if PROVE else 2
CLIENTS = 4


@dataclass
class Watcher:
    """Calls without a pause, and holds each answer against what the policy said while the call was made."""

    kernel: RunningKernel
    key: Key
    states: list[bool]
    """Whether pings are allowed, one entry for each policy so far; the last two may both be in force while one is applied."""
    settled: list[int]
    """How many policies were in force for sure; grows after the reply to an apply."""
    ends: threading.Event
    answers: int = 0
    wrong: list[str] = field(default_factory=list)

    def run(self) -> None:
        with self.kernel.connect(self.key) as own:
            while not self.ends.is_set():
                before = self.settled[-1]
                allowed = answers(own)
                if allowed not in self.states[before - 1 :]:
                    self.wrong.append(f"{'allowed' if allowed else 'denied'} after policy {before}")
                self.answers += 1


@contextmanager
def watching(kernel: RunningKernel, key: Key, states: list[bool], settled: list[int]) -> Iterator[list[Watcher]]:
    ends = threading.Event()
    watchers = [Watcher(kernel, key, states, settled, ends) for _ in range(CLIENTS)]
    threads = [threading.Thread(target=watcher.run) for watcher in watchers]
    for thread in threads:
        thread.start()
    try:
        yield watchers
    finally:
        ends.set()
        for thread in threads:
            thread.join()


def with_pings(files: Files, allowed: bool, number: int) -> Files:
    """The shipped policy, with pings of one app given by a role, denied or not: the case that a live reload gets wrong."""
    deny = "" if allowed else "p, role:watched, system, ping, deny\n"
    text = f"# {number}\ng, app:watched, role:watched\np, role:watched, system, status, allow\n{deny}# end\n"
    return {**files, "policy.d/50-watched.csv": text.encode()}


@pytest.fixture(autouse=True)
def _no_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels without models boot quickly, and the law does not need any."""
    monkeypatch.setenv("KERNOS_MODELS", str(tmp_path / "none"))


def test_reloads_under_calling_clients_never_answer_wrongly() -> None:
    chance = random.Random(5)
    with booted() as kernel, kernel.connect() as root, kernel.connect(key := kernel.enroll("app:watched")) as own:
        files = root.call(FetchPolicy()).files
        states, settled, visible_ms = [True], [1], []
        with watching(kernel, key, states, settled) as watchers:
            for number in range(RELOADS):
                states.append(chance.random() < 0.5)
                draft = with_pings(files, states[-1], number)
                done = root.call(ApplyPolicy(files=draft, reason="a reload"))
                applied = perf_counter()
                settled.append(len(states))
                assert answers(own) == states[-1]
                visible_ms.append((perf_counter() - applied) * 1_000)
                assert root.call(GetPolicy()).hash == done.hash == hash_files(draft)
        assert [line for watcher in watchers for line in watcher.wrong] == []
        assert min(watcher.answers for watcher in watchers) > RELOADS
        assert {True, False} <= set(states)
        assert percentile(visible_ms, 100) < 100


def answers(kernel: Kernel) -> bool:
    try:
        kernel.call(Ping())
    except DeniedError:
        return False
    return True


def test_killed_while_applying_it_comes_back_with_the_old_or_the_new(tmp_path: Path) -> None:
    """At random moments of an apply, as long as one takes on this machine. `test_generations.py` kills before each of its steps."""
    chance = random.Random(7)
    home = tmp_path.parent / f"k{os.getpid()}"  # short, for the sockets
    home.mkdir()
    with booted(home=str(home)) as kernel, kernel.connect() as root:
        files, began = root.call(FetchPolicy()).files, perf_counter()
        known = {root.call(ApplyPolicy(files=with_pings(files, True, -1), reason="as long as it takes")).hash}
        took = perf_counter() - began
    new, came_up = "", list[bool]()
    for number in range(KILLS + 1):
        with booted(home=str(home)) as kernel, kernel.connect() as root:
            found = root.call(FetchPolicy())
            assert found.hash in known, "what was acknowledged holds; else the old one, or the new one, whole"
            assert found.hash == root.call(GetPolicy()).hash == hash_files(found.files)
            assert root.call(ListProcesses(scope="all")).processes == []
            came_up.append(found.hash == new)
            if number < KILLS:
                draft = with_pings(files, bool(number % 2), number)
                new = hash_files(draft)
                threading.Timer(chance.uniform(0.0, 1.2 * took), kernel.process.kill).start()
                known = {acknowledged} if (acknowledged := applied(root, draft)) else {found.hash, new}
                kernel.process.wait(20)
    assert not PROVE or {True, False} == set(came_up[1:]), "it was never killed before, or never after it was written down"


def applied(kernel: Kernel, draft: Files) -> str:
    """The hash of a policy, if its apply was acknowledged; one that is killed never answers, and is not waited for longer than it takes."""
    try:
        return kernel.call(ApplyPolicy(files=draft, reason="it is killed"), timeout=3).hash
    except KernosError:
        return ""
