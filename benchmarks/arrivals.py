"""How soon an urgent question is served when batch work fills every slot: the trace of `latency.py`, and an engine that is no kernel.

`vllm_ttft` is vLLM's time to first token over the kernel's, at the 99th percentile of one round; vLLM schedules by its priority policy,
with as many slots and the same prompts, which the kernel is asked for by agents of the classes `interactive` and `batch`.
"""

import itertools
from collections.abc import Callable
from dataclasses import replace
from time import perf_counter

from .kernel import booted
from .latency import FULL, NEW, PROMPT, SLOTS, arrive, arrive_at
from .peers.process import Peer
from .questions import Questions
from .report import percentile

LOAD = replace(FULL, rounds=1)


async def ours(settings: str) -> list[float]:
    """Times to first token of the kernel."""
    with booted(config=f"slots = {SLOTS}\n{settings}") as kernel:
        return [turn.first for turn in await arrive_at(kernel, kernel.load_models(), LOAD, 0)]


async def theirs(peer: Peer, questions: Questions) -> list[float]:
    """Times to first token of a peer."""

    async def batch(row: int, begun: Callable[[], object]) -> None:
        for turn in itertools.count():
            question = questions.ask(f"batch {row} {turn}", LOAD.prompt)
            await peer.ask("generate", begun, prompt=question.ids, new=LOAD.new, stream=True)

    async def urgent(arrival: int) -> float:
        question = questions.ask(f"urgent {arrival}", PROMPT)
        times: list[float] = []
        began = perf_counter()
        await peer.ask("generate", lambda: times.append(perf_counter() - began), prompt=question.ids, new=NEW, stream=True, urgent=True)
        return times[0]

    return await arrive(LOAD, 0, batch, urgent)


def figures(mine: list[float], other: list[float] | None) -> dict[str, float | None]:
    """The figures of both."""
    found: dict[str, float | None] = {"vllm_ttft": None}
    if other is not None:
        found["vllm_ttft"] = percentile(other, 99) / percentile(mine, 99)
        found |= _times("vllm_ttft", other)
    return found | _times("ttft", mine)


def _times(name: str, seconds: list[float]) -> dict[str, float]:
    return {f"{name}_p{percent}_ms": percentile(seconds, percent) * 1_000 for percent in (50, 99)}
