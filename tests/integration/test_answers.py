"""From an app's call to a model's token, through real processes and the real model."""

import asyncio
import json
from collections.abc import Iterator

import pytest

from benchmarks.kernel import RunningKernel
from kernos.syscalls import AsyncKernel, Context, Kernel, Store
from kernos.syscalls.context import OpenContext
from kernos.syscalls.errors import BadRequestError, DeadlineError, NotFoundError
from kernos.syscalls.model import Chunk, CountTokens, Embed, Generate, Generation, ListModels, Message
from kernos.syscalls.process import ListProcesses, SendSignal, Signal

MODEL = "smollm2-135m"
QUESTION = [Message("user", "What is the capital of France?")]


@pytest.fixture
def agent(kernel: RunningKernel) -> Iterator[Kernel]:
    with kernel.connect() as connection:
        agent = connection.spawn("tester")
        yield agent
        agent.exit()


def test_an_answer_comes_whole_and_in_pieces(agent: Kernel) -> None:
    call = Generate(model=MODEL, messages=QUESTION, max_tokens=32)
    whole = agent.call(call)
    stream = agent.stream(call)
    pieces = list(stream)
    assert "Paris" in whole.text
    assert len(pieces) > 3, "the answer was not streamed"
    assert "".join(piece.text for piece in pieces) == stream.result.text == whole.text
    assert sum(piece.tokens for piece in pieces) == whole.usage.generated_tokens == len(whole.tokens)
    assert whole.finish == "stop"


def test_tokens_are_charged_to_the_agent(agent: Kernel) -> None:
    answer = agent.call(Generate(model=MODEL, messages=QUESTION, max_tokens=5))
    row = next(row for row in agent.call(ListProcesses(scope="own")).processes if row.pid == agent.pid)
    assert (row.prompt_tokens, row.generated_tokens) == (answer.usage.prompt_tokens, 5)
    assert row.state == "idle"


def test_many_conversations_at_once_give_the_answers_they_give_alone(kernel: RunningKernel) -> None:
    questions = [f"Tell me one thing about the number {number}." for number in range(10)]

    def call(text: str) -> Generate:
        return Generate(model=MODEL, messages=[Message("user", text)], max_tokens=12)

    async def together() -> list[Generation]:
        async with AsyncKernel(kernel.key, where=kernel.where) as connection:
            agents = [await connection.spawn("crowd", user=f"user:u{i}") for i in range(len(questions))]
            return await asyncio.gather(*(agent.call(call(text)) for agent, text in zip(agents, questions, strict=True)))

    crowded = asyncio.run(together())
    with kernel.connect() as connection:
        alone = [connection.spawn("alone").call(call(text)) for text in questions]
    assert [answer.tokens for answer in crowded] == [answer.tokens for answer in alone]


def test_a_seed_repeats_a_sampled_answer(agent: Kernel) -> None:
    def sample(seed: int | None) -> list[int]:
        return agent.call(Generate(model=MODEL, messages=QUESTION, max_tokens=8, temperature=1.5, seed=seed, ignore_eos=True)).tokens

    assert sample(7) == sample(7)
    assert len({tuple(sample(seed)) for seed in range(3)}) > 1


def test_a_stop_text_ends_an_answer_before_it(agent: Kernel) -> None:
    whole = agent.call(Generate(model=MODEL, messages=QUESTION, max_tokens=32)).text
    stopped = agent.call(Generate(model=MODEL, messages=QUESTION, max_tokens=32, stop=[" is"]))
    assert stopped.text == whole.partition(" is")[0]
    assert stopped.finish == "stop"


def test_a_schema_is_followed(agent: Kernel) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "sure": {"type": "boolean"}},
        "required": ["city", "sure"],
        "additionalProperties": False,
    }
    answer = agent.call(Generate(model=MODEL, messages=QUESTION, max_tokens=64, schema=json.dumps(schema)))
    document = json.loads(answer.text)
    assert set(document) == {"city", "sure"}
    assert isinstance(document["sure"], bool)


