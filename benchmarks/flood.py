"""What a flood in one app does to the others: times to first token with and without it, under quotas.

Three apps make the calls that they live by, each as the principal it is and in its own class: two answer people (`model.generate`), one
reads news (`model.embed`, whose reply is its first token). Their calls arrive by Poisson processes of fixed seeds, at 70 % of what the
machine is measured to do, in each round anew, when all three never pause; each app may have a little more than that
(`process.set_limits`, as an administrator would). Then one of them sends ten times as much, and does not wait when it is refused. In each
round calm and floods take turns, with the same arrivals of those who flood nobody. `flood_ratio` is the worst p99 of another app over its
own without a flood, of the calls of all rounds together: an answering app makes some fifty in a round, and the worst of fifty is chance. As
a machine is slower in one round than in another, the times of each count in medians of the app's own calm calls in it.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Final, TypeVar

from kernos.agents import patiently
from kernos.syscalls import AsyncKernel
from kernos.syscalls.errors import BusyError, LimitError
from kernos.syscalls.model import CountTokens, Embed, Generate, ListModels
from kernos.syscalls.process import LimitName, Priority, SetLimits

from .kernel import RunningKernel, booted
from .report import median, percentile
from .turns import prompt

SLOTS: Final = 8
PROMPT, NEW = 48, 12
"""Tokens of a turn."""
HEADLINES: Final = 8
"""Texts that are embedded together."""

LOAD: Final = 0.7
FLOOD: Final = 10
ROOM: Final = 1.25
"""What an app may use of tokens, over what it usually does."""
UNDER_WAY: Final = 4
"""Calls that an app may have under way: about twice what it usually has."""
POOL: Final = 16
"""Agents of an app, as many as each may have; an arrival takes one that is free."""

T = TypeVar("T")
Work = Callable[[AsyncKernel, int], Awaitable[float]]
"""Makes a call as an agent, the number of its text given; when its first token came."""


@dataclass(frozen=True)
class Plan:
    """How long is measured."""

    seconds: float
    rounds: int
    floods: tuple[str, ...]


FULL: Final = Plan(40.0, 3, ("customer_service", "finance_monitor"))
QUICK: Final = Plan(10.0, 1, ("customer_service",))


@dataclass
class Crew:
    """The agents of an app, and the call that they make."""

    app: str
    connection: AsyncKernel
    work: Work
    tokens: int
    """Of a call."""
    free: "asyncio.Queue[AsyncKernel]" = field(default_factory=asyncio.Queue)
    room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(UNDER_WAY))
    """An app that keeps to its limits waits until it may call."""
    rate: float = 0.0
    """Calls per second, without a flood."""
    refused: int = 0
    firsts: list[float] = field(default_factory=list)
    """Seconds to the first token."""


def measure(quick: bool) -> dict[str, float]:
    """All parts, each on a kernel of its own: nobody enters one with a bucket that he emptied in another."""
    plan = QUICK if quick else FULL
    rounds = [_round(plan, number) for number in range(plan.rounds)]
    ratios = {(app, flooding): _ratio(rounds, app, flooding) for app, flooding in rounds[0].firsts if flooding}
    figures = {"flood_ratio": max(ratios.values())}
    figures |= {f"flood_ratio_{app}_beside_{flooding}": ratio for (app, flooding), ratio in ratios.items()}
    for app, flooding in rounds[0].firsts:
        name = f"p99_ms_{app}_beside_{flooding}" if flooding else f"p99_ms_{app}"
        figures[name] = median([percentile(found.firsts[app, flooding], 99) for found in rounds]) * 1_000
    for app in rounds[0].rates:
        figures[f"calls_per_s_{app}"] = median([found.rates[app] for found in rounds])
    return figures | {"timed": sum(found.timed for found in rounds), "refused": sum(found.refused for found in rounds)}


@dataclass
class Round:
    """What was found in one."""

    rates: Mapping[str, float]
    """Calls per second of each app, without a flood."""
    firsts: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    """Seconds to first token by app and the one that floods ("": nobody does)."""
    timed: int = 0
    refused: int = 0

    def counted(self, app: str, flooding: str) -> list[float]:
        """The same in medians of the app's calm calls."""
        usual = median(self.firsts[app, ""])
        return [first / usual for first in self.firsts[app, flooding]]


def _ratio(rounds: list[Round], app: str, flooding: str) -> float:
    """What a flood does to an app's p99."""
    beside, calm = ([first for found in rounds for first in found.counted(app, by)] for by in (flooding, ""))
    return percentile(beside, 99) / percentile(calm, 99)


def _round(plan: Plan, number: int) -> Round:
    found = Round(_on_a_kernel(partial(_find_rates, seconds=plan.seconds / 4)))
    for flooding in ("", *plan.floods):
        for crew in _on_a_kernel(partial(_part, rates=found.rates, seconds=plan.seconds, number=number, flooding=flooding)):
            found.timed += len(crew.firsts)
            found.refused += crew.refused
            if crew.app != flooding:
                found.firsts[crew.app, flooding] = crew.firsts
    return found


