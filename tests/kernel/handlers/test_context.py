"""`context.*`: durable conversations, through the gate."""

from pathlib import Path

import pytest

from kernos.kernel.memory import transcripts
from kernos.syscalls.context import (
    AppendContext,
    CloseContext,
    DeleteContext,
    DropSnapshot,
    ExplainContext,
    ForkContext,
    GrantContext,
    LabelContext,
    ListContexts,
    OpenContext,
    PageOut,
    PinMessages,
    ReadContext,
    ReadHistory,
    Recall,
    RestoreContext,
    RollbackContext,
    SearchContexts,
    SnapshotContext,
    StatContext,
    UnpinMessages,
)
from kernos.syscalls.errors import BadRequestError, ConflictError, DeniedError, LimitError, NotFoundError
from kernos.syscalls.model import Generate, Message
from tests.kernel.fakes import App, World, make_world, tiny_tokenizer, tokens_of

SHOP = "app:shop"
SIX = [Message("user", f"message {n}") for n in range(6)]


@pytest.fixture
def agent(world: World) -> App:
    return world.connect(SHOP).spawn()


@pytest.fixture
def chat(agent: App) -> str:
    id_ = agent.call(OpenContext(name="chat")).context
    agent.call(AppendContext(context=id_, messages=SIX))
    return id_


def texts(agent: App, id_: str) -> list[str]:
    return [message.text for message in agent.call(ReadContext(context=id_)).messages]


def held(world: World, principal: str = SHOP) -> tuple[int, int]:
    meters = {meter.limit: meter.used for meter in world.system.quotas.usage(principal, world.host.now)}
    return meters["contexts"], meters["bytes"]


SIZE = sum(len(message.text) for message in SIX)


class TestOpen:
    def test_makes_and_finds(self, agent: App) -> None:
        first = agent.call(OpenContext(name="chat"))
        assert (first.name, first.owner, first.messages) == ("chat", SHOP, 0)
        assert agent.call(OpenContext(name="chat")).context == first.context

    def test_the_number_is_bounded(self, world: World, agent: App) -> None:
        world.system.quotas.set_limits(SHOP, {"contexts": 1})
        agent.call(OpenContext(name="a"))
        assert isinstance(agent.refused(OpenContext(name="b")), LimitError)
        agent.call(OpenContext(name="a"))

    def test_two_that_make_the_same_at_once_make_one(self, world: World, agent: App) -> None:
        sent = [agent.send(OpenContext(name="chat")) for _ in range(2)]
        world.host.work()
        assert len({each.result().context for each in sent}) == 1
        assert held(world) == (1, 0)

    def test_a_closed_one_takes_messages_when_it_is_opened_again(self, agent: App, chat: str) -> None:
        agent.call(CloseContext(context=chat))
        assert isinstance(agent.refused(AppendContext(context=chat, messages=SIX)), ConflictError)
        assert agent.call(StatContext(context=chat)).info.closed
        assert not agent.call(OpenContext(name="chat")).closed
        agent.call(AppendContext(context=chat, messages=SIX))

    def test_a_model_is_attached_and_exchanged(self, thinking: World) -> None:
        agent = thinking.connect(SHOP).spawn()
        first = agent.call(OpenContext(name="chat", model="tiny"))
        assert first.model == agent.call(OpenContext(name="chat")).model == "tiny"
        assert agent.call(OpenContext(name="chat", model="tiny-encoder")).model == "tiny-encoder"
        assert isinstance(agent.refused(OpenContext(name="chat", model="none")), NotFoundError)


