"""What a flood in one app does to the others: times to first token with and without it, under quotas.

The turns of three apps arrive by Poisson processes of fixed seeds, each with a third of 70 % of what the device was measured to serve; each
app may have a little more than that (`process.set_limits`, as an administrator would). Then one of them sends ten times as much, and does
not wait when it is refused. `flood_ratio` is the worst of the others' p99 over their own without a flood, floods of each class pooled over
rounds in which calm and flood take turns.
"""

import asyncio
import random
from collections import defaultdict
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final

from kernos.syscalls import AsyncKernel
from kernos.syscalls.errors import BusyError
from kernos.syscalls.model import Generate, Message
from kernos.syscalls.process import Priority, SetLimits

from .kernel import RunningKernel, booted
from .report import percentile
from .turns import prompt

APPS: Final[dict[str, Priority]] = {"customer_service": "interactive", "medical_qa": "interactive", "finance_monitor": "normal"}
"""Which class each app's agents are in."""

SLOTS: Final = 8
PROMPT, NEW = 48, 12
"""Tokens of a turn."""

LOAD: Final = 0.7
FLOOD: Final = 10
ROOM: Final = 1.25
"""What an app may use of tokens, over what it usually does."""
TURNS: Final = 4
"""What an app may have under way: twice what it usually has."""
POOL: Final = 32
"""Agents of an app; an arrival takes one that is free."""


@dataclass(frozen=True)
class Plan:
    """How long is measured."""

    seconds: float
    rounds: int
    floods: tuple[str, ...]


FULL: Final = Plan(40.0, 2, ("customer_service", "finance_monitor"))
QUICK: Final = Plan(10.0, 1, ("customer_service",))


@dataclass
class Crew:
    """The agents of an app."""

    app: str
    connection: AsyncKernel
    free: "asyncio.Queue[AsyncKernel]"
    prompts: list[list[Message]]
    refused: int = 0
    firsts: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Seconds to the first token, by what went on meanwhile."""


def measure(quick: bool) -> dict[str, float]:
    """One kernel for all of it."""
    plan = QUICK if quick else FULL
    with booted(config=f"slots = {SLOTS}\n") as kernel:
        return asyncio.run(_measure(kernel, kernel.load_models(), plan))


async def _measure(kernel: RunningKernel, model: str, plan: Plan) -> dict[str, float]:
    crews = [await _crew(kernel, app, model) for app in APPS]
    rate = LOAD * await _capacity(crews, model, plan.seconds / 4) / len(crews)
    with kernel.connect() as admin:
        for app in APPS:
            tokens = round(ROOM * rate * (PROMPT + NEW) * 60)
            admin.call(SetLimits(principal=f"app:{app}", limits={"tokens_per_minute": tokens, "turns": TURNS}))
    for number in range(plan.rounds):
        for flooding in ("", *plan.floods):
            await asyncio.gather(*(_arrivals(crew, model, rate, plan.seconds, number, flooding) for crew in crews))
    figures = {f"flood_ratio_{flooding}": _worst(crews, flooding) for flooding in plan.floods}
    calm = [first for crew in crews for first in crew.firsts[""]]
    await asyncio.gather(*(crew.connection.close() for crew in crews))
    return {
        "flood_ratio": max(figures.values()),
        **figures,
        "calm_ttft_p50_ms": percentile(calm, 50) * 1_000,
        "calm_ttft_p99_ms": percentile(calm, 99) * 1_000,
        "turns_per_s_per_app": rate,
        "turns_timed": float(sum(len(times) for crew in crews for times in crew.firsts.values())),
        "flood_refused": float(sum(crew.refused for crew in crews)),
    }


def _worst(crews: list[Crew], flooding: str) -> float:
    """The largest p99 of an app beside the flood, over its own without."""
    others = [crew for crew in crews if crew.app != flooding]
    return max(percentile(crew.firsts[flooding], 99) / percentile(crew.firsts[""], 99) for crew in others)


async def _crew(kernel: RunningKernel, app: str, model: str) -> Crew:
    connection = AsyncKernel(kernel.enroll(f"app:{app}"), where=kernel.where)
    free: asyncio.Queue[AsyncKernel] = asyncio.Queue()
    for _ in range(POOL):
        free.put_nowait(await connection.spawn("worker", priority=APPS[app]))
    return Crew(app, connection, free, [await prompt(connection, model, f"{app} {number}", PROMPT) for number in range(POOL)])


async def _capacity(crews: list[Crew], model: str, seconds: float) -> float:
    """Turns per second when every slot always has one."""
    until, ended = perf_counter() + seconds, 0

    async def keep_busy(crew: Crew, number: int) -> None:
        nonlocal ended
        agent = await crew.free.get()
        while perf_counter() < until:
            await agent.call(_turn(model, crew.prompts[number]))
            ended += perf_counter() < until
        crew.free.put_nowait(agent)

    began = perf_counter()
    await asyncio.gather(*(keep_busy(crews[number % len(crews)], number) for number in range(SLOTS)))
    return ended / (until - began)


async def _arrivals(crew: Crew, model: str, rate: float, seconds: float, number: int, flooding: str) -> None:
    """The turns of one app in one round. A flood does not wait for what it is refused."""
    floods = crew.app == flooding
    chance = random.Random(f"{crew.app} {number}")
    until = perf_counter() + seconds
    async with asyncio.TaskGroup() as turns:
        while (now := perf_counter()) < until:
            turns.create_task(_arrive(crew, model, chance.choice(crew.prompts), flooding, patient=not floods))
            await asyncio.sleep(max(0.0, now + chance.expovariate(rate * (FLOOD if floods else 1)) - perf_counter()))


async def _arrive(crew: Crew, model: str, messages: list[Message], flooding: str, *, patient: bool) -> None:
    came = perf_counter()
    agent = await crew.free.get()
    try:
        crew.firsts[flooding].append(await _first(agent, model, messages, patient=patient) - came)
    except BusyError:
        crew.refused += 1
    finally:
        crew.free.put_nowait(agent)


async def _first(agent: AsyncKernel, model: str, messages: list[Message], *, patient: bool) -> float:
    """When the first token of a turn came; the turn goes on to its end."""
    first = 0.0
    while not first:
        try:
            async with agent.stream(_turn(model, messages)) as stream:
                async for _ in stream:
                    first = first or perf_counter()
        except BusyError as error:
            if not patient:
                raise
            await asyncio.sleep(error.retry_after or 0.1)
    return first


def _turn(model: str, messages: list[Message]) -> Generate:
    return Generate(model=model, messages=messages, max_tokens=NEW, ignore_eos=True)
