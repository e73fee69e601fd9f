"""Pages get their vectors behind everybody's back, whatever happens to the encoder and the disk meanwhile."""

import pytest

from kernos.kernel.devices.messages import Failed
from kernos.kernel.limits import EMBED_BATCH, EMBED_RETRY_S
from kernos.syscalls.context import AppendContext, OpenContext, PageOut, StatContext
from kernos.syscalls.errors import StorageFullError
from kernos.syscalls.model import Message
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
