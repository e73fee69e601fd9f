"""Notice before messages leave a window, through the gate, by a clock that is moved by hand. The tiny model sees 256 tokens of a byte."""

from pathlib import Path

import pytest

from kernos.kernel.limits import NOTICE_S
from kernos.syscalls.context import (
    AppendContext,
    AwaitNotice,
    DeleteContext,
    ExplainContext,
    GrantContext,
    LabelContext,
    Notice,
    OpenContext,
    PageOut,
    Recall,
    RollbackContext,
    SearchContexts,
    Source,
    StatContext,
    SummarizeContext,
)
from kernos.syscalls.errors import DeadlineError, DeniedError, KernosError, NotFoundError
from kernos.syscalls.model import Generate, Message
from tests.kernel.fakes import App, Sent, World, make_world, tokens_of

SHOP = "app:shop"
LONG = "x" * 33


def ready(world: World) -> App:
    """An agent whose model is loaded."""
    agent = world.connect(SHOP).spawn()
    agent.send(Generate(model="tiny", messages=[Message("user", "hi")], max_tokens=1))
    world.loaded("tiny")
    world.step((world.begun().seq, tokens_of("."), "length"))
    return agent


@pytest.fixture
def agent(thinking: World) -> App:
    return ready(thinking)


@pytest.fixture
def chat(agent: App) -> str:
    """A context that is nearly full: its next turn needs no room, and the one after that does."""
    id_ = agent.call(OpenContext(name="chat")).context
    agent.call(AppendContext(context=id_, messages=[Message("user", f"{n} {LONG}") for n in range(4)]))
    return id_


def ask(agent: App, chat: str, text: str = LONG, **options: int) -> Sent:
    """Begin a turn."""
    sent = agent.send(
        Generate(model="tiny", messages=[Message("user", text)], context=chat, max_tokens=8), timeout_ms=options.get("timeout_ms")
    )
    agent.world.host.work()
    return sent


def begun(agent: App) -> int:
    """Turns that the device has begun, but for the one that loaded the model."""
    return len({begin.seq for begin in agent.world.commands(type(agent.world.begun()))}) - 1


def finish(agent: App, sent: Sent) -> None:
    """Let the model answer the last turn that began."""
    agent.world.step((agent.world.begun().seq, tokens_of("ok"), "stop"))
    sent.result()


def watch(agent: App, chat: str, grace: float = 10.0) -> Sent:
    sent = agent.send(AwaitNotice(context=chat, grace=grace))
    agent.world.host.work()
    return sent


def fill(agent: App, chat: str) -> None:
    """Fill a window at one go, so that the next turn needs room at once."""
    agent.call(AppendContext(context=chat, messages=[Message("user", LONG), Message("user", LONG)]))


def resident(agent: App, chat: str) -> int:
    return agent.call(StatContext(context=chat)).info.resident


def test_an_agent_is_told_before_a_turn_needs_room_and_no_turn_waits(agent: App, chat: str) -> None:
    watcher = agent.world.connect(SHOP).spawn("watcher")
    noticing = watch(watcher, chat)
    finish(agent, ask(agent, chat))
    assert resident(agent, chat) == 0
    notice: Notice = noticing.result()
    assert (notice.context, notice.start) == (chat, 0)
    assert [message.text for message in notice.messages] == [f"{n} {LONG}" for n in range(notice.stop)]
    assert notice.deadline == agent.world.host.clock + 10
    watcher.call(SummarizeContext(context=chat, start=0, stop=notice.stop, text="Everybody says x."))
    finish(agent, ask(agent, chat))
    assert resident(agent, chat) == notice.stop, "what was told, and no more"


@pytest.mark.parametrize("what", ["summarize", "notice", "exit"])
def test_a_turn_waits_until_the_agent_is_done(agent: App, chat: str, what: str) -> None:
    fill(agent, chat)
    watcher = agent.world.connect(SHOP).spawn("watcher")
    noticing = watch(watcher, chat)
    sent = ask(agent, chat)
    notice = noticing.result()
    assert (begun(agent), resident(agent, chat)) == (0, 0)
    if what == "summarize":
        watcher.call(SummarizeContext(context=chat, start=0, stop=1, text="The first."))
        assert begun(agent) == 0, "there are others"
        watcher.call(SummarizeContext(context=chat, start=1, stop=notice.stop, text="The others."))
    elif what == "notice":
        assert watch(watcher, chat).open
    else:
        agent.world.system.end_agent(agent.world.system.processes.rows[watcher.pid], 0, "done")
        agent.world.host.work()
    assert begun(agent) == 1
    assert resident(agent, chat) == notice.stop
    finish(agent, sent)