def _on_a_kernel(part: Callable[[RunningKernel, list[Crew]], Awaitable[T]]) -> T:
    async def run(kernel: RunningKernel) -> T:
        crews = [
            await _answering(kernel, "customer_service"),
            await _answering(kernel, "medical_qa"),
            await _reading(kernel, "finance_monitor"),
        ]
        found = await part(kernel, crews)
        await asyncio.gather(*(crew.connection.close() for crew in crews))
        return found

    with booted(config=f"slots = {SLOTS}\n") as kernel:
        kernel.load_models()
        return asyncio.run(run(kernel))


async def _part(
    kernel: RunningKernel, crews: list[Crew], rates: Mapping[str, float], seconds: float, number: int, flooding: str
) -> list[Crew]:
    """Limits, then the calls of all; one of them floods, or nobody."""
    with kernel.connect() as admin:
        for crew in crews:
            crew.rate = rates[crew.app]
            limits: dict[LimitName, int] = {"tokens_per_minute": round(ROOM * crew.rate * crew.tokens * 60), "calls": UNDER_WAY}
            admin.call(SetLimits(principal=f"app:{crew.app}", limits=limits))
    await asyncio.gather(*(_arrivals(crew, seconds, number, floods=crew.app == flooding) for crew in crews))
    return crews


async def _answering(kernel: RunningKernel, app: str) -> Crew:
    """An app that answers people who wait."""
    connection = AsyncKernel(kernel.enroll(f"app:{app}"), where=kernel.where)
    model = (await connection.call(ListModels())).decoder
    prompts = [await prompt(connection, model, f"{app} {number}", PROMPT) for number in range(POOL)]

    async def answer(agent: AsyncKernel, number: int) -> float:
        first = 0.0
        async with agent.stream(Generate(model=model, messages=prompts[number], max_tokens=NEW, ignore_eos=True)) as stream:
            async for _ in stream:
                first = first or perf_counter()
        return first

    return await _manned(Crew(app, connection, answer, PROMPT + NEW), "interactive")


async def _reading(kernel: RunningKernel, app: str) -> Crew:
    """An app that reads what comes in."""
    connection = AsyncKernel(kernel.enroll(f"app:{app}"), where=kernel.where)
    model = (await connection.call(ListModels())).encoder
    texts = [f"Shares of company {number} fell on Tuesday after it had cut its forecast for the year" for number in range(HEADLINES)]
    tokens = sum([(await connection.call(CountTokens(model=model, text=text))).tokens for text in texts])

    async def read(agent: AsyncKernel, _: int) -> float:
        await agent.call(Embed(model=model, texts=texts))
        return perf_counter()

    return await _manned(Crew(app, connection, read, tokens), "normal")


async def _manned(crew: Crew, priority: Priority) -> Crew:
    for _ in range(POOL):
        crew.free.put_nowait(await crew.connection.spawn("worker", priority=priority))
    return crew


async def _find_rates(_: RunningKernel, crews: list[Crew], seconds: float) -> dict[str, float]:
    """What each does per second while none of them pauses, and of this `LOAD`."""
    until = perf_counter() + seconds
    ended: Counter[str] = Counter()

    async def hurry(crew: Crew, number: int) -> None:
        agent = await crew.free.get()
        while perf_counter() < until:
            await crew.work(agent, number)
            ended[crew.app] += 1
        crew.free.put_nowait(agent)

    began = perf_counter()
    await asyncio.gather(*(hurry(crew, number) for crew in crews for number in range(UNDER_WAY)))
    return {crew.app: LOAD * ended[crew.app] / (perf_counter() - began) for crew in crews}


async def _arrivals(crew: Crew, seconds: float, number: int, *, floods: bool) -> None:
    """The calls of one app in one round. A flood does not wait for what it is refused."""
    chance = random.Random(f"{crew.app} {number}")
    until = perf_counter() + seconds
    async with asyncio.TaskGroup() as calls:
        while (now := perf_counter()) < until:
            calls.create_task(_arrive(crew, chance.randrange(POOL), patient=not floods))
            await asyncio.sleep(max(0.0, now + chance.expovariate(crew.rate * (FLOOD if floods else 1)) - perf_counter()))


async def _arrive(crew: Crew, number: int, *, patient: bool) -> None:
    came = perf_counter()
    async with crew.room if patient else nullcontext():
        agent = await crew.free.get()
        try:
            first = await (patiently(lambda: crew.work(agent, number)) if patient else crew.work(agent, number))
            crew.firsts.append(first - came)
        except (BusyError, LimitError):
            crew.refused += 1
        finally:
            crew.free.put_nowait(agent)
