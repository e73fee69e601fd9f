"""Pages get their vectors behind everybody's back, whatever happens to the encoder and the disk meanwhile."""

import pytest

from kernos.kernel.devices.messages import Failed
from kernos.kernel.limits import EMBED_BATCH, EMBED_RETRY_S
from kernos.syscalls.call import Call
from kernos.syscalls.context import AppendContext, OpenContext, PageOut, SearchContexts, StatContext
from kernos.syscalls.errors import StorageFullError
from kernos.syscalls.model import Generate, Message
from kernos.syscalls.system import Cancel
from tests.kernel.fakes import App, World


@pytest.fixture
def agent(thinking: World) -> App:
    thinking.system.embedder.start()
    thinking.host.work()
    return thinking.connect("app:shop").spawn()


@pytest.fixture
def chat(agent: App) -> str:
    id_ = agent.call(OpenContext(name="chat")).context
    agent.call(AppendContext(context=id_, messages=[Message("user", f"message {n}") for n in range(EMBED_BATCH + 3)]))
    agent.call(PageOut(context=id_, until=EMBED_BATCH + 2))
    return id_


def embedded(agent: App, chat: str) -> int:
    return agent.call(StatContext(context=chat)).embedded


def ready(world: World) -> None:
    world.system.registry.need("tiny-encoder", "encoder")
    world.loaded("tiny-encoder")
    world.host.work()


def test_they_wait_for_the_encoder_and_come_in_batches(thinking: World, agent: App, chat: str) -> None:
    assert not thinking.system.embeds.batches
    ready(thinking)
    (batch,) = thinking.system.embeds.batches.values()
    assert len(batch.inputs) == EMBED_BATCH
    thinking.embed()
    assert embedded(agent, chat) == EMBED_BATCH + 2


def test_each_sentence_of_a_page_has_a_vector(thinking: World, agent: App) -> None:
    id_ = agent.call(OpenContext(name="long")).context
    told = "The bus was late again on Monday. Clara adopted a grey kitten."
    agent.call(AppendContext(context=id_, messages=[Message("user", told), Message("user", "The end.")]))
    agent.call(PageOut(context=id_, until=2))
    ready(thinking)
    (batch,) = thinking.system.embeds.batches.values()
    assert len(batch.inputs) == 3
    thinking.embed()
    sizes = thinking.disk.database.connection.execute("SELECT length(vector) FROM pages ORDER BY id").fetchall()
    assert sizes == [(2 * 2 * 4,), (2 * 4,)]
    assert embedded(agent, id_) == 2


def test_what_fails_is_tried_again(thinking: World, agent: App, chat: str) -> None:
    ready(thinking)
    (batch,) = thinking.system.embeds.batches.values()
    thinking.report("encoder", Failed("out of memory", batch=batch.id))
    assert not thinking.system.embeds.batches
    thinking.host.advance(EMBED_RETRY_S)
    thinking.disk.failure = StorageFullError("The disk is full.", retry_after=5.0)
    thinking.embed()
    assert embedded(agent, chat) == 0
    thinking.disk.failure = None
    thinking.host.advance(EMBED_RETRY_S)
    thinking.embed()
    assert embedded(agent, chat) == EMBED_BATCH + 2


def test_nobody_is_charged(thinking: World, agent: App, chat: str) -> None:
    ready(thinking)
    thinking.embed()
    used = {meter.limit: meter.used for meter in thinking.system.quotas.usage("app:shop", thinking.host.now)}
    assert used["tokens_per_minute"] == 0


def test_another_encoder_embeds_anew(thinking: World, agent: App, chat: str) -> None:
    ready(thinking)
    thinking.embed()
    thinking.disk.database.connection.execute("UPDATE pages SET model = 'older'")
    thinking.system.embedder.start()
    thinking.embed()
    assert embedded(agent, chat) == EMBED_BATCH + 2
    assert thinking.disk.database.connection.execute("SELECT DISTINCT model FROM pages").fetchall() == [("tiny-encoder",)]


@pytest.mark.parametrize("what", ["turn", "search"])
def test_pages_that_a_call_made_are_embedded_and_found_whenever_it_is_cancelled(thinking: World, agent: App, what: str) -> None:
    """A turn that makes room, or a search of what is in windows, is cancelled after each number of steps that threads carry out for it."""
    ready(thinking)
    thinking.system.registry.need("tiny", "decoder")
    thinking.loaded("tiny")
    id_ = agent.call(OpenContext(name="chat")).context
    call: Call[object] = Generate(model="tiny", context=id_, max_tokens=8) if what == "turn" else SearchContexts(query="tulip", limit=64)
    made = [_cancelled_after(steps, agent, call, id_) for steps in range(8)]
    assert not made[0]
    assert made[-1]


def _cancelled_after(steps: int, agent: App, call: Call[object], context: str) -> bool:
    """Whether the call made pages, of messages that are new."""
    world, before = agent.world, _pages(agent.world)
    agent.call(AppendContext(context=context, messages=[Message("user", f"{what} " + "x" * 60) for what in (f"tulip{steps}", "a", "b")]))
    sent = agent.send(call)
    for _ in range(min(steps, len(world.host.offloaded))):
        world.host.offloaded.pop(0)()
    agent.send(Cancel(id=sent.id))
    world.embed()
    made = _pages(world) - before
    assert not world.disk.database.connection.execute("SELECT id FROM pages WHERE vector IS NULL").fetchall()
    search = agent.send(SearchContexts(query=f"tulip{steps}", limit=64))
    world.embed()
    assert any(f"tulip{steps} " in page.text for page in search.result().pages)
    return made > 0


def _pages(world: World) -> int:
    (count,) = world.disk.database.connection.execute("SELECT count(*) FROM pages").fetchone()
    return int(count)