def test_after_the_deadline_messages_leave_anyhow(agent: App, chat: str) -> None:
    fill(agent, chat)
    noticing = watch(agent, chat)
    sent = ask(agent, chat)
    stop = noticing.result().stop
    agent.world.host.advance(9.9)
    agent.world.host.work()
    assert begun(agent) == 0
    agent.world.host.advance(0.2)
    agent.world.host.work()
    assert (begun(agent), resident(agent, chat)) == (1, stop)
    finish(agent, sent)
    agent.call(SummarizeContext(context=chat, start=0, stop=stop, text="Late, and kept."))
    assert "Late, and kept." in [page.text for page in agent.call(Recall(context=chat, query="late kept")).pages]


def test_no_turn_waits_longer_than_the_kernel_allows(agent: App, chat: str) -> None:
    fill(agent, chat)
    noticing = watch(agent, chat, grace=3_000.0)
    sent = ask(agent, chat)
    assert noticing.result().deadline == agent.world.host.clock + NOTICE_S
    agent.world.host.advance(NOTICE_S)
    agent.world.host.work()
    finish(agent, sent)


def test_turns_that_give_up_do_not_hold_up_those_that_come_after(agent: App, chat: str) -> None:
    fill(agent, chat)
    noticing = watch(agent, chat)
    first = ask(agent, chat, timeout_ms=4_000)
    assert noticing.result()
    agent.world.host.advance(5)
    assert isinstance(first.error(), DeadlineError)
    second = ask(agent, chat)
    assert begun(agent) == 0
    agent.world.host.advance(5)
    agent.world.host.work()
    finish(agent, second)
    finish(agent, ask(agent, chat, "hi"))


def test_a_turn_that_waited_sees_what_was_written_meanwhile(agent: App, chat: str) -> None:
    fill(agent, chat)
    noticing = watch(agent, chat)
    sent = ask(agent, chat)
    assert noticing.result()
    agent.call(AppendContext(context=chat, messages=[Message("user", "By the way")]))
    agent.world.host.advance(10)
    agent.world.host.work()
    finish(agent, sent)
    assert "By the way" in [part.text for part in agent.call(ExplainContext(context=chat, model="tiny")).parts]


def test_nobody_is_told_who_does_not_want_to_know(agent: App, chat: str) -> None:
    fill(agent, chat)
    cancelled = watch(agent, chat)
    agent.world.gate.cancel(SHOP, cancelled.id)
    finish(agent, ask(agent, chat))
    assert resident(agent, chat) > 0


def test_each_message_is_told_of_once(agent: App, chat: str) -> None:
    first = watch(agent, chat)
    finish(agent, ask(agent, chat))
    stop = first.result().stop
    again = watch(agent, chat)
    finish(agent, ask(agent, chat))
    fill(agent, chat)
    sent = ask(agent, chat)
    assert again.result().start == stop
    watch(agent, chat)
    finish(agent, sent)


def test_after_a_rollback_other_messages_are_told_of(agent: App, chat: str) -> None:
    first = watch(agent, chat)
    finish(agent, ask(agent, chat))
    assert first.result()
    agent.call(RollbackContext(context=chat, messages=0))
    agent.call(AppendContext(context=chat, messages=[Message("user", f"new {LONG}") for n in range(4)]))
    again = watch(agent, chat)
    finish(agent, ask(agent, chat))
    assert again.result().messages[0].text == f"new {LONG}"


def test_what_is_paged_out_by_hand_leaves_at_once(agent: App, chat: str) -> None:
    noticing = watch(agent, chat)
    assert agent.call(PageOut(context=chat, until=2)).resident == 2
    assert noticing.open


def test_there_is_no_notice_of_a_context_that_is_gone(agent: App, chat: str) -> None:
    noticing = watch(agent, chat)
    agent.call(DeleteContext(context=chat))
    assert isinstance(noticing.error(), NotFoundError)
    assert isinstance(agent.refused(AwaitNotice(context=chat)), NotFoundError)


