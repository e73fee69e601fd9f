"""Conversations far larger than the window: what a model is shown of them, by the calls that every app makes, on a real kernel."""

import os
from collections.abc import Sequence
from time import monotonic, sleep
from typing import Final

import pytest

from benchmarks.kernel import booted
from benchmarks.recall import await_embedded
from kernos.syscalls import Context, Kernel
from kernos.syscalls.context import MessageState, ReadContext
from kernos.syscalls.model import Generate, Message
from tests.integration.history import FACTS, Fact, history

MODEL: Final = "smollm2-135m"
WINDOW: Final = 8_192
BATCH: Final = 64
PROVE: Final = bool(os.environ.get("KERNOS_PROVE"))


def told(agent: Kernel, name: str, messages: Sequence[Message]) -> Context:
    """A context with this history, of which a turn has let go what its window does not hold. For an answer it need not wait."""
    context = Context(agent, name)
    for start in range(0, len(messages), BATCH):
        context.append(*messages[start : start + BATCH])
    until = monotonic() + 60
    with agent.stream(Generate(model=MODEL, context=context.id, messages=[Message("user", "Hello again!")], max_tokens=1)):
        while not context.stat().info.resident and monotonic() < until:
            sleep(0.01)
    return context


def shown(context: Context, facts: Sequence[Fact]) -> list[str]:
    """The facts that the model would be shown when it is asked for them, each by itself."""
    prompts = [(fact, context.explain(MODEL, Message("user", fact.question))) for fact in facts]
    assert all(prompt.tokens < prompt.window == WINDOW for _, prompt in prompts)
    return [fact.told for fact, prompt in prompts if any(fact.told in part.text for part in prompt.parts)]


def resident(agent: Kernel, context: Context) -> list[MessageState]:
    """What has not left the window."""
    start = context.stat().info.resident
    return agent.call(ReadContext(context=context.id, start=start, limit=1_024)).states


@pytest.mark.timeout(1_800 if PROVE else 240)
@pytest.mark.parametrize("hidden", [False, True])
def test_facts_asked_for_in_other_words_are_in_the_prompt_also_after_a_kill(models: object, home: str, hidden: bool) -> None:
    facts, tokens = (FACTS, 200_000) if PROVE else (FACTS[:10], 12_000)
    with booted(home=home) as running, running.connect() as kernel:
        running.load_models()
        agent = kernel.spawn("teller")
        context = told(agent, "life", history(facts, tokens, hidden=hidden))
        assert context.stat().info.tokens >= tokens
        assert sum(state.tokens for state in resident(agent, context)) < WINDOW / 2
        await_embedded(context)
        before = shown(context, facts)
        print(f"{len(before)} of {len(facts)} facts in {tokens} tokens are shown, {hidden=}")
        assert len(before) >= 0.8 * len(facts)
        running.kill()
    with booted(home=home) as running, running.connect() as kernel:
        running.load_models()
        assert shown(Context(kernel.spawn("teller"), "life"), facts) == before