class TestMessages:
    def test_append_and_read(self, agent: App, chat: str) -> None:
        part = agent.call(ReadContext(context=chat, start=1, limit=3))
        assert (part.messages, part.start, part.total) == (SIX[1:4], 1, 6)
        assert agent.call(ReadContext(context=chat, start=9)).messages == []

    def test_labels_and_tool_calls_are_kept(self, agent: App, chat: str) -> None:
        message = Message("assistant", "", ["secret"], '[{"tool":"x"}]')
        assert agent.call(AppendContext(context=chat, messages=[message])).labels == ["secret"]
        assert agent.call(ReadContext(context=chat, start=6)).messages == [message]

    def test_a_message_may_have_a_time_of_its_own(self, world: World, agent: App, chat: str) -> None:
        agent.call(AppendContext(context=chat, messages=[Message("user", "then", time=86_400.0), Message("user", "now")]))
        part = agent.call(ReadContext(context=chat, start=6))
        assert part.messages == [Message("user", "then"), Message("user", "now")]
        assert [state.time for state in part.states] == [86_400.0, world.host.clock]
        assert agent.call(StatContext(context=chat)).info.updated == world.host.clock
        agent.call(PageOut(context=chat, until=8))
        assert [page.text for page in agent.call(Recall(context=chat, query="then now", until=100_000.0)).pages] == ["then"]
        assert agent.call(Recall(context=chat, query="What was on 2 January 1970?", limit=1)).pages[0].text == "then"
        for time in (-1.0, float("nan"), float("inf"), 1e12):
            assert isinstance(agent.refused(AppendContext(context=chat, messages=[Message("user", "x", time=time)])), BadRequestError)

    def test_tokens_are_the_models_and_the_templates(self, thinking: World) -> None:
        agent = thinking.connect(SHOP).spawn()
        id_ = agent.call(OpenContext(name="chat")).context
        agent.call(AppendContext(context=id_, messages=[Message("user", "12345"), Message("user", "x" * 5_000)]))
        states = agent.call(ReadContext(context=id_)).states
        overhead = (len("<user>") + len("<assistant>") + 1) // 2
        assert [state.tokens for state in states] == [5 + overhead, 5_000 + overhead]

    def test_all_or_none(self, world: World, agent: App, chat: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(transcripts, "CONTEXT_BYTES", SIZE + 5)
        error = agent.refused(AppendContext(context=chat, messages=[Message("user", "1"), Message("user", "23456")]))
        assert isinstance(error, LimitError)
        assert texts(agent, chat) == [message.text for message in SIX]
        assert held(world) == (1, SIZE)
        agent.call(AppendContext(context=chat, messages=[Message("user", "12345")]))

    def test_delete(self, world: World, agent: App, chat: str) -> None:
        agent.call(DeleteContext(context=chat))
        assert isinstance(agent.refused(ReadContext(context=chat)), NotFoundError)
        assert isinstance(agent.refused(AppendContext(context=chat, messages=SIX)), NotFoundError)
        assert agent.call(ListContexts()).contexts == []
        assert held(world) == (0, 0)
        assert agent.call(OpenContext(name="chat")).context != chat

    def test_the_list_is_the_owners(self, world: World, agent: App) -> None:
        for name in ("b", "a"):
            agent.call(OpenContext(name=name))
        world.connect("app:other").spawn().call(OpenContext(name="c"))
        assert [info.name for info in agent.call(ListContexts()).contexts] == ["a", "b"]


class TestHistory:
    def test_a_fork_goes_its_own_way(self, world: World, agent: App, chat: str) -> None:
        fork = agent.call(ForkContext(context=chat, name="other"))
        agent.call(AppendContext(context=fork.context, messages=[Message("user", "there")]))
        agent.call(AppendContext(context=chat, messages=[Message("user", "here")]))
        assert texts(agent, fork.context)[-2:] == ["message 5", "there"]
        assert texts(agent, chat)[-2:] == ["message 5", "here"]
        assert held(world) == (2, 2 * SIZE + len("there") + len("here"))
        agent.call(DeleteContext(context=chat))
        assert len(texts(agent, fork.context)) == 7
        assert isinstance(agent.refused(ForkContext(context=fork.context, name="other")), ConflictError)
        assert held(world) == (1, SIZE + len("there"))

    def test_back_and_forward(self, agent: App, chat: str) -> None:
        agent.call(SnapshotContext(context=chat, name="all"))
        assert agent.call(RollbackContext(context=chat, messages=2)).messages == 2
        assert texts(agent, chat) == ["message 0", "message 1"]
        assert agent.call(RestoreContext(context=chat, name="all")).messages == 6
        assert [kept.name for kept in agent.call(StatContext(context=chat)).snapshots] == ["all"]
        found = agent.call(ReadHistory(context=chat, limit=3))
        assert ([operation.kind for operation in found.operations], found.total) == (["snapshot", "rollback", "restore"], 4)
        assert isinstance(agent.refused(RollbackContext(context=chat, messages=7)), ConflictError)
        assert isinstance(agent.refused(RestoreContext(context=chat, name="none")), NotFoundError)

    def test_a_dropped_snapshot_is_gone(self, agent: App, chat: str) -> None:
        agent.call(SnapshotContext(context=chat, name="all"))
        agent.call(DropSnapshot(context=chat, name="all"))
        assert agent.call(StatContext(context=chat)).snapshots == []
        for call in (DropSnapshot(context=chat, name="all"), RestoreContext(context=chat, name="all")):
            assert isinstance(agent.refused(call), NotFoundError)
        assert texts(agent, chat) == [message.text for message in SIX]


class TestWindow:
    def states(self, agent: App, id_: str) -> list[str]:
        return [state.state for state in agent.call(ReadContext(context=id_)).states]

    def test_pages_and_pins(self, agent: App, chat: str) -> None:
        agent.call(PinMessages(context=chat, start=0, stop=1))
        assert agent.call(PageOut(context=chat, until=3)).resident == 3
        assert self.states(agent, chat) == ["pinned", "paged", "paged", "resident", "resident", "resident"]
        stat = agent.call(StatContext(context=chat))
        assert (stat.pinned, stat.pages, stat.embedded) == ([0], 2, 0)
        agent.call(UnpinMessages(context=chat, start=0, stop=1))
        assert self.states(agent, chat)[0] == "paged"
        assert len(texts(agent, chat)) == 6
        assert isinstance(agent.refused(PageOut(context=chat, until=2)), ConflictError)


class TestSharing:
    @pytest.fixture
    def lawful(self, tmp_path: Path) -> World:
        return make_world(tmp_path, policy=None)

    def test_what_was_shared_can_be_read_and_no_more(self, lawful: World) -> None:
        shop, other = (lawful.connect(app).spawn() for app in (SHOP, "app:other"))
        id_ = shop.call(OpenContext(name="chat")).context
        shop.call(AppendContext(context=id_, messages=SIX))
        assert isinstance(other.refused(ReadContext(context=id_)), DeniedError)
        shop.call(GrantContext(context=id_, principal="app:other", access="read"))
        assert len(texts(other, id_)) == 6
        assert [info.name for info in other.call(ListContexts(shared=True)).contexts] == ["chat"]
        for call in (AppendContext(context=id_, messages=SIX), DeleteContext(context=id_), PageOut(context=id_, until=1)):
            assert isinstance(other.refused(call), DeniedError)
        assert other.call(ForkContext(context=id_, name="mine")).owner == "app:other"
        shop.call(GrantContext(context=id_, principal="app:other", access="append"))
        assert other.call(AppendContext(context=id_, messages=SIX)).messages == 12
        shop.call(GrantContext(context=id_, principal="app:other"))
        assert isinstance(other.refused(ReadContext(context=id_)), DeniedError)
        assert held(lawful) == (1, 2 * SIZE), "who made a context pays for it"
        assert held(lawful, "app:other") == (1, SIZE)

    def test_whom_the_law_lets_read_acts_as_the_owner(self, world: World, agent: App, chat: str) -> None:
        auditor = world.connect("app:auditor").spawn()
        assert len(texts(auditor, chat)) == 6
        assert auditor.call(ForkContext(context=chat, name="evidence")).owner == "app:auditor"


class TestRestart:
    def test_everything_is_back(self, world: World, agent: App, chat: str, tmp_path: Path) -> None:
        agent.call(GrantContext(context=chat, principal="app:other", access="read"))
        agent.call(LabelContext(context=chat, labels=["b", "a"]))
        agent.call(ForkContext(context=chat, name="fork"))
        before, books = agent.call(StatContext(context=chat)), held(world)
        again = make_world(tmp_path)
        agent = again.connect(SHOP).spawn()
        assert agent.call(StatContext(context=chat)) == before
        assert before.info.labels == ["a", "b"]
        assert texts(agent, chat) == [message.text for message in SIX]
        assert held(again) == books == (2, 2 * SIZE)
        assert again.system.contexts.whose(chat, again.system.processes.rows[again.connect("app:other").spawn().pid]) == "shared"

    def test_an_append_made_again_is_applied_once(self, agent: App, chat: str, tmp_path: Path) -> None:
        call = AppendContext(context=chat, messages=SIX)
        first = agent.call(call, key="k")
        again = make_world(tmp_path)
        agent = again.connect(SHOP).spawn()
        assert agent.call(call, key="k") == first
        assert len(texts(agent, chat)) == 12

    @pytest.mark.parametrize("call", [OpenContext(name="new"), ForkContext(context="", name="new")], ids=["open", "fork"])
    def test_what_was_made_is_made_once(self, agent: App, chat: str, tmp_path: Path, call: OpenContext | ForkContext) -> None:
        if isinstance(call, ForkContext):
            call = ForkContext(context=chat, name="new")
        first = agent.call(call, key="k")
        agent.call(DeleteContext(context=chat))
        again = make_world(tmp_path).connect(SHOP).spawn()
        assert again.call(call, key="k") == first
        assert [info.name for info in again.call(ListContexts()).contexts] == ["new"]
        told = again.call(AppendContext(context=first.context, messages=SIX))
        assert make_world(tmp_path).connect(SHOP).spawn().call(call, key="k") == told, "it tells of the context as it is now"
        again.call(DeleteContext(context=first.context))
        last = make_world(tmp_path).connect(SHOP).spawn()
        assert isinstance(last.refused(call, key="k"), NotFoundError), "it was made, and is deleted"
        assert last.call(ListContexts()).contexts == []


class TestRecall:
    @pytest.fixture
    def agent(self, thinking: World) -> App:
        return thinking.connect(SHOP).spawn()

    @pytest.fixture
    def long(self, agent: App) -> str:
        id_ = agent.call(OpenContext(name="long")).context
        texts = ["The tulips in the garden are red", *(f"Something else, number {n}" for n in range(20))]
        agent.call(AppendContext(context=id_, messages=[Message("user", text) for text in texts]))
        agent.call(PageOut(context=id_, until=20))
        return id_

    def test_what_has_left_is_found_by_its_words_at_once(self, agent: App, long: str) -> None:
        found = agent.call(Recall(context=long, query="Which colour had the tulips?", limit=1))
        assert not found.by_meaning
        page = found.pages[0]
        assert (page.context, page.message, page.role, page.text) == (long, 0, "user", "The tulips in the garden are red")
        assert page.points.words == page.points.score > 0
        assert agent.call(Recall(context=long, query="number 20")).pages[0].message != 20, "it is still in the window"

    def test_pages_are_embedded_and_found_by_meaning(self, thinking: World, agent: App, long: str) -> None:
        thinking.system.embedder.start()
        agent.world.system.registry.need("tiny-encoder", "encoder")
        thinking.loaded("tiny-encoder")
        thinking.embed()
        stat = agent.call(StatContext(context=long))
        assert (stat.pages, stat.embedded) == (20, 20)
        sent = agent.send(Recall(context=long, query="The tulips in the garden are red", limit=1))
        thinking.embed()
        found = sent.result()
        assert found.by_meaning
        assert (found.pages[0].message, found.pages[0].points.meaning > 1) == (0, True)

    def test_filters(self, agent: App, long: str) -> None:
        agent.call(AppendContext(context=long, messages=[Message("assistant", "Number nine is red", ["marked"]), Message("user", "x")]))
        agent.call(PageOut(context=long, until=22))
        only = agent.call(Recall(context=long, query="number red", roles=["assistant"], labels=["marked"]))
        assert [page.text for page in only.pages] == ["Number nine is red"]
        assert agent.call(Recall(context=long, query="number", until=1.0)).pages == []
        assert len(agent.call(Recall(context=long, query="number", budget=40)).pages) == 1

    def test_nobody_recalls_what_is_not_his(self, thinking: World, agent: App, long: str) -> None:
        other = thinking.connect("app:other").spawn()
        mine = other.call(OpenContext(name="long")).context
        other.call(AppendContext(context=mine, messages=[Message("user", "nothing"), Message("user", "x")]))
        other.call(PageOut(context=mine, until=1))
        assert other.call(Recall(context=mine, query="tulips garden red")).pages[0].text == "nothing"
        assert {page.context for page in other.call(SearchContexts(query="tulips")).pages} <= {mine}
        assert agent.call(SearchContexts(query="tulips", limit=1)).pages[0].context == long

    def test_a_search_finds_what_is_still_in_the_window_too(self, thinking: World, agent: App, long: str) -> None:
        agent.call(AppendContext(context=long, messages=[Message("user", "The roses by the gate are yellow")]))
        agent.call(PinMessages(context=long, start=0, stop=1))
        assert agent.call(Recall(context=long, query="roses tulips")).pages[0].message not in (0, 21)
        found = agent.call(SearchContexts(query="roses tulips", limit=2)).pages
        assert {page.message for page in found} == {0, 21}
        assert agent.call(Recall(context=long, query="roses tulips")).pages[0].message not in (0, 21), "these have not left"
        assert agent.call(StatContext(context=long)).pages == 19
        thinking.system.embedder.start()
        agent.world.system.registry.need("tiny-encoder", "encoder")
        thinking.loaded("tiny-encoder")
        thinking.embed()
        sent = agent.send(SearchContexts(query="The roses by the gate are yellow", limit=1))
        thinking.embed()
        assert (sent.result().pages[0].message, sent.result().pages[0].points.meaning > 1) == (21, True)
        agent.call(PageOut(context=long, until=22))
        assert agent.call(StatContext(context=long)).pages == agent.call(StatContext(context=long)).embedded == 21

    def test_a_deleted_context_is_not_found(self, agent: App, long: str) -> None:
        agent.call(Recall(context=long, query="tulips"))
        agent.call(DeleteContext(context=long))
        assert agent.call(SearchContexts(query="tulips")).pages == []


class TestPaging:
    """The tiny model sees 256 tokens, of a byte each."""

    @pytest.fixture
    def agent(self, thinking: World) -> App:
        agent = thinking.connect(SHOP).spawn()
        agent.send(Generate(model="tiny", messages=[Message("user", "hi")], max_tokens=1))
        thinking.loaded("tiny")
        thinking.step((thinking.begun().seq, tokens_of("."), "length"))
        return agent

    @pytest.fixture
    def chat(self, agent: App) -> str:
        return agent.call(OpenContext(name="chat")).context

    def ask(self, agent: App, chat: str, text: str, answer: str = "ok") -> str:
        """The prompt of a turn."""
        sent = agent.send(Generate(model="tiny", messages=[Message("user", text)], context=chat, max_tokens=8))
        agent.world.host.work()
        begin = agent.world.begun()
        agent.world.step((begin.seq, tokens_of(answer), "stop"))
        sent.result()
        return tiny_tokenizer().decode(begin.prompt, skip_special_tokens=False)

    def test_a_conversation_outgrows_the_window(self, agent: App, chat: str) -> None:
        self.ask(agent, chat, "My cat is called Pixel")
        prompts = [self.ask(agent, chat, f"Message {n} " + "x" * 30) for n in range(12)]
        assert all(len(prompt) < 256 for prompt in prompts)
        assert "Pixel" in prompts[2]
        assert "Pixel" not in prompts[-1]
        assert agent.call(ReadContext(context=chat)).total == 26
        stat = agent.call(StatContext(context=chat))
        assert 0 < stat.pages == stat.info.resident

    def test_what_a_message_needs_comes_back_right_before_it(self, agent: App, chat: str) -> None:
        self.ask(agent, chat, "My cat: Pixel")
        for n in range(12):
            self.ask(agent, chat, f"Message {n} " + "x" * 30)
        before = agent.call(ExplainContext(context=chat, model="tiny"))
        assert before.seen
        would = agent.call(ExplainContext(context=chat, model="tiny", messages=[Message("user", "my cat?")]))
        assert not would.seen
        assert [(part.message, part.text) for part in would.parts if part.why == "recalled"] == [(0, "My cat: Pixel")]
        prompt = self.ask(agent, chat, "my cat?")
        assert "<user>From earlier in this conversation:\n[user, message 0] My cat: Pixel\n\nmy cat?<assistant>" in prompt
        saw = agent.call(ExplainContext(context=chat, model="tiny"))
        assert (saw.parts, saw.tokens) == (would.parts, len(prompt))
        assert saw.parts[-2].points
        assert saw.parts[-2].points.score >= 1
        assert agent.call(ReadContext(context=chat, start=26, limit=1)).messages == [Message("user", "my cat?")]

    def test_pinned_messages_stay(self, agent: App, chat: str) -> None:
        self.ask(agent, chat, "My cat: Pixel")
        agent.call(PinMessages(context=chat, start=0, stop=1))
        prompts = [self.ask(agent, chat, f"Message {n} " + "x" * 30) for n in range(12)]
        assert all(prompt.startswith("<user>My cat: Pixel<") for prompt in prompts)

    def test_a_message_larger_than_the_window_leaves_in_pieces(self, agent: App, chat: str) -> None:
        agent.call(AppendContext(context=chat, messages=[Message("user", "Tulips are red. " + "word " * 1_000)]))
        self.ask(agent, chat, "hi")
        stat = agent.call(StatContext(context=chat))
        assert (stat.info.resident, stat.pages > 4) == (1, True)

    def test_of_a_new_message_larger_than_the_window_its_ends_and_what_is_asked_for_are_shown(self, agent: App, chat: str) -> None:
        text = "Read this. " + "blah " * 200 + "The tulips are red. " + "blah " * 200 + "Which colour have the tulips?"
        prompt = self.ask(agent, chat, text)
        assert len(prompt) < 256
        for part in ("Read this.", "The tulips are", "tulips?<", "[… left out …]"):
            assert part in prompt
        saw = agent.call(ExplainContext(context=chat, model="tiny"))
        assert [(part.why, part.whole) for part in saw.parts] == [("new", False)]
        assert agent.call(ReadContext(context=chat)).messages[0].text == text, "it is kept whole"
        assert "hi" in self.ask(agent, chat, "hi")
        assert agent.call(StatContext(context=chat)).pages == 7, "in pieces, once it has left"

    def test_a_question_larger_than_the_window_that_is_there_already_is_answered(self, agent: App, chat: str) -> None:
        agent.call(AppendContext(context=chat, messages=[Message("user", "first"), Message("user", "blah " * 400 + "What now?")]))
        sent = agent.send(Generate(model="tiny", context=chat, max_tokens=8))
        agent.world.host.work()
        agent.world.step((agent.world.begun().seq, tokens_of("ok"), "stop"))
        assert sent.result().text == "ok"
        saw = agent.call(ExplainContext(context=chat, model="tiny")).parts[-1]
        assert (saw.why, saw.message, saw.whole, saw.text.endswith("What now?")) == ("resident", 1, False, True)

    def test_what_stands_before_the_recalled_is_the_beginning_of_the_prompt_before(self, agent: App, chat: str) -> None:
        self.ask(agent, chat, "My cat: Pixel")
        *_, before = [self.ask(agent, chat, f"Message {n} " + "x" * 30) for n in range(12)]
        resident = agent.call(StatContext(context=chat)).info.resident
        head, recalled = self.ask(agent, chat, "my cat?").split("From earlier in this conversation:")
        assert agent.call(StatContext(context=chat)).info.resident == resident > 0, "nothing has left meanwhile"
        assert head.startswith(before[: before.rindex("<user>")]), "token by token, so that its KV is still valid"
        assert recalled.count("My cat: Pixel") == 1

    def test_nothing_changes_when_a_prompt_is_explained(self, agent: App, chat: str) -> None:
        agent.call(AppendContext(context=chat, messages=[Message("user", "x" * 100) for _ in range(5)]))
        before = agent.call(StatContext(context=chat))
        told = agent.call(ExplainContext(context=chat, model="tiny", messages=[Message("user", "hi")]))
        assert told.paged_out == 4
        assert agent.call(StatContext(context=chat)) == before