def test_notice_is_for_the_owner(thinking: World, agent: App, chat: str, tmp_path: Path) -> None:
    lawful = make_world(tmp_path / "lawful", policy=None)
    shop, other = (lawful.connect(app).spawn() for app in (SHOP, "app:other"))
    id_ = shop.call(OpenContext(name="chat")).context
    shop.call(AppendContext(context=id_, messages=[Message("user", "a")]))
    calls = (AwaitNotice(context=id_), SummarizeContext(context=id_, start=0, stop=1, text="b"))
    assert all(isinstance(other.refused(call), DeniedError) for call in calls)
    shop.call(GrantContext(context=id_, principal="app:other", access="append"))
    assert all(isinstance(other.refused(call), DeniedError) for call in calls)
    shop.call(calls[1])


def test_a_restart_forgets_notices_and_keeps_summaries(thinking: World, agent: App, chat: str, tmp_path: Path, tiny_store: Path) -> None:
    fill(agent, chat)
    noticing = watch(agent, chat)
    ask(agent, chat)
    stop = noticing.result().stop
    agent.call(SummarizeContext(context=chat, start=0, stop=1, text="Everybody says x."))
    assert resident(agent, chat) == 0
    again = make_world(tmp_path, store=tiny_store)
    again.up()
    other = ready(again)
    finish(other, ask(other, chat))
    assert resident(other, chat) == stop
    assert Source(0, 1) in [page.source for page in other.call(Recall(context=chat, query="everybody")).pages]


class TestSummaries:
    """What callers see of them."""

    @pytest.fixture
    def told(self, agent: App, chat: str) -> str:
        agent.call(SummarizeContext(context=chat, start=1, stop=3, text="Tulips"))
        agent.call(PageOut(context=chat, until=3))
        return chat

    def test_they_are_marked_in_recall_and_search(self, agent: App, told: str) -> None:
        for call in (Recall(context=told, query="tulips", limit=1), SearchContexts(query="tulips", limit=1)):
            (page,) = agent.call(call).pages
            assert (page.text, page.message, page.role, page.source) == ("Tulips", 1, "assistant", Source(1, 3))
        others = agent.call(Recall(context=told, query="x", limit=9)).pages
        assert [page.message for page in others if page.source is None] != []

    def test_they_are_embedded_and_found_by_meaning(self, agent: App, told: str) -> None:
        world = agent.world
        world.system.embedder.start()
        world.system.registry.need("tiny-encoder", "encoder")
        world.loaded("tiny-encoder")
        world.embed()
        sent = agent.send(Recall(context=told, query="Tulips", limit=1))
        world.embed()
        (page,) = sent.result().pages
        assert (page.source, page.points.meaning > 1) == (Source(1, 3), True)

    def test_they_are_marked_in_what_the_model_sees(self, agent: App, told: str) -> None:
        sent = ask(agent, told, "tulips?")
        finish(agent, sent)
        parts = agent.call(ExplainContext(context=told, model="tiny")).parts
        (summary,) = [part for part in parts if part.source is not None]
        assert (summary.why, summary.text, summary.message, summary.source) == ("recalled", "Tulips", 1, Source(1, 3))

    def test_they_carry_the_labels_of_who_wrote_them(self, agent: App, chat: str) -> None:
        secret = agent.call(OpenContext(name="secret")).context
        agent.call(LabelContext(context=secret, labels=["pets"]))
        agent.call(StatContext(context=secret))
        agent.call(SummarizeContext(context=chat, start=0, stop=1, text="b"))
        assert agent.call(StatContext(context=chat)).labels == ["pets"]
        agent.call(PageOut(context=chat, until=1))
        assert [page.source for page in agent.call(Recall(context=chat, query="b", labels=["pets"])).pages] == [Source(0, 1)]

    def test_one_that_is_written_again_is_written_once(self, agent: App, chat: str) -> None:
        call = SummarizeContext(context=chat, start=0, stop=1, text="Tulips")
        assert agent.call(call, key="k") == agent.call(call, key="k")
        agent.call(PageOut(context=chat, until=1))
        assert len([page for page in agent.call(Recall(context=chat, query="tulips")).pages if page.source]) == 1

    def test_they_count(self, agent: App, chat: str) -> None:
        def held() -> int:
            return next(meter.used for meter in agent.world.system.quotas.usage(SHOP, agent.world.host.now) if meter.limit == "bytes")

        before = held()
        agent.call(SummarizeContext(context=chat, start=0, stop=1, text="12345"))
        assert held() == before + 5
        assert isinstance(agent.refused(SummarizeContext(context=chat, start=0, stop=9, text="12345")), KernosError)
        assert held() == before + 5
        agent.call(DeleteContext(context=chat))
        assert held() == 0
