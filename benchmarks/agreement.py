"""Whether the engine says what the model says: its greedy tokens beside those of transformers in float32.

`exact` is the share of answers in float32 that are those of transformers' `generate`, on the fast path (compiled and not) and the generic
one, several turns at once; an answer is compared up to the first place where the two best candidates are so close that rounding decides.
`top1` is the share of places where the default arithmetic chose what float32 would have chosen after the same text; `top1_int8` and
`top1_int4`, weights of 8 and of 4 bits.
"""

import asyncio
from contextlib import AbstractContextManager
from typing import Final

from kernos.syscalls import AsyncKernel
from kernos.syscalls.model import Generate

from .kernel import RunningKernel, booted
from .paths import eager, generic
from .peers.process import PATIENT, Peer, folder_of, peer
from .questions import Question, Questions

CLOSE: Final = 1e-4
"""Logits this close are a tie."""

ASKED: Final = (
    "Tell me a story about a boat.",
    "How many days did we row, and where did we end?",
    "Write a short letter to the owner of the mill.",
    "What is the capital of France, and what is it known for?",
    "List five things to take along on a journey by boat.",
    "Explain in simple words why the sky is blue.",
    "Which of the places had the best weather? Say why.",
    "Translate into French: we rowed down to the next village.",
)
PROMPT, NEW = 200, 64
QUICK_ASKED, QUICK_NEW = 2, 24
THREADS: Final = 2


async def measure(quick: bool) -> dict[str, float | None]:
    """All paths and arithmetics, one kernel after the other."""
    asked, new = (ASKED[:QUICK_ASKED], QUICK_NEW) if quick else (ASKED, NEW)
    with booted(config=_config("auto")) as kernel:
        model = kernel.load_decoder()
        maker = Questions(model.name)
        questions = [maker.ask(f"{number}", PROMPT, question) for number, question in enumerate(asked)]
        usual = await _answers(kernel, model.name, questions, new)
    kernels = [] if model.dtype == "float32" else [booted(config=_config("float32"))]
    kernels += [kind(model.name, _config("float32")) for kind in (eager, generic)]
    kernels += [booted(config=_config(f"int{bits}")) for bits in (8, 4)]
    found = [await _told(kernel, model.name, questions, new) for kernel in kernels]
    *exact, int8, int4 = found if model.dtype != "float32" else [usual, *found]
    async with peer("hf", str(folder_of(model.name)), "float32", str(THREADS), **PATIENT) as judge:
        theirs = [await _reference(judge, question, new) for question in questions]
        same = [equal(tokens, *reference) for answers in exact for tokens, reference in zip(answers, theirs, strict=True)]
        top1, top1_int8, top1_int4 = [await _top1(judge, questions, answers) for answers in (usual, int8, int4)]
    return {"exact": sum(same) / len(same), "top1": top1, "top1_int8": top1_int8, "top1_int4": top1_int4}


def _config(dtype: str) -> str:
    return f'slots = 8\nthreads = {THREADS}\ndtype = "{dtype}"\n'


async def _told(booting: AbstractContextManager[RunningKernel], model: str, questions: list[Question], new: int) -> list[list[int]]:
    with booting as kernel:
        return await _answers(kernel, model, questions, new)


async def _answers(kernel: RunningKernel, model: str, questions: list[Question], new: int) -> list[list[int]]:
    """The tokens of answers that are all asked for at once."""
    async with AsyncKernel(kernel.key, where=kernel.where) as connection:
        agents = [await connection.spawn("asks") for _ in questions]
        calls = [Generate(model=model, messages=question.messages, max_tokens=new, ignore_eos=True) for question in questions]
        answers = await asyncio.gather(*(agent.call(call) for agent, call in zip(agents, calls, strict=True)))
    return [answer.tokens for answer in answers]


async def _reference(judge: Peer, question: Question, new: int) -> tuple[list[int], list[float]]:
    """What transformers generates, and how far the best candidate was ahead at each place."""
    tokens = (await judge.ask("generate", prompt=question.ids, new=new))["tokens"]
    return tokens, (await judge.ask("judge", prompt=question.ids, tokens=tokens))["gaps"]


async def _top1(judge: Peer, questions: list[Question], answers: list[list[int]]) -> float:
    asked = zip(questions, answers, strict=True)
    return agreement(answers, [(await judge.ask("judge", prompt=question.ids, tokens=tokens))["best"] for question, tokens in asked])


def equal(tokens: list[int], reference: list[int], gaps: list[float]) -> bool:
    """Whether an answer is the reference's, up to the first tie."""
    sure = next((place for place, gap in enumerate(gaps) if gap < CLOSE), len(reference))
    return tokens[:sure] == reference[:sure]


def agreement(answers: list[list[int]], best: list[list[int]]) -> float:
    """The share of tokens that are the best."""
    places = [token == other for answer, row in zip(answers, best, strict=True) for token, other in zip(answer, row, strict=True)]
    return sum(places) / len(places)
