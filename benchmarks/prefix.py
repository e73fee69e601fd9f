"""What a common beginning saves: 16 requests that share 512 tokens, against 16 that share nothing.

Every request has 544 prompt tokens and 16 new ones, and all are sent at once by agents of one app. `prefilled_tokens` is what was computed
of the shared prompts: 512 + 16 * 32 if the beginning was computed once. Rounds alternate; the gain is the median of the rounds' own.
`copies` is how often the KV pages of a context are there while agents on 32 forks of it wait to write.
"""

import asyncio
from time import perf_counter

from kernos.syscalls import AsyncKernel
from kernos.syscalls.context import ForkContext, OpenContext
from kernos.syscalls.model import Generate, Generation, Message
from kernos.syscalls.process import SendSignal
from kernos.syscalls.system import GetStatus

from . import report
from .kernel import RunningKernel, booted
from .report import Target, median
from .turns import WORD, fitted

REQUESTS, SHARED, OWN, NEW = 16, 512, 32, 16
FORKS = 32
TARGETS = {"gain": Target(5.0, at_least=True), "prefilled_tokens": Target(SHARED + REQUESTS * OWN), "copies": Target(1.0)}


def main() -> None:
    """Measure and publish."""
    given = report.options(__doc__)
    with booted(config=f"slots = {REQUESTS}\n") as kernel:
        model = kernel.load_models()
        figures = asyncio.run(measure(kernel, model, rounds=1 if given.quick else 5))
        figures["copies"] = asyncio.run(count_copies(kernel, model))
    report.publish("prefix", given, figures, TARGETS)


async def measure(kernel: RunningKernel, model: str, rounds: int) -> dict[str, float]:
    """The same work with a common beginning and without, in turn."""
    gains, shared_s, distinct_s, computed = [], [], [], []
    async with AsyncKernel(kernel.key, where=kernel.where) as connection:
        for round_ in range(rounds):
            distinct, alone = await run(connection, [await prompt(connection, model, f"{round_}.{i}", i) for i in range(REQUESTS)], model)
            shared, together = await run(connection, [await prompt(connection, model, f"{round_}", i) for i in range(REQUESTS)], model)
            assert all(answer.usage.cached_tokens < 64 for answer in alone), "the distinct prompts were not distinct"
            gains.append(distinct / shared)
            shared_s.append(shared)
            distinct_s.append(distinct)
            computed.append(float(sum(answer.usage.prompt_tokens - answer.usage.cached_tokens for answer in together)))
    return {"gain": median(gains), "shared_s": median(shared_s), "distinct_s": median(distinct_s), "prefilled_tokens": median(computed)}


async def count_copies(kernel: RunningKernel, model: str) -> float:
    """How often the pages of a context are there while an agent on each of its forks waits to write: that many over those before."""
    async with AsyncKernel(kernel.key, where=kernel.where) as connection:
        parent = await connection.spawn("parent")
        context = (await parent.call(OpenContext(name="parent"))).context
        beginning = await prompt(connection, model, "fork", 0)
        await parent.call(Generate(model=model, context=context, messages=beginning, max_tokens=1, ignore_eos=True))
        forks = [(await parent.call(ForkContext(context=context, name=f"fork-{number}"))).context for number in range(FORKS)]
        agents = [await connection.spawn("fork") for _ in forks]
        for agent in agents:
            await connection.call(SendSignal(pid=agent.pid, signal="stop"))  # so that they hold what they found and write nothing yet
        before = await held(connection)
        calls = [Generate(model=model, context=fork, messages=[Message("user", "Go on.")], max_tokens=8, ignore_eos=True) for fork in forks]
        answers = [asyncio.create_task(agent.call(call)) for agent, call in zip(agents, calls, strict=True)]
        while (await connection.call(GetStatus(), urgent=True)).queued_turns < FORKS:
            pass
        waiting = await held(connection)
        for agent in agents:
            await connection.call(SendSignal(pid=agent.pid, signal="continue"))
        shared = {answer.usage.cached_tokens for answer in await asyncio.gather(*answers)}
        assert min(shared) >= SHARED, f"the forks had {shared} tokens in common with their parent, not {SHARED}"
        for agent in (parent, *agents):
            await agent.exit()
    return waiting / before


async def held(connection: AsyncKernel) -> int:
    """KV pages in use, in all tiers."""
    return sum(use.held for use in (await connection.call(GetStatus(), urgent=True)).pages)


async def run(connection: AsyncKernel, prompts: list[list[Message]], model: str) -> tuple[float, list[Generation]]:
    """Seconds that all requests take together, and their answers."""
    agents = [await connection.spawn("prefix") for _ in prompts]
    started = perf_counter()
    calls = [Generate(model=model, messages=messages, max_tokens=NEW, ignore_eos=True) for messages in prompts]
    answers = await asyncio.gather(*(agent.call(call) for agent, call in zip(agents, calls, strict=True)))
    seconds = perf_counter() - started
    for agent in agents:
        await agent.exit()
    assert {answer.usage.prompt_tokens for answer in answers} == {SHARED + OWN}
    return seconds, list(answers)


async def prompt(connection: AsyncKernel, model: str, name: str, number: int) -> list[Message]:
    """A prompt of 544 tokens: a text of its `name`, and a question whose `number` comes after token 512."""
    question = f"Now, question {number:02d}: which of these words comes first, and why do you think that it does?"
    return await fitted(connection, model, lambda words: conversation(name, words, question), SHARED + OWN)


def conversation(name: str, words: int, question: str) -> list[Message]:
    """The messages of a prompt; each word is a token."""
    return [Message("system", f"Text {name}:" + WORD * words), Message("user", question)]


if __name__ == "__main__":
    main()
