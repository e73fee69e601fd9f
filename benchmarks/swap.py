"""KV pages that left the device: what coming back costs against computing again, and more agents than the device has room for.

**Coming back.** An agent with 1,024 tokens behind it is stopped, others push its pages down to the host pool, or on into the swap file,
whose page cache is then dropped; it is let go on. What that costs is the time until its client has the next token, less that of a step,
which everybody pays. `host_gain` and `disk_gain` are the cost where nothing is kept, and all is computed again, over the cost here. Three
kernels take turns.

**Overcommit.** 64 agents on 8 slots change places every 32 tokens. `overcommit` is their throughput with device pages for 8 of them, the
rest in host memory and the swap file, over that with room for all; `identical` is the share of turns with the same tokens, in fp32.
"""

import asyncio
import os
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from time import perf_counter

from kernos.syscalls import AsyncKernel
from kernos.syscalls.model import Generate
from kernos.syscalls.process import SendSignal
from kernos.syscalls.system import GetStatus

from . import report
from .kernel import RunningKernel, booted
from .report import Target, median
from .sharing import Round, Wheel, differing, turn_round
from .turns import prompt

TARGETS = {
    "host_gain": Target(20.0, at_least=True),
    "disk_gain": Target(5.0, at_least=True),
    "overcommit": Target(0.8, at_least=True),
    "identical": Target(1.0, at_least=True),
}

TOKENS = 1_024
POLL_S = 0.01
STEPS = 12
"""Tokens after which a step's time is known."""
SETTLE_S = 0.5
"""For the step under way to end and the last page to be written."""
PAGES = TOKENS // 64 + 2
"""Of the agent that comes back, with the few tokens it produced."""

PLACES = {
    "nowhere": "kv_pages = 0\nhost_pages = 0\ndisk_pages = 0\n",
    "host": f"kv_pages = {PAGES}\nhost_pages = {8 * PAGES}\ndisk_pages = 0\n",
    "disk": f"kv_pages = {PAGES}\nhost_pages = {PAGES}\ndisk_pages = {8 * PAGES}\n",
}
"""Where the pages of a stopped agent are when another was stopped after it and a third one runs."""

WHEEL = Wheel(agents=64, new=96, rounds=3)
QUICK_WHEEL = Wheel(agents=24, new=64, rounds=1)


def main() -> None:
    """Measure and publish."""
    given = report.options(__doc__, ["resume", "overcommit"])
    figures: dict[str, float] = {}
    if "resume" in given.parts:
        figures |= measure_resume(3 if given.quick else 7)
    if "overcommit" in given.parts:
        figures |= measure_overcommit(QUICK_WHEEL if given.quick else WHEEL)
    report.publish("swap", given, figures, {name: target for name, target in TARGETS.items() if name in figures})


# --- coming back ------------------------------------------------------------------------------------------------------------------


def measure_resume(rounds: int) -> dict[str, float]:
    """Seconds until the next token, by where the pages were."""
    seconds: dict[str, list[float]] = {place: [] for place in PLACES}
    with ExitStack() as stack:
        kernels = {place: stack.enter_context(booted(config="slots = 2\n" + settings)) for place, settings in PLACES.items()}
        (model,) = {kernel.load_models() for kernel in kernels.values()}
        for number in range(rounds):
            for place, kernel in kernels.items():
                seconds[place].append(asyncio.run(come_back(kernel, model, place, number)))
    cost = {place: median(times) for place, times in seconds.items()}
    return {
        "host_gain": cost["nowhere"] / cost["host"],
        "disk_gain": cost["nowhere"] / cost["disk"],
        **{f"resume_ms_{place}": 1_000 * time for place, time in cost.items()},
    }


