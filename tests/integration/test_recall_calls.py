"""What `context.recall` answers on a real kernel with the real encoder; and a change of models in mid-course."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from benchmarks.kernel import RunningKernel, booted
from benchmarks.recall import await_embedded
from kernos.syscalls import Context, Kernel
from kernos.syscalls.context import Recall, Recalled
from kernos.syscalls.model import Generate, Message

MODEL: Final = "smollm2-135m"
TWIN: Final = "smollm2-twin"
DAY: Final = 86_400.0
MAY: Final = 1_746_057_600.0
"""The first of May 2025."""

TOLD: Final = (
    Message("user", "Clara: I adopted a grey kitten from the shelter.", labels=["pets"], time=MAY),
    Message("assistant", "Congratulations! Kittens need a lot of sleep.", labels=["pets", "advice"], time=MAY + DAY),
    Message("user", "Clara: The kitten sleeps on my keyboard.", labels=["pets"], time=MAY + 2 * DAY),
    Message("user", "Clara: My tram to the office is always late.", time=MAY + 3 * DAY),
    Message("user", "我们在葡萄牙的海滩上结了婚。", time=MAY + 4 * DAY),
    Message("user", "我的祖父有十一只山羊。", time=MAY + 5 * DAY),
    Message("user", "The spare key is under the blue flowerpot.", time=MAY + 6 * DAY),
    Message("user", "The spare key is under the blue flowerpot.", time=MAY + 7 * DAY),
    *(Message("user", f"The train to platform {n} left on time, and the weather was fine.", time=MAY + 8 * DAY) for n in range(20)),
)


@pytest.fixture(scope="module")
def agent(kernel: RunningKernel) -> Iterator[Kernel]:
    with kernel.connect() as connection:
        yield connection.spawn("recaller")


@pytest.fixture(scope="module")
def talk(agent: Kernel) -> Iterator[Context]:
    context = Context(agent, "told-and-left")
    context.append(*TOLD)
    context.page_out(len(TOLD))
    await_embedded(context)
    yield context
    context.delete()


def recalled(agent: Kernel, call: Recall) -> list[Recalled]:
    return agent.call(call).pages


@pytest.mark.parametrize(("asked", "message"), [("你们在葡萄牙做了什么", 4), ("祖父的山羊", 5)])
def test_chinese_is_recalled_by_its_words(agent: Kernel, talk: Context, asked: str, message: int) -> None:
    best = recalled(agent, Recall(context=talk.id, query=asked, limit=1))[0]
    assert best.message == message
    assert best.points.words > 1


def test_filters_leave_what_was_asked_for(agent: Kernel, talk: Context) -> None:
    def messages(**filters: object) -> set[int]:
        return {page.message for page in recalled(agent, Recall(context=talk.id, query="the kitten", limit=100, **filters))}  # type: ignore[arg-type]

    assert messages() > {0, 1, 2}
    assert messages(roles=["assistant"]) == {1}
    assert messages(roles=["assistant", "system"], labels=["pets"]) == {1}
    assert messages(labels=["pets"]) == {0, 1, 2}
    assert messages(labels=["pets", "advice"]) == {1}
    assert messages(labels=["secret"]) == set()
    assert messages(since=MAY + DAY, until=MAY + 3 * DAY) == {1, 2}


def test_a_budget_is_kept_and_filled_with_the_best(agent: Kernel, talk: Context) -> None:
    every = recalled(agent, Recall(context=talk.id, query="Where does the kitten sleep?", limit=100))
    budget = sum(page.tokens for page in every[:3])
    some = recalled(agent, Recall(context=talk.id, query="Where does the kitten sleep?", limit=100, budget=budget))
    assert some == every[:3]
    assert recalled(agent, Recall(context=talk.id, query="Where does the kitten sleep?", budget=1)) == []


def test_scores_are_told_by_their_parts(agent: Kernel, talk: Context) -> None:
    pages = recalled(agent, Recall(context=talk.id, query="Where does the cat of Clara take a nap?", limit=100))
    assert [page.points.score for page in pages] == sorted((page.points.score for page in pages), reverse=True)
    for page in pages:
        assert page.points.score == pytest.approx(page.points.meaning + page.points.words + page.points.author, abs=1e-4)
        assert (page.points.author > 0) == page.text.startswith("Clara:")
    assert pages[0].message == 2
    assert pages[0].points.meaning > pages[0].points.words


def test_equal_texts_are_recalled_once(agent: Kernel, talk: Context) -> None:
    asked = "How can somebody get into the house?"
    assert sum("flowerpot" in page.text for page in recalled(agent, Recall(context=talk.id, query=asked, limit=100))) == 1
    prompt = talk.explain(MODEL, Message("user", asked))
    assert sum("flowerpot" in part.text for part in prompt.parts) == 1


@pytest.fixture
def two_models(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model store with the decoder under two names."""
    for name, kept in ((MODEL, MODEL), ("minilm", "minilm"), (TWIN, MODEL)):
        (tmp_path / name).mkdir()
        for file in (models / kept).iterdir():
            (tmp_path / name / file.name).symlink_to(file)
    manifest = tmp_path / TWIN / "kernos.json"
    told = json.loads(manifest.read_bytes()) | {"name": TWIN}
    manifest.unlink()
    manifest.write_text(json.dumps(told), encoding="utf-8")
    monkeypatch.setenv("KERNOS_MODELS", str(tmp_path))


@pytest.mark.usefixtures("two_models")
def test_a_conversation_goes_on_with_another_model() -> None:
    with booted() as running, running.connect() as connection:
        agent = connection.spawn("switcher")
        talk = Context(agent, "switched", model=MODEL)
        for model, said in ((MODEL, "My name is Iris."), (TWIN, "What is my name?")):
            call = Generate(model=model, context=talk.id, messages=[Message("user", said)], max_tokens=8)
            assert agent.call(call, timeout=120).text
            saw = talk.explain(model)
            assert (saw.model, saw.seen) == (model, True)
            assert saw.parts[0].text == "My name is Iris."
            assert saw.parts[-1].text == said
        assert [message.text for message in talk][::2] == ["My name is Iris.", "What is my name?"]