def test_an_agent_goes_on_where_the_kernel_keeps_its_context(agent: Kernel) -> None:
    context = Context(agent, "talk")
    agent.call(Generate(model=MODEL, context=context.id, messages=[Message("user", "My name is Iris.")], max_tokens=16))
    agent.call(Generate(model=MODEL, context=context.id, messages=[Message("user", "What is my name?")], max_tokens=16))
    said = list(context)
    assert [message.role for message in said] == ["user", "assistant", "user", "assistant"]
    assert len(context) == 4
    context.delete()
    with pytest.raises(NotFoundError):
        list(context)


def test_a_failed_turn_leaves_the_context_as_it_was(agent: Kernel) -> None:
    context = agent.call(OpenContext(name="bounded"))
    with pytest.raises(DeadlineError):
        agent.call(Generate(model=MODEL, context=context.context, messages=QUESTION, max_tokens=4_000, ignore_eos=True), timeout=0.5)
    assert agent.call(OpenContext(name="bounded")).messages == 0


def test_embeddings_find_the_nearer_text(agent: Kernel) -> None:
    texts = ["Where is my parcel?", "My package has not arrived.", "How do I cook rice?"]
    parcel, package, rice = agent.call(Embed(model="minilm", texts=texts)).rows()

    def dot(a: "memoryview[float]", b: "memoryview[float]") -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert dot(parcel, parcel) == pytest.approx(1.0, abs=1e-5)
    assert dot(parcel, package) > 0.5 > dot(parcel, rice)


def test_models_are_listed_with_their_defaults(agent: Kernel) -> None:
    models = agent.call(ListModels())
    assert (models.decoder, models.encoder) == (MODEL, "minilm")
    assert {model.state for model in models.models} == {"ready"}
    assert agent.call(CountTokens(model=MODEL, text="1234")).tokens == 4, "digits must be split"


def test_wrong_models_are_told_apart(agent: Kernel) -> None:
    with pytest.raises(NotFoundError, match="kernos pull"):
        agent.call(Generate(model="no-such-model", messages=QUESTION))
    with pytest.raises(BadRequestError, match="embeds"):
        agent.call(Generate(model="minilm", messages=QUESTION))


def test_a_deadline_ends_a_turn(agent: Kernel) -> None:
    with pytest.raises(DeadlineError):
        agent.call(Generate(model=MODEL, messages=QUESTION, max_tokens=4_000, ignore_eos=True), timeout=0.3)


def test_leaving_a_stream_cancels_its_turn(kernel: RunningKernel, agent: Kernel) -> None:
    with agent.stream(Generate(model=MODEL, messages=QUESTION, max_tokens=4_000, ignore_eos=True)) as stream:
        assert isinstance(next(iter(stream)), Chunk)
    row = next(row for row in agent.call(ListProcesses(scope="own")).processes if row.pid == agent.pid)
    assert row.state == "idle"


def test_files_keep_their_versions(agent: Kernel) -> None:
    store = Store(agent)
    assert store.put("notes/today.txt", b"one").version == 1
    assert store.put("notes/today.txt", b"two", expect=1).version == 2
    assert store.get("notes/today.txt") == b"two"
    assert [file.path for file in store.list("notes/")] == ["notes/today.txt"]
    store.delete("notes/today.txt")
    assert store.list() == []


def test_an_agent_that_was_stopped_goes_on_as_if_it_had_not_been(kernel: RunningKernel, agent: Kernel) -> None:
    call = Generate(model=MODEL, messages=[Message("user", "Tell me about rivers.")], max_tokens=80, ignore_eos=True)
    undisturbed = agent.call(call)
    stream = agent.stream(call)
    for _ in range(3):
        for _ in range(8):
            next(stream)
        signals: tuple[Signal, ...] = ("stop", "continue")
        for signal in signals:
            agent.call(SendSignal(pid=agent.pid, signal=signal), urgent=True)
    assert stream.result.tokens == undisturbed.tokens


def test_a_common_beginning_is_computed_once(agent: Kernel) -> None:
    rules = "Be polite and brief. " * 40

    def ask(question: str) -> Generation:
        return agent.call(Generate(model=MODEL, messages=[Message("system", rules), Message("user", question)], max_tokens=12))

    first, second = ask("What is a lighthouse?"), ask("What is a harbour?")
    assert second.usage.cached_tokens >= first.usage.prompt_tokens // 64 * 64 - 64 > 0
    assert ask("What is a lighthouse?").tokens == first.tokens
