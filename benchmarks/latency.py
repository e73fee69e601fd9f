"""How long an urgent turn waits when every slot is taken: time to first token under `fair` and under `fifo`, on the same trace.

Batch turns fill the slots and the queue, and for each that ends another comes; interactive turns arrive by a Poisson process of a fixed
seed, another in each round. `ttft_p99_steps` is how long such a turn waits for its first token besides the computing of its own prompt,
which the reply tells (`Timing.prefill`), in steps that decode eight rows, measured on the idle kernel before and after: the median of the
rounds' own. What a turn takes alone is printed beside it; to subtract that instead, as it was minutes before, charges the scheduler with
every change of the machine's pace.
"""

import asyncio
import itertools
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Final, TypeVar

from kernos.syscalls import AsyncKernel

from .kernel import RunningKernel, booted
from .report import median, percentile
from .turns import Timed, prompt, timed, timed_all

T = TypeVar("T")

SLOTS: Final = 8
PROMPT, NEW = 64, 16
"""Tokens of an interactive turn."""

ALONE: Final = 5
"""Turns on the idle kernel, before the trace and after it."""


@dataclass(frozen=True)
class Load:
    """What waits, and what arrives."""

    waiting: int
    prompt: int
    new: int
    arrivals: int
    """In a round."""
    rate: float
    """Arrivals per second. Urgent turns shall be few: those that come together wait for each other's prompts whatever a scheduler does."""
    rounds: int

    def trace(self, number: int) -> list[float]:
        """The pauses in seconds before each arrival of a round, always the same."""
        rng = random.Random(number)
        return [rng.expovariate(self.rate) for _ in range(self.arrivals)]


FULL: Final = Load(waiting=32, prompt=256, new=256, arrivals=24, rate=0.25, rounds=3)
QUICK: Final = Load(waiting=8, prompt=128, new=64, arrivals=4, rate=0.5, rounds=1)


def measure(quick: bool) -> dict[str, float]:
    """Both kernels, one after the other."""
    load = QUICK if quick else FULL
    with booted(config=_config("fair")) as kernel:
        alone, step, ours = asyncio.run(_ours(kernel, load))
    with booted(config=_config("fifo")) as kernel:
        theirs = asyncio.run(arrive_at(kernel, kernel.load_models(), load, 0))
    first = [[turn.first for turn in turns] for turns in ours]
    waiting = [[turn.first - turn.answer.timing.prefill for turn in turns] for turns in ours]
    fifo = percentile([turn.first for turn in theirs], 99)
    return {
        "ttft_p99_steps": _usual(waiting, 99) / step,
        "vs_fifo": fifo / percentile(first[0], 99),
        "ttft_p50_steps": _usual(waiting, 50) / step,
        "ttft_p50_ms": _usual(first, 50) * 1_000,
        "ttft_p99_ms": _usual(first, 99) * 1_000,
        "fifo_ttft_p99_ms": fifo * 1_000,
        "alone_ttft_ms": alone * 1_000,
        "step_ms": step * 1_000,
    }


def _usual(rounds: list[list[float]], percent: float) -> float:
    """The median of the rounds' own percentiles."""
    return median([percentile(times, percent) for times in rounds])


def _config(policy: str) -> str:
    return f'slots = {SLOTS}\npolicy = "{policy}"\n'


async def _ours(kernel: RunningKernel, load: Load) -> tuple[float, float, list[list[Timed]]]:
    model = kernel.load_models()
    async with AsyncKernel(kernel.key, where=kernel.where) as connection:
        alone, steps = await _idle(connection, model, "before")
        found = [await arrive_at(kernel, model, load, number) for number in range(load.rounds)]
        later = await _idle(connection, model, "after")  # a machine that changes its pace meanwhile is met half-way
    return median(alone + later[0]), median(steps + later[1]), found


async def _idle(connection: AsyncKernel, model: str, when: str) -> tuple[list[float], list[float]]:
    """Times to first token of interactive turns alone, and steps of eight rows."""
    alone = [(await _urgent(connection, model, f"{when} {number}")).first for number in range(ALONE)]
    return alone, await _steps(connection, model, when)


async def _urgent(connection: AsyncKernel, model: str, name: str) -> Timed:
    agent = await connection.spawn("urgent", priority="interactive")
    turn = await timed(agent, model, await prompt(connection, model, name, PROMPT), NEW)
    await agent.exit()
    return turn


async def _steps(connection: AsyncKernel, model: str, when: str) -> list[float]:
    """Steps that decode a token of each of eight rows, by the pauses between tokens while all eight run."""
    agents = [await connection.spawn("row") for _ in range(SLOTS)]
    prompts = [await prompt(connection, model, f"row {when} {number}", PROMPT) for number in range(SLOTS)]
    turns = await timed_all(agents, model, prompts, 48)
    for agent in agents:
        await agent.exit()
    last_begun, first_ended = max(turn.first for turn in turns), min(turn.times[-1] for turn in turns)
    both = zip([time for turn in turns for time in turn.times[1:]], [gap for turn in turns for gap in turn.gaps], strict=True)
    return [gap for time, gap in both if last_begun + gap < time <= first_ended]


async def arrive_at(kernel: RunningKernel, model: str, load: Load, number: int) -> list[Timed]:
    """The interactive turns of a round, which come once every slot is taken."""
    async with AsyncKernel(kernel.key, where=kernel.where) as connection:
        agents = [await connection.spawn("batch", priority="batch") for _ in range(SLOTS + load.waiting)]

        async def batch(row: int, begun: Callable[[], object]) -> None:
            agent = agents[row]
            for turn in itertools.count():
                messages = await prompt(agent, model, f"batch {number} {agent.pid} {turn}", load.prompt)
                await timed(agent, model, messages, load.new, begun)

        async def urgent(arrival: int) -> Timed:
            return await _urgent(connection, model, f"urgent {number} {arrival}")

        found = await arrive(load, number, batch, urgent)
        for agent in agents:
            await agent.exit()
    return found


async def arrive(
    load: Load,
    number: int,
    batch: Callable[[int, Callable[[], object]], Coroutine[None, None, None]],
    urgent: Callable[[int], Coroutine[None, None, T]],
) -> list[T]:
    """A round of any engine: what `urgent` turns gave, which came once every slot was taken.

    `batch` asks without end on behalf of a row, and calls what it is given whenever a turn begins.
    """
    async with asyncio.TaskGroup() as group:
        begun = asyncio.Semaphore(0)
        rows = [group.create_task(batch(row, begun.release)) for row in range(SLOTS + load.waiting)]
        for _ in range(SLOTS):
            await begun.acquire()
        arrivals = []
        for arrival, pause in enumerate(load.trace(number)):
            await asyncio.sleep(pause)
            arrivals.append(group.create_task(urgent(arrival)))
        found = [await turn for turn in arrivals]
        for task in rows:
            task.cancel()
    return found