class Sleeper:
    """An agent with so many tokens behind it that is stopped in the middle of an answer."""

    def __init__(self, agent: AsyncKernel) -> None:
        self.agent = agent
        self.times: list[float] = []
        """When tokens came."""
        self._came = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    async def fall_asleep(self, model: str, name: str) -> None:
        """Begin to answer, and be stopped."""
        messages = await prompt(self.agent, model, name, TOKENS)
        self.task = asyncio.create_task(self._answer(Generate(model=model, messages=messages, max_tokens=400, ignore_eos=True)))
        await self._count(3)
        await self.agent.call(SendSignal(pid=self.agent.pid, signal="stop"), urgent=True)

    async def wake_up(self) -> float:
        """Go on; seconds until the next token, less those of a step."""
        self.times.clear()
        began = perf_counter()
        await self.agent.call(SendSignal(pid=self.agent.pid, signal="continue"), urgent=True)
        await self._count(STEPS)
        step = median([later - sooner for sooner, later in pairwise(self.times)])
        return self.times[0] - began - step

    async def _count(self, tokens: int) -> None:
        """Wait for so many tokens."""
        while len(self.times) < tokens:
            self._came.clear()
            await self._came.wait()

    async def _answer(self, call: Generate) -> None:
        async with self.agent.stream(call) as stream:
            async for _ in stream:
                self.times.append(perf_counter())
                self._came.set()


async def come_back(kernel: RunningKernel, model: str, place: str, number: int) -> float:
    """Stop an agent, push its pages down, let it go on; what that cost, in seconds."""
    async with AsyncKernel(kernel.key, where=kernel.where) as connection:
        sleepers = [Sleeper(await connection.spawn("sleeper")) for _ in range(3)]
        for sleeper, name in zip(sleepers, "abc", strict=True):
            await sleeper.fall_asleep(model, f"{number}{name}")
        os_pid = await settle(connection, place)
        if place == "disk":
            drop_page_cache(os_pid)
        seconds = await sleepers[0].wake_up()
        for sleeper in sleepers:
            await sleeper.agent.exit()
        await asyncio.gather(*(sleeper.task for sleeper in sleepers if sleeper.task), return_exceptions=True)
        return seconds


async def settle(connection: AsyncKernel, place: str) -> int:
    """Wait until the pages of the first agent are where they should be and nothing moves any more; the device server's process id."""
    while True:
        status = await connection.call(GetStatus(), urgent=True)
        held: dict[str, int] = {use.tier: use.held for use in status.pages}
        if place == "nowhere" or held[place] >= TOKENS // 64:
            break
        await asyncio.sleep(POLL_S)
    await asyncio.sleep(SETTLE_S)
    return next(device.os_pid for device in status.devices if device.device == "decoder")


def drop_page_cache(os_pid: int) -> None:
    """Write out the swap file of a device server, and let the system forget what it cached of it. It has no name, but a descriptor."""
    for link in Path(f"/proc/{os_pid}/fd").iterdir():
        if "swap." in str(link.readlink()):
            with link.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


# --- overcommit -------------------------------------------------------------------------------------------------------------------


def measure_overcommit(wheel: Wheel) -> dict[str, float]:
    """Throughput with few pages over that with enough, in turn."""
    each = -(-(wheel.prompt + wheel.new) // 64) + 1
    settings = 'slots = 8\ndtype = "float32"\npolicy = "rr"\n'
    few = settings + f"kv_pages = {8 * each}\nhost_pages = {24 * each}\ndisk_pages = {wheel.agents * each}\n"
    enough = settings + f"kv_pages = {2 * wheel.agents * each}\nhost_pages = 0\ndisk_pages = 0\n"
    crowded: list[Round] = []
    roomy: list[Round] = []
    with booted(config=few) as one, booted(config=enough) as other:
        model = one.load_models()
        other.load_models()
        for number in range(wheel.rounds):
            crowded.append(asyncio.run(turn_round(one, model, wheel, number)))
            roomy.append(asyncio.run(turn_round(other, model, wheel, number)))
    ratios = [one.tokens_per_s / other.tokens_per_s for one, other in zip(crowded, roomy, strict=True)]
    return {
        "overcommit": median(ratios),
        "identical": 1 - differing(crowded, roomy),
        "crowded_tokens_per_s": median([round_.tokens_per_s for round_ in crowded]),
        "roomy_tokens_per_s": median([round_.tokens_per_s for round_ in roomy]),
    }


if __name__ == "__main__":
    main()
