"""KV pages that left the device: what coming back costs against computing again, and more agents than the device has room for.

**Coming back.** An agent with 1,024 tokens behind it is stopped, others push its pages down to the host pool, or on into the swap file,
whose page cache is then dropped; it is let go on. `host_gain` and `disk_gain` are the time to its next token where nothing is kept,
over that time here: everything a client waits for, the step of its token included. Rounds of the three kernels take turns.

**Overcommit.** 64 agents on 8 slots change places every 32 tokens. `overcommit` is their throughput with device pages for 8 of them, the
rest in host memory and the swap file, over that with room for all; `identical` is the share of turns with the same tokens, in fp32.
"""

import asyncio
import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from kernos.syscalls import AsyncKernel, Kernel
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
    found = {place: median(times) for place, times in seconds.items()}
    return {
        "host_gain": found["nowhere"] / found["host"],
        "disk_gain": found["nowhere"] / found["disk"],
        **{f"resume_ms_{place}": 1_000 * time for place, time in found.items()},
    }


@dataclass
class Stopped:
    """An agent stopped in the middle of an answer, and when each of its tokens came."""

    agent: AsyncKernel
    task: "asyncio.Task[None]"
    times: list[float]


async def come_back(kernel: RunningKernel, model: str, place: str, number: int) -> float:
    """Stop an agent, push its pages down, let it go on; seconds until its next token."""
    async with AsyncKernel(kernel.key, where=kernel.where) as connection:
        first, second, third = [await stopped(connection, model, f"{number}{name}") for name in "abc"]
        await settle(kernel, place)
        before = len(first.times)
        began = perf_counter()
        await connection.call(SendSignal(pid=first.agent.pid, signal="continue"), urgent=True)
        while len(first.times) == before:
            await asyncio.sleep(0)
        for each in (first, second, third):
            await each.agent.exit()
            each.task.cancel()
        await asyncio.gather(*(each.task for each in (first, second, third)), return_exceptions=True)
        return first.times[before] - began


async def stopped(connection: AsyncKernel, model: str, name: str) -> Stopped:
    """An agent with so many tokens behind it that has begun to answer, and was stopped."""
    agent = await connection.spawn("sleeper")
    messages = await prompt(connection, model, name, TOKENS)
    times: list[float] = []
    task = asyncio.create_task(answer(agent, Generate(model=model, messages=messages, max_tokens=400, ignore_eos=True), times))
    while len(times) < 3:
        await asyncio.sleep(0)
    await connection.call(SendSignal(pid=agent.pid, signal="stop"), urgent=True)
    return Stopped(agent, task, times)


async def answer(agent: AsyncKernel, call: Generate, times: list[float]) -> None:
    """Note when each token comes."""
    async with agent.stream(call) as stream:
        async for _ in stream:
            times.append(perf_counter())  # noqa: PERF401  (others look at it meanwhile)


async def settle(kernel: RunningKernel, place: str) -> None:
    """Until the pages of the first agent are where they should be; on disk, they are there alone."""
    with kernel.connect() as connection:
        while (
            place == "disk" and sum(use.held for use in connection.call(GetStatus(), urgent=True).pages if use.tier == "disk") < PAGES - 1
        ):
            await asyncio.sleep(0)
        if place == "disk":
            drop_page_cache(connection)


def drop_page_cache(connection: Kernel) -> None:
    """Write out the swap file of the device server, and let the system forget what it cached of it. It has no name, but a descriptor."""
    server = next(device for device in connection.call(GetStatus(), urgent=True).devices if device.device == "decoder")
    for link in Path(f"/proc/{server.os_pid}/fd").iterdir():
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
