"""Turns as a client sees them: prompts of an exact length, and when each token of an answer came."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Final

from kernos.syscalls import AsyncKernel
from kernos.syscalls.model import CountTokens, Generate, Generation, Message

FRAME: Final = 14
"""Tokens of the embedded model's chat template around a system and a user message."""

WORD: Final = " river"
"""One token of the embedded model. Nothing but this word would make it answer with markers, which have no text to show."""

QUESTION: Final = "Tell me a story about a boat."
WEATHER: Final = ("sunny", "windy", "cold", "foggy", "warm")
PLACES: Final = ("mill", "bridge", "harbour", "old farm", "market", "church", "island")

LONGEST: Final = 26
"""Tokens of the longest sentence, generously: what is missing then is filled up by words."""


@dataclass(frozen=True)
class Timed:
    """An answer, and when its pieces came, in seconds after the call was made."""

    answer: Generation
    times: list[float]
    seconds: float
    """Until the reply."""

    @property
    def first(self) -> float:
        """Time to the first token."""
        return self.times[0]

    @property
    def gaps(self) -> list[float]:
        """Between one piece and the next."""
        return [later - sooner for sooner, later in zip(self.times, self.times[1:], strict=False)]


async def length(connection: AsyncKernel, model: str, messages: list[Message]) -> int:
    """Prompt tokens of a conversation of a system and a user message."""
    counts = [await connection.call(CountTokens(model=model, text=message.text)) for message in messages]
    return sum(count.tokens for count in counts) + FRAME


async def prompt(connection: AsyncKernel, model: str, name: str, tokens: int) -> list[Message]:
    """A prompt of exactly so many tokens that shares no page with one of another `name`; the answer to it begins with plain words."""
    sentences = max(0, (tokens - await length(connection, model, notes(name, 0, 0))) // LONGEST)
    return await fitted(connection, model, lambda words: notes(name, sentences, words), tokens)


async def fitted(connection: AsyncKernel, model: str, conversation: Callable[[int], list[Message]], tokens: int) -> list[Message]:
    """A conversation with as many words to fill it up as make it exactly so many tokens long."""
    words = 1
    while (found := await length(connection, model, conversation(words))) != tokens:
        words += tokens - found
    return conversation(words)


def notes(name: str, sentences: int, words: int, question: str = QUESTION) -> list[Message]:
    """A conversation about so many sentences, filled up by so many words."""
    text = " ".join(_sentence(number) for number in range(sentences))
    return [Message("system", f"Notes {name}. {text}{WORD * words}."), Message("user", question)]


def _sentence(number: int) -> str:
    weather, place = WEATHER[number % len(WEATHER)], PLACES[number % len(PLACES)]
    return f"On day {number} it was {weather}, and we rowed from the {place} down to the next village."


async def timed(agent: AsyncKernel, model: str, messages: list[Message], tokens: int, began: Callable[[], object] | None = None) -> Timed:
    """An answer of exactly so many tokens; `began` is called at the first."""
    call = Generate(model=model, messages=messages, max_tokens=tokens, ignore_eos=True)
    started, times = perf_counter(), []
    async with agent.stream(call) as stream:
        async for _ in stream:
            times.append(perf_counter() - started)
            if began is not None and len(times) == 1:
                began()
        answer = await stream.result()
    return Timed(answer, times, perf_counter() - started)


async def timed_all(agents: list[AsyncKernel], model: str, prompts: list[list[Message]], tokens: int) -> list[Timed]:
    """Answers that are all asked for at once, one of each agent."""
    return list(await asyncio.gather(*(timed(agent, model, messages, tokens) for agent, messages in zip(agents, prompts, strict=True))))
