"""Notice before messages leave a window, and summaries of them, on a real kernel whose model sees 512 tokens."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Final

import pytest

from benchmarks.kernel import RunningKernel, booted
from kernos.agents import Agent, Conversation
from kernos.syscalls import AsyncKernel, Context
from kernos.syscalls.context import ExplainContext, Notice, Prompt, Recall, Recalled, Source
from kernos.syscalls.errors import KernelRestartedError
from kernos.syscalls.model import Generate, Generation, LoadModel, Message
from kernos.syscalls.system import GetStatus

MODEL: Final = "smollm2-135m"
PLACES: Final = ("lake", "tower", "forest", "harbour", "market", "bridge", "station", "garden", "mill", "school")
TOLD: Final = [f"Anna told us a long story about the {place}, and what happened there in the winter of that year." for place in PLACES]


@pytest.fixture(autouse=True)
def small_window(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model store whose decoder sees 512 tokens."""
    (tmp_path / MODEL).mkdir()
    for file in (models / MODEL).iterdir():
        (tmp_path / MODEL / file.name).symlink_to(file)
    manifest = tmp_path / MODEL / "kernos.json"
    told = json.loads(manifest.read_bytes()) | {"window": 512}
    manifest.unlink()
    manifest.write_text(json.dumps(told), encoding="utf-8")
    monkeypatch.setenv("KERNOS_MODELS", str(tmp_path))


async def _summarized(running: RunningKernel) -> tuple[list[Message], list[Recalled], Prompt]:
    """What an agent was told that sums up its conversation with the model, what is recalled afterwards, and what the model is shown."""
    heard: list[Message] = []
    async with AsyncKernel(running.key, where=running.where) as kernel, Agent.spawn(kernel, "talker") as agent:
        await kernel.call(LoadModel(model=MODEL))

        async def sum_up(messages: list[Message]) -> str:
            heard.extend(messages)
            text = "Say in one sentence who told stories: " + " ".join(message.text for message in messages)
            answer = await agent.call(Generate(model=agent.model, messages=[Message("user", text)], max_tokens=12))
            return f"The chronicle says: {answer.text}"

        conversation = await Conversation.open(agent, "talk", on_notice=sum_up)
        for number, text in enumerate(TOLD):
            await conversation.keep(text, f"That was story {number}, and I wonder what comes after it.")
        question = "What does the chronicle say of the winter?"
        assert [piece async for piece in conversation.ask(question, max_tokens=2)]
        recalled = await agent.call(Recall(context=conversation.id, query=question))
        asked = ExplainContext(context=conversation.id, model=agent.model, messages=[Message("user", question)])
        return heard, recalled.pages, await agent.call(asked)


def test_what_leaves_is_summed_up_by_the_model_before(models: object, caplog: pytest.LogCaptureFixture) -> None:
    with booted() as running:
        heard, recalled, prompt = asyncio.run(_summarized(running))
    assert [message.text for message in heard[::2]] == TOLD[: len(heard[::2])]
    (summary,) = {page.source for page in recalled if page.source}
    assert (summary.start, summary.stop) == (0, len(heard))
    assert any(page.source is None and page.message < len(heard) for page in recalled), "the messages are found as well"
    assert summary in [part.source for part in prompt.parts if part.why == "recalled"]
    assert "summaries" not in caplog.text, "the end of an agent is not worth a warning"


TURN: Final = Message("user", "Go on!")


def _sum_up_the_first(running: RunningKernel, opened: Event) -> Notice:
    """What an agent was told that sums up one message of it, and is not done then."""
    with running.connect() as kernel:
        chat = Context(kernel.spawn("watcher"), "chat")
        opened.set()
        notice = chat.notice()
        chat.summarize(0, 1, "Anna was at the lake.")
        return notice


def _ask(running: RunningKernel, context: str) -> Generation:
    """Ask once, on a connection of its own."""
    with running.connect() as kernel:
        return kernel.spawn("talker").call(Generate(model=MODEL, context=context, messages=[TURN], max_tokens=2), retry=False)


def test_a_kernel_that_dies_before_messages_have_left_lets_them_leave_later(models: object, home: str) -> None:
    opened = Event()
    with ThreadPoolExecutor() as pool:
        with booted(home=home) as running:
            kernel = running.connect()  # no model is loaded, as none is needed to page out
            chat = Context(kernel.spawn("teller"), "chat")
            chat.append(*(Message("user", text) for text in TOLD * 2))
            noticing = pool.submit(_sum_up_the_first, running, opened)
            assert opened.wait(60)
            while not kernel.call(GetStatus()).in_flight:  # until it waits for notice
                assert not noticing.done()
            turn = pool.submit(_ask, running, chat.id)
            notice = noticing.result(60)
            assert [message.text for message in notice.messages] == (TOLD * 2)[: notice.stop]
            assert chat.stat().info.resident == 0, "the turn waits"
            running.kill()
            assert isinstance(turn.exception(60), KernelRestartedError)
        with booted(home=home) as running, kernel:
            assert _ask(running, chat.id).text
            assert chat.stat().info.resident == notice.stop
            assert Source(0, 1) in [page.source for page in chat.recall("Who was at the lake?", limit=20)]
