"""What it costs to share a device, and how evenly it is shared: 64 agents that rotate through 8 slots, and 21 that always want more.

**Rotation.** The same turns run under `rr`, where every running row changes every 32 tokens, and under `fifo`, where each runs to its
end undisturbed. `overhead` is the throughput of the first over that of the second, the median of rounds in which the two kernels take
turns. That rows really changed shows from outside, by pauses between the tokens of an answer that are many steps long.

**Shares.** Agents of weights 1 : 2 : 4 and of very different call sizes keep three calls in flight each. Their service is what the
process table says; `fair_error` is the largest deviation of anybody's service by weight from the mean, `split_gain` what agents gain by
cutting their work into calls ten times as small, the median over pairs that are otherwise alike.
"""

import asyncio
from dataclasses import dataclass
from time import perf_counter
from typing import Final

from kernos.syscalls import AsyncKernel
from kernos.syscalls.model import Generate, Message
from kernos.syscalls.process import ListProcesses, Nice

from .kernel import RunningKernel, booted
from .report import median
from .turns import prompt, timed_all

SLOTS: Final = 8
AWAY: Final = 10
"""A pause of so many usual ones between two tokens: the turn was off the device."""


# --- rotation ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wheel:
    """The turns of a round."""

    agents: int
    new: int
    rounds: int
    prompt: int = 64


FULL: Final = Wheel(agents=64, new=128, rounds=3)
EXACT: Final = Wheel(agents=24, new=128, rounds=1)
"""In fp32, where only the tokens are looked at."""
QUICK: Final = Wheel(agents=16, new=96, rounds=2)
QUICK_EXACT: Final = Wheel(agents=16, new=96, rounds=1)


@dataclass(frozen=True)
class Round:
    """What became of the turns of a round."""

    tokens_per_s: float
    cpu_ms: float
    """Of processor time for a token: where others use the machine it says more than the throughput."""
    answers: list[list[int]]
    away: int
    """How often the turn that left its slot least often did."""


def measure_overhead(quick: bool) -> dict[str, float]:
    """In the arithmetic the device is fastest in for the throughput, in fp32 for the tokens."""
    wheel, exact = (QUICK, QUICK_EXACT) if quick else (FULL, EXACT)
    rotating, undisturbed = _alternate(wheel, "auto")
    ratios = [one.tokens_per_s / other.tokens_per_s for one, other in zip(rotating, undisturbed, strict=True)]
    exact_rotating, exact_undisturbed = _alternate(exact, "float32")
    assert min(round_.away for round_ in rotating + exact_rotating) >= 2, "turns kept their slots: nothing was rotated"
    return {
        "overhead": median(ratios),
        "rotating_tokens_per_s": median([round_.tokens_per_s for round_ in rotating]),
        "undisturbed_tokens_per_s": median([round_.tokens_per_s for round_ in undisturbed]),
        "rotating_cpu_ms": median([round_.cpu_ms for round_ in rotating]),
        "undisturbed_cpu_ms": median([round_.cpu_ms for round_ in undisturbed]),
        "least_rotations": min(round_.away for round_ in rotating),
        "fp32_identical": 1 - differing(exact_rotating, exact_undisturbed),
        "flips": differing(rotating, undisturbed),
    }


def differing(some: list[Round], others: list[Round]) -> float:
    """The share of turns with other tokens."""
    pairs = [pair for one, other in zip(some, others, strict=True) for pair in zip(one.answers, other.answers, strict=True)]
    return sum(one != other for one, other in pairs) / len(pairs)


def _alternate(wheel: Wheel, dtype: str) -> tuple[list[Round], list[Round]]:
    """Rounds of two kernels in turn: rotating, and undisturbed."""
    settings = f'slots = {SLOTS}\ndtype = "{dtype}"\n'
    rotating: list[Round] = []
    undisturbed: list[Round] = []
    with booted(config=settings + 'policy = "rr"\n') as one, booted(config=settings + 'policy = "fifo"\n') as other:
        model = one.load_models()
        other.load_models()
        for number in range(wheel.rounds):
            rotating.append(asyncio.run(turn_round(one, model, wheel, number)))
            undisturbed.append(asyncio.run(turn_round(other, model, wheel, number)))
    return rotating, undisturbed


