"""How many tokens a second an engine gets through, in batches of questions that are asked at once.

A batch is asked for one token each, and then another for all of them: what the first takes is the prompts', and what the second takes
more is the decoding. So nothing depends on how an engine mixes the two, nor on when it shows its tokens. Engines take turns within a
round, with the same questions; a ratio is the median of the rounds' own. Before each batch an engine is asked one question that is not
timed: it then has its weights at hand, and whoever was measured before it, and still looks out for questions, has gone to rest.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final, Protocol

from kernos.syscalls import AsyncKernel
from kernos.syscalls.model import Generate

from .peers.process import Peer, PeerError
from .questions import Question, Questions
from .report import median


@dataclass(frozen=True)
class Size:
    """Of what is measured."""

    prompt: int
    new: int
    rounds: int
    batches: tuple[int, ...] = (1, 8, 32)


FULL: Final = Size(prompt=200, new=64, rounds=5)
QUICK: Final = Size(prompt=64, new=24, rounds=1)

PREFILL_BATCH: Final = 8
"""The batch whose prompts count for the speed of prompts."""


class Engine(Protocol):
    """What answers questions."""

    @property
    def batches(self) -> Sequence[int]:
        """How many questions it takes at once."""
        ...

    async def answer(self, row: int, question: Question, new: int) -> list[int]:
        """So many greedy tokens; `row` tells the questions of a batch apart."""
        ...


class OurEngine:
    """The kernel's, by system calls of an agent for each row."""

    def __init__(self, agents: list[AsyncKernel], model: str, batches: Sequence[int]) -> None:
        self.batches = batches
        self._agents, self._model = agents, model

    async def answer(self, row: int, question: Question, new: int) -> list[int]:
        """See `Engine`."""
        call = Generate(model=self._model, messages=question.messages, max_tokens=new, ignore_eos=True)
        answer = await self._agents[row].call(call)
        assert answer.usage.prompt_tokens == len(question.ids), "the kernel and the peers were asked different questions"
        return answer.tokens


class PeerEngine:
    """One of the peers."""

    def __init__(self, peer: Peer, batches: Sequence[int]) -> None:
        self.batches = batches
        self._peer = peer

    async def answer(self, row: int, question: Question, new: int) -> list[int]:  # noqa: ARG002
        """See `Engine`."""
        tokens: list[int] = (await self._peer.ask("generate", prompt=question.ids, new=new))["tokens"]
        return tokens


@dataclass
class Speed:
    """Tokens per second of an engine, by batch, a figure of each round."""

    prefill: dict[int, list[float]] = field(default_factory=dict)
    decode: dict[int, list[float]] = field(default_factory=dict)

    def add(self, rows: int, size: Size, first_s: float, whole_s: float) -> None:
        """Take in a round: what the prompts took, and what prompts and answers took. ValueError: the round was disturbed."""
        if whole_s <= first_s:
            raise ValueError(
                f"{size.new} tokens took {whole_s:.3g} s and one took {first_s:.3g} s: something else runs here, measure again without it."
            )
        self.prefill.setdefault(rows, []).append(rows * size.prompt / first_s)
        self.decode.setdefault(rows, []).append(rows * (size.new - 1) / (whole_s - first_s))


def ratio(ours: Mapping[int, Sequence[float]], theirs: Mapping[int, Sequence[float]], rows: int) -> float | None:
    """Ours over theirs at a batch; None where one of them was not measured."""
    if rows not in ours or rows not in theirs:
        return None
    return median([one / other for one, other in zip(ours[rows], theirs[rows], strict=True)])


async def compare(
    engines: Mapping[str, Engine], questions: Questions, size: Size, clock: Callable[[], float] = perf_counter
) -> tuple[dict[str, Speed], dict[str, str]]:
    """The speed of each engine, and why some have none."""
    speeds = {name: Speed() for name in engines}
    gone: dict[str, str] = {}
    for number in range(size.rounds):
        for rows in size.batches:
            before = [questions.ask(f"{number} {rows}", size.prompt)]
            first, whole = ([questions.ask(f"{number} {rows} {row} {what}", size.prompt) for row in range(rows)] for what in "ab")
            for name, engine in engines.items():
                if rows not in engine.batches or name in gone:
                    continue
                try:
                    await seconds(engine, before, size.new, clock)
                    times = await seconds(engine, first, 1, clock), await seconds(engine, whole, size.new, clock)
                except PeerError as error:
                    gone[name] = str(error)
                    continue
                speeds[name].add(rows, size, *times)
    return {name: speed for name, speed in speeds.items() if name not in gone}, gone


async def seconds(engine: Engine, questions: list[Question], new: int, clock: Callable[[], float]) -> float:
    """What it takes to answer all of them, asked at once."""
    began = clock()
    answers = await asyncio.gather(*(engine.answer(row, question, new) for row, question in enumerate(questions)))
    taken = clock() - began
    assert {len(tokens) for tokens in answers} == {new}, "an engine gave less than it was asked for"
    return taken
