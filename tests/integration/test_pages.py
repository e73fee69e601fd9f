"""KV pages on a real device: they come back when their owners are gone, and in whatever tier they were no token changes."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from benchmarks.kernel import RunningKernel, booted
from kernos.syscalls import AsyncKernel, Kernel
from kernos.syscalls.model import Generate, Message
from kernos.syscalls.process import ListProcesses, SendSignal
from kernos.syscalls.system import GetStatus, Status

MODEL = "smollm2-135m"
COUNT = 7

PROGRAM = """
import sys
from pathlib import Path
from kernos.syscalls import Kernel, places
from kernos.syscalls.keys import own_key
from kernos.syscalls.model import Generate, Message

with Kernel(own_key(places(Path(sys.argv[1]))), where=places(Path(sys.argv[1]))) as kernel:
    agents = [kernel.spawn("doomed") for _ in range(3)]
    ask = Generate(model="smollm2-135m", messages=[Message("user", "Tell me " + "more and " * 80 + "more.")], max_tokens=5)
    agents[0].call(ask)
    streams = [agent.stream(ask) for agent in agents]
    for stream in streams:
        next(stream)
    print("computing", flush=True)
    sys.stdin.readline()
"""


def in_use(status: Status) -> dict[str, int]:
    """Pages by tier."""
    return {use.tier: use.held for use in status.pages}


def held(kernel: Kernel) -> dict[str, int]:
    return in_use(kernel.call(GetStatus(), urgent=True))


def test_the_pages_of_a_killed_program_are_back_within_a_second(kernel: RunningKernel) -> None:
    home = kernel.where.config.parent
    with kernel.connect() as admin:
        before = held(admin)
        command = [sys.executable, "-c", PROGRAM, str(home)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
            assert program.stdout is not None
            assert program.stdout.readline() == b"computing\n"
            for row in admin.call(ListProcesses(scope="all")).processes:
                if row.name == "doomed":
                    admin.call(SendSignal(pid=row.pid, signal="stop"))
            assert held(admin)["device"] > before["device"], "stopped turns keep their pages"
            program.kill()
            killed = monotonic()
        while held(admin) != before:
            assert monotonic() - killed < 1.0, f"{held(admin)} pages are in use, and {before} were before"


@pytest.fixture(scope="module")
def small(models: Path) -> Iterator[RunningKernel]:
    """A kernel with far fewer pages than its agents need."""
    with booted("--dtype", "float32", config="slots = 2\nkv_pages = 6\nhost_pages = 14\ndisk_pages = 200\n") as running:
        running.load_models()
        yield running


def story(number: int) -> Generate:
    text = f"Story {number}: " + f"the {number + 2} sailors saw a light, " * 12 + "and then?"
    return Generate(model=MODEL, messages=[Message("user", text)], max_tokens=40, ignore_eos=True)


async def crowd(running: RunningKernel) -> tuple[list[list[int]], int]:
    """What several agents say at once, and the most pages that were seen on disk meanwhile."""
    async with AsyncKernel(running.key, where=running.where) as connection:
        agents = [await connection.spawn("crowd") for _ in range(COUNT)]
        asked = [asyncio.create_task(agent.call(story(number))) for number, agent in enumerate(agents)]
        most = 0
        while not all(ask.done() for ask in asked):
            most = max(most, in_use(await connection.call(GetStatus(), urgent=True))["disk"])
        return [ask.result().tokens for ask in asked], most


def test_agents_that_overflow_the_pools_say_what_they_say_in_large_ones(kernel: RunningKernel, small: RunningKernel) -> None:
    answers, most = asyncio.run(crowd(small))
    assert answers == asyncio.run(crowd(kernel))[0]
    assert most > 0, "nothing was written to the swap file: the pools were too large for this test"