async def turn_round(kernel: RunningKernel, model: str, wheel: Wheel, number: int) -> Round:
    """All turns of a wheel at once, with prompts of this round's own."""
    async with AsyncKernel(kernel.key, where=kernel.where) as connection:
        agents = [await connection.spawn("wheel") for _ in range(wheel.agents)]
        prompts = [await prompt(connection, model, f"{number} {agent}", wheel.prompt) for agent in range(wheel.agents)]
        started, cpu_s = perf_counter(), kernel.cpu_s()
        turns = await timed_all(agents, model, prompts, wheel.new)
        seconds, cpu_s = perf_counter() - started, kernel.cpu_s() - cpu_s
        for agent in agents:
            await agent.exit()
    usual = median([gap for turn in turns for gap in turn.gaps])
    away = min(sum(gap > AWAY * usual for gap in turn.gaps) for turn in turns)
    tokens = wheel.agents * wheel.new
    return Round(tokens / seconds, cpu_s * 1_000 / tokens, [turn.answer.tokens for turn in turns], away)


# --- shares -----------------------------------------------------------------------------------------------------------------------

WEIGHTS: Final = (0.25, 0.5, 1.0)
SIZES: Final = (8, 16, 24, 80, 160, 240, 400)
"""Tokens of a call; three of them are a tenth of another."""

IN_FLIGHT: Final = 3
"""Calls of an agent: while one answer is on its way to it, the others wait for a slot or have one."""


LEVEL: Final = 32.0
"""Tokens by weight that members may be apart once their head starts are gone: a quantum, as was measured from then on (16 to 36)."""

SETTLE_S: Final = 5.0
"""From then until the window begins: at a moment that their service has not chosen."""


@dataclass(frozen=True, eq=False)
class Member:
    """An agent that always wants more."""

    agent: AsyncKernel
    weight: float
    size: int


def measure_fairness(quick: bool) -> dict[str, float]:
    """Service over a window, by weight."""
    with booted(config=f"slots = {SLOTS}\n") as kernel:
        model = kernel.load_models()
        shares = asyncio.run(_compete(kernel, model, window_s=12.0 if quick else 60.0))
    mean = sum(shares.values()) / len(shares)
    gains = [shares[weight, size] / shares[weight, 10 * size] for weight in WEIGHTS for size in SIZES if 10 * size in SIZES]
    return {
        "fair_error": max(abs(share / mean - 1) for share in shares.values()),
        "split_gain": median(gains),
        "service_by_weight": mean,
    }


async def _compete(kernel: RunningKernel, model: str, window_s: float) -> dict[tuple[float, int], float]:
    """Service by weight of each agent within the window, by its weight and call size."""
    async with AsyncKernel(kernel.key, where=kernel.where) as connection:
        members = [Member(await connection.spawn("member"), weight, size) for weight in WEIGHTS for size in SIZES]
        for member in members:
            await connection.call(Nice(pid=member.agent.pid, priority="normal", weight=member.weight))
        tasks = [asyncio.create_task(_want_more(member, model)) for member in members for _ in range(IN_FLIGHT)]
        await _level(connection, members)
        await asyncio.sleep(SETTLE_S)
        before = await _shares(connection, members)
        await asyncio.sleep(window_s)
        after = await _shares(connection, members)
        for task in tasks:
            assert not task.done(), f"an agent wants no more: {task}"
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return {(member.weight, member.size): after[member] - before[member] for member in members}


async def _want_more(member: Member, model: str) -> None:
    ask = [Message("system", "Tell."), Message("user", f"Story {member.agent.pid}.")]
    while True:
        await member.agent.call(Generate(model=model, messages=ask, max_tokens=member.size, ignore_eos=True))


async def _level(connection: AsyncKernel, members: list[Member]) -> None:
    """Wait until all have been served, and those that came into empty slots have lost their head start."""
    shares: dict[Member, float] = {}
    while not shares or min(shares.values()) == 0 or max(shares.values()) - min(shares.values()) > LEVEL:
        await asyncio.sleep(0.5)
        shares = await _shares(connection, members)


async def _shares(connection: AsyncKernel, members: list[Member]) -> dict[Member, float]:
    """Service so far, by weight."""
    table = await connection.call(ListProcesses(scope="own"), urgent=True)
    service = {row.pid: row.service for row in table.processes}
    return {member: service[member.agent.pid] / member.weight for member in members}
