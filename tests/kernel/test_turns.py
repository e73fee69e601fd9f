"""Turns with a device played by hand: `step` is what a device server reports, `begun` what the kernel asked of it."""

from pathlib import Path
from typing import Any

import pytest

from kernos.kernel import turns as turns_module
from kernos.kernel.devices.messages import Begin, Extend, Failed, Output, Stepped, Stop
from kernos.kernel.host import Delivery
from kernos.kernel.limits import INLINE_TEXT, LEASE_TOKENS, RESUMES
from kernos.kernel.memory import transcripts
from kernos.syscalls.context import DeleteContext, OpenContext, ReadContext
from kernos.syscalls.errors import (
    BadRequestError,
    BusyError,
    CancelledError,
    DeadlineError,
    DeviceError,
    LimitError,
    ModelUnavailableError,
    NotFoundError,
    StorageFullError,
    WindowExceededError,
)
from kernos.syscalls.model import Generate, Generation, Message, Timing
from kernos.syscalls.process import ListProcesses
from kernos.syscalls.system import Cancel, GetStatus, Ping
from tests.kernel.fakes import App, Sent, World, byte_token, make_world, tiny_model, tokens_of

ASK = [Message("user", "hi")]
PROMPT = tokens_of("<user>hi<assistant>")


@pytest.fixture
def agent(thinking: World) -> App:
    agent = thinking.connect("app:shop").spawn()
    agent.send(Generate(model="tiny", messages=ASK, max_tokens=1))
    thinking.loaded("tiny")
    thinking.step((thinking.begun().seq, tokens_of("."), "length"))
    return agent


def ask(agent: App, stream: bool = True, **options: Any) -> tuple[Sent, Begin]:
    fields: dict[str, Any] = {"messages": ASK, **options}
    sent = agent.send(Generate(model="tiny", **fields), stream=stream)
    agent.world.host.work()
    return sent, agent.world.begun()


def texts(sent: Sent) -> list[str]:
    return [chunk.text for chunk in sent.events]


def at_rest(world: World) -> bool:
    turns = world.system.turns
    return not (turns.answers or turns.by_seq or world.system.scheduler.turns or world.gate.in_flight)


class TestAnswers:
    def test_a_whole_answer(self, thinking: World, agent: App) -> None:
        sent, begin = ask(agent, max_tokens=9)
        assert (begin.prompt, begin.max_tokens, begin.lease, begin.resumed, begin.schema) == (PROMPT, 9, 9, 0, None)
        for letter in "Good":
            thinking.step((begin.seq, tokens_of(letter), ""))
        thinking.step((begin.seq, [], "stop"))
        assert texts(sent) == ["G", "o", "o", "d"]
        assert sum(chunk.tokens for chunk in sent.events) == 4
        reply = sent.result()
        assert (reply.text, reply.finish, reply.tokens, reply.resumed) == ("Good", "stop", tokens_of("Good"), 0)
        assert (reply.usage.prompt_tokens, reply.usage.generated_tokens) == (len(PROMPT), 4)
        assert at_rest(thinking)

    def test_without_a_stream_there_are_no_events(self, thinking: World, agent: App) -> None:
        sent, begin = ask(agent, stream=False)
        thinking.step((begin.seq, tokens_of("Good"), "length"))
        assert sent.events == []
        assert sent.result().text == "Good"

    def test_the_last_step_may_bring_tokens_and_the_end(self, thinking: World, agent: App) -> None:
        sent, begin = ask(agent)
        thinking.step((begin.seq, tokens_of("Good"), "length"))
        assert (sent.result().text, sent.result().finish) == ("Good", "length")

    def test_an_empty_answer(self, thinking: World, agent: App) -> None:
        sent, begin = ask(agent)
        thinking.step((begin.seq, [], "stop"))
        assert (sent.result().text, sent.result().tokens) == ("", [])

    def test_pieces_are_whole_characters(self, thinking: World, agent: App) -> None:
        sent, begin = ask(agent)
        for value in "é👍".encode():
            thinking.step((begin.seq, [byte_token(value)], ""))
        thinking.step((begin.seq, [], "stop"))
        assert texts(sent) == ["é", "👍"]
        assert [chunk.tokens for chunk in sent.events] == [2, 4]

    def test_an_unfinished_character_at_the_end(self, thinking: World, agent: App) -> None:
        sent, begin = ask(agent)
        thinking.step((begin.seq, [byte_token(value) for value in b"ok\xf0\x9f"], "length"))
        assert sent.result().text == "ok\ufffd"

    def test_two_turns_in_one_step(self, thinking: World, agent: App) -> None:
        first, begin1 = ask(agent)
        second, begin2 = ask(agent)
        thinking.step((begin1.seq, tokens_of("one"), "stop"), (begin2.seq, tokens_of("two"), "stop"))
        assert [first.result().text, second.result().text] == ["one", "two"]

    def test_steps_of_the_unknown_are_left_out(self, thinking: World, agent: App) -> None:
        thinking.step((12_345, tokens_of("x"), "stop"))
        thinking.report("decoder", Failed("what?", seq=12_345))
        thinking.report("decoder", Failed("a frame was no command"))

    def test_tokens_are_counted_per_agent(self, thinking: World, agent: App) -> None:
        _, begin = ask(agent)
        thinking.step((begin.seq, tokens_of("four"), "stop"))
        (row,) = agent.call(ListProcesses()).processes
        assert (row.prompt_tokens, row.generated_tokens, row.service) == (2 * len(PROMPT), 5, 5.0)

    def test_how_long_it_waited_and_how_long_its_prompt_was_computed(self, thinking: World, agent: App) -> None:
        """A step of 9 s computes 4 tokens of each of two prompts and a token of one more row; a second of 2 s the rest of one alone."""
        sent, begin = ask(agent)
        _, other = ask(agent)
        thinking.host.advance(10)
        thinking.report("decoder", Stepped([Output(begin.seq, [], 4, ""), Output(other.seq, [], 4, "")], 9.0, 1))
        thinking.host.advance(5)
        thinking.report("decoder", Stepped([Output(begin.seq, tokens_of("G"), 14, "")], 2.0, 0))
        thinking.host.advance(5)
        thinking.report("decoder", Stepped([Output(begin.seq, tokens_of("o"), 0, "length")], 1.0, 1))
        assert sent.result().timing == Timing(waiting=9.0, prefill=6.0)

    def test_what_is_asked_of_the_device(self, thinking: World, agent: App) -> None:
        _, begin = ask(agent, temperature=0.5, top_p=0.9, seed=42, ignore_eos=True, schema='{"type": "object"}')
        sampling = begin.sampling
        assert (sampling.temperature, sampling.top_p, sampling.seed, sampling.ignore_eos) == (0.5, 0.9, 42, True)
        assert begin.schema == '{"type": "object"}'

    def test_without_a_seed_each_turn_draws_its_own(self, thinking: World, agent: App) -> None:
        assert ask(agent)[1].sampling.seed != ask(agent)[1].sampling.seed


class TestStopTexts:
    def test_across_pieces(self, thinking: World, agent: App) -> None:
        sent, begin = ask(agent, stop=["END"])
        for letter in "ok EN":
            thinking.step((begin.seq, tokens_of(letter), ""))
        assert texts(sent) == ["o", "k", " "]
        thinking.step((begin.seq, tokens_of("D!"), ""))
        assert (sent.result().text, sent.result().finish) == ("ok ", "stop")
        assert thinking.commands(Stop)[-1].seq == begin.seq, "the device goes on until it is told"
        assert at_rest(thinking)

    def test_what_was_held_back_comes_with_the_end(self, thinking: World, agent: App) -> None:
        sent, begin = ask(agent, stop=["END"])
        thinking.step((begin.seq, tokens_of("ok EN"), ""))
        thinking.step((begin.seq, [], "stop"))
        assert texts(sent) == ["ok ", "EN"]
        assert sent.result().text == "ok EN"

    def test_in_the_last_step(self, thinking: World, agent: App) -> None:
        sent, begin = ask(agent, stop=["b"])
        thinking.step((begin.seq, tokens_of("abc"), "length"))
        assert (sent.result().text, sent.result().finish) == ("a", "stop")
        assert at_rest(thinking)

    def test_the_text_of_the_pieces_is_that_of_the_reply(self, thinking: World, agent: App) -> None:
        sent, begin = ask(agent, stop=["aab", "xyz"])
        for letter in "aaxyaaaxyaa":
            thinking.step((begin.seq, tokens_of(letter), ""))
        thinking.step((begin.seq, [], "stop"))
        assert "".join(texts(sent)) == sent.result().text == "aaxyaaaxyaa"


class TestPrompts:
    def test_too_long_for_the_window(self, thinking: World, agent: App) -> None:
        error = agent.refused(Generate(model="tiny", messages=[Message("user", "x" * 300)]))
        assert isinstance(error, WindowExceededError)
        assert error.details == {"prompt_tokens": "317", "window": "256"}

    def test_the_answer_ends_with_the_window(self, thinking: World, agent: App) -> None:
        _, begin = ask(agent, messages=[Message("user", "x" * 200)], max_tokens=10_000)
        assert begin.max_tokens == 256 - len(begin.prompt)

    def test_nothing_to_answer(self, agent: App) -> None:
        assert isinstance(agent.refused(Generate(model="tiny")), BadRequestError)

    def test_long_texts_are_made_on_a_thread(self, tmp_path: Path) -> None:
        tiny_model(tmp_path / "store", "wide", window=100_000)
        world = make_world(tmp_path, store=tmp_path / "store")
        agent = world.connect("app:shop").spawn()
        world.up("decoder")
        sent = agent.send(Generate(model="wide", messages=[Message("user", "x" * (INLINE_TEXT + 1))]))
        assert sent.open
        assert not world.system.turns.answers
        world.host.work()
        world.loaded("wide")
        world.step((world.begun().seq, tokens_of("ok"), "stop"))
        assert sent.result().text == "ok"

    def test_a_call_that_ended_meanwhile_begins_no_turn(self, tmp_path: Path) -> None:
        tiny_model(tmp_path / "store", "wide", window=100_000)
        world = make_world(tmp_path, store=tmp_path / "store")
        agent = world.connect("app:shop").spawn()
        sent = agent.send(Generate(model="wide", messages=[Message("user", "x" * (INLINE_TEXT + 1))]))
        agent.call(Cancel(id=sent.id))
        world.host.work()
        assert at_rest(world)

    def test_a_long_prompt_that_is_too_long(self, thinking: World, agent: App) -> None:
        assert isinstance(agent.refused(Generate(model="tiny", messages=[Message("user", "x" * 5_000)])), WindowExceededError)

    @pytest.mark.parametrize("length", [1, INLINE_TEXT + 1])
    def test_a_template_that_refuses(self, tmp_path: Path, length: int) -> None:
        tiny_model(tmp_path / "store", "picky", template="{{ raise_exception('no such role') }}")
        world = make_world(tmp_path, store=tmp_path / "store")
        error = world.connect("app:shop").spawn().refused(Generate(model="picky", messages=[Message("user", "x" * length)]))
        assert isinstance(error, BadRequestError)
        assert "no such role" in error.message

    @pytest.mark.parametrize("length", [1, INLINE_TEXT + 1])
    def test_a_template_that_breaks(self, tmp_path: Path, length: int) -> None:
        tiny_model(tmp_path / "store", "broken", template="{{ 1 / 0 }}")
        world = make_world(tmp_path, store=tmp_path / "store")
        error = world.connect("app:shop").spawn().refused(Generate(model="broken", messages=[Message("user", "x" * length)]))
        assert isinstance(error, BadRequestError)

    def test_an_encoder_generates_nothing(self, agent: App) -> None:
        assert isinstance(agent.refused(Generate(model="tiny-encoder", messages=ASK)), BadRequestError)

    def test_an_unknown_model(self, agent: App) -> None:
        error = agent.refused(Generate(model="huge", messages=ASK))
        assert isinstance(error, NotFoundError)
        assert "tiny, tiny-encoder" in error.message

    def test_the_queue_is_bounded(self, thinking: World, agent: App, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(turns_module, "QUEUED_TURNS", 2)
        for _ in range(thinking.system.config.slots + 2):
            ask(agent)
        error = agent.refused(Generate(model="tiny", messages=ASK))
        assert isinstance(error, BusyError)
        assert error.retry_after
        assert agent.call(GetStatus()).queued_turns == 2


class TestContexts:
    @pytest.fixture
    def chat(self, agent: App) -> str:
        return agent.call(OpenContext(name="chat")).context

    def read(self, agent: App, chat: str) -> list[tuple[str, str]]:
        return [(message.role, message.text) for message in agent.call(ReadContext(context=chat)).messages]

    def test_question_and_answer_are_kept_together(self, thinking: World, agent: App, chat: str) -> None:
        _, begin = ask(agent, context=chat)
        assert self.read(agent, chat) == []
        thinking.step((begin.seq, tokens_of("Hello"), "stop"))
        assert self.read(agent, chat) == [("user", "hi"), ("assistant", "Hello")]

    def test_the_past_comes_first_in_the_prompt(self, thinking: World, agent: App, chat: str) -> None:
        thinking.step((ask(agent, context=chat)[1].seq, tokens_of("Hello"), "stop"))
        _, begin = ask(agent, context=chat, messages=[Message("user", "why")])
        assert begin.prompt == tokens_of("<user>hi<assistant>Hello<user>why<assistant>")

    def test_the_past_alone_can_be_answered(self, thinking: World, agent: App, chat: str) -> None:
        thinking.step((ask(agent, context=chat)[1].seq, tokens_of("Hello"), "stop"))
        _, begin = ask(agent, context=chat, messages=[])
        assert begin.prompt == tokens_of("<user>hi<assistant>Hello<assistant>")

    @pytest.mark.parametrize("how", ["cancel", "failed", "deadline", "model"])
    def test_nothing_is_kept_of_half_an_answer(self, thinking: World, agent: App, chat: str, how: str) -> None:
        sent = agent.send(Generate(model="tiny", messages=ASK, context=chat), timeout_ms=1_000)
        thinking.host.work()
        begin = thinking.begun()
        thinking.step((begin.seq, tokens_of("Hel"), ""))
        if how == "cancel":
            agent.call(Cancel(id=sent.id))
        elif how == "failed":
            thinking.report("decoder", Failed("out of memory", seq=begin.seq))
        elif how == "deadline":
            thinking.host.advance(2.0)
        else:
            for _ in range(4):
                thinking.died()
        assert sent.error().code in ("cancelled", "device", "deadline", "model_unavailable")
        thinking.step((begin.seq, tokens_of("lo"), "stop"))
        assert self.read(agent, chat) == []
        assert at_rest(thinking)

    def test_a_context_that_was_deleted_meanwhile(self, thinking: World, agent: App, chat: str) -> None:
        sent, begin = ask(agent, context=chat)
        agent.call(DeleteContext(context=chat))
        thinking.step((begin.seq, tokens_of("Hello"), "stop"))
        assert isinstance(sent.error(), NotFoundError)
        assert at_rest(thinking)

    def test_a_context_that_is_full(self, thinking: World, agent: App, chat: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(transcripts, "CONTEXT_BYTES", 4)
        sent, begin = ask(agent, context=chat)
        thinking.step((begin.seq, tokens_of("Hello"), "stop"))
        assert isinstance(sent.error(), LimitError)
        assert self.read(agent, chat) == []

    def test_the_reply_leaves_when_the_exchange_is_durable(self, thinking: World, agent: App, chat: str) -> None:
        sent, begin = ask(agent, context=chat)
        thinking.disk.failure = StorageFullError("The disk is full.", retry_after=5.0)
        thinking.step((begin.seq, tokens_of("Hello"), "stop"))
        assert isinstance(sent.error(), StorageFullError)
        thinking.disk.failure = None
        assert self.read(agent, chat) == []
        assert at_rest(thinking)

    def test_a_turn_made_again_of_the_next_kernel_is_not_computed(
        self, thinking: World, agent: App, chat: str, tmp_path: Path, tiny_store: Path
    ) -> None:
        call = Generate(model="tiny", messages=ASK, context=chat)
        sent = agent.send(call, key="k")
        thinking.host.work()
        thinking.step((thinking.begun().seq, tokens_of("Hello"), "stop"))
        again = make_world(tmp_path, store=tiny_store)
        successor = again.connect("app:shop").spawn()
        assert successor.call(call, key="k") == sent.result()
        assert not again.commands(Begin)
        assert len(self.read(successor, chat)) == 2

    def test_an_unknown_context(self, agent: App) -> None:
        assert isinstance(agent.refused(Generate(model="tiny", messages=ASK, context="abc")), NotFoundError)


class TestLeases:
    def test_a_long_turn_is_extended_and_a_short_one_is_not(self, thinking: World, agent: App) -> None:
        _, begin = ask(agent, max_tokens=100)
        assert begin.lease == LEASE_TOKENS
        granted = begin.lease
        for produced in range(1, 100):
            thinking.step((begin.seq, tokens_of("x"), ""))
            granted = begin.lease + sum(command.tokens for command in thinking.commands(Extend) if command.seq == begin.seq)
            assert produced < granted <= 100
        assert granted == 100

    def test_a_higher_class_takes_the_slot_and_the_lower_one_goes_on_later(self, thinking: World, agent: App) -> None:
        slots = thinking.system.config.slots
        low = [ask(agent, max_tokens=5) for _ in range(slots)]
        victim, first = low[-1]
        thinking.step((first.seq, tokens_of("ab"), ""))
        urgent, begin = ask(App(thinking, agent.client).spawn(priority="realtime"))
        assert thinking.commands(Stop)[-1].seq == first.seq
        thinking.step((first.seq, tokens_of("c"), ""))  # was on its way, and counts
        thinking.step((begin.seq, tokens_of("!"), "stop"))
        assert urgent.result().text == "!"
        again = thinking.begun()
        assert (again.prompt, again.resumed, again.lease) == (PROMPT + tokens_of("abc"), 3, 2)
        thinking.step((first.seq, tokens_of("?"), ""))  # of a sequence that has a successor: too late
        thinking.step((again.seq, tokens_of("de"), "length"))
        assert victim.result().text == "abcde"
        assert texts(victim) == ["ab", "c", "de"]

    def test_the_stop_comes_before_the_start(self, thinking: World, agent: App) -> None:
        for _ in range(thinking.system.config.slots):
            ask(agent)
        seen = len(thinking.host.commands)
        ask(App(thinking, agent.client).spawn(priority="realtime"))
        assert [type(command) for _, command in thinking.host.commands[seen:]] == [Stop, Begin]


class TestEnds:
    def test_cancel(self, thinking: World, agent: App) -> None:
        sent, begin = ask(agent)
        agent.call(Cancel(id=sent.id))
        assert isinstance(sent.error(), CancelledError)
        assert thinking.commands(Stop)[-1].seq == begin.seq
        assert at_rest(thinking)

    def test_cancel_in_the_queue_sends_the_device_nothing(self, thinking: World, agent: App) -> None:
        for _ in range(thinking.system.config.slots):
            ask(agent)
        sent = agent.send(Generate(model="tiny", messages=ASK))
        seen = len(thinking.host.commands)
        agent.call(Cancel(id=sent.id))
        assert len(thinking.host.commands) == seen

    def test_a_deadline(self, thinking: World, agent: App) -> None:
        sent = agent.send(Generate(model="tiny", messages=ASK), timeout_ms=1_000)
        thinking.host.advance(1.5)
        assert isinstance(sent.error(), DeadlineError)
        assert at_rest(thinking)

    def test_the_device_refuses(self, thinking: World, agent: App) -> None:
        sent, begin = ask(agent)
        thinking.report("decoder", Failed("the schema is none", seq=begin.seq))
        error = sent.error()
        assert isinstance(error, DeviceError)
        assert "the schema is none" in error.message
        assert at_rest(thinking)

    @pytest.mark.parametrize("delivery", [Delivery.GONE, Delivery.FULL])
    def test_the_client_is_gone_or_does_not_read(self, thinking: World, agent: App, delivery: Delivery) -> None:
        _, begin = ask(agent)
        thinking.host.deliver = lambda client: delivery if client is agent.client else Delivery.SENT
        thinking.step((begin.seq, tokens_of("x"), ""))
        assert thinking.commands(Stop)[-1].seq == begin.seq
        assert at_rest(thinking)

    @pytest.mark.parametrize("delivery", [Delivery.GONE, Delivery.FULL])
    @pytest.mark.parametrize("stop", [[], ["x"], ["xyz"]], ids=["plain", "stop text", "held back"])
    def test_the_client_is_gone_at_the_last_step(self, thinking: World, agent: App, delivery: Delivery, stop: list[str]) -> None:
        tokens = tokens_of("ax" if stop == ["x"] else "axy")
        _, begin = ask(agent, stop=stop)
        thinking.host.deliver = lambda client: delivery if client is agent.client else Delivery.SENT
        thinking.step((begin.seq, tokens, "length"))
        assert at_rest(thinking)
        thinking.connect("app:other").call(Ping())

    def test_nothing_is_kept_for_a_client_that_is_gone_at_the_last_step(self, thinking: World, agent: App) -> None:
        chat = agent.call(OpenContext(name="chat")).context
        _, begin = ask(agent, context=chat)
        thinking.host.deliver = lambda client: Delivery.GONE if client is agent.client else Delivery.SENT
        thinking.step((begin.seq, tokens_of("x"), "length"))
        assert thinking.connect("app:shop").spawn().call(ReadContext(context=chat)).total == 0


class TestCrashes:
    def test_a_turn_goes_on_where_it_was(self, thinking: World, agent: App) -> None:
        sent, first = ask(agent, max_tokens=6, stop=["END"])
        thinking.step((first.seq, tokens_of("abE"), ""))
        thinking.died()
        thinking.step((first.seq, tokens_of("zz"), ""))  # still on the wire
        thinking.up("decoder")
        again = thinking.begun()
        assert again.seq != first.seq
        assert (again.prompt, again.resumed, again.max_tokens, again.lease) == (PROMPT + tokens_of("abE"), 3, 6, 3)
        assert again.sampling == first.sampling
        thinking.step((again.seq, tokens_of("cde"), "length"))
        reply: Generation = sent.result()
        assert (reply.text, reply.resumed, reply.usage.generated_tokens) == ("abEcde", 1, 6)
        assert texts(sent) == ["ab", "Ecde"]

    def test_a_character_cut_in_two_by_a_crash(self, thinking: World, agent: App) -> None:
        sent, first = ask(agent)
        one, two = (byte_token(value) for value in "é".encode())
        thinking.step((first.seq, [one], ""))
        thinking.died()
        thinking.up("decoder")
        thinking.step((thinking.begun().seq, [two], "stop"))
        assert sent.result().text == "é"

    def test_those_that_waited_are_not_resumed(self, thinking: World, agent: App) -> None:
        running = [ask(agent)[0] for _ in range(thinking.system.config.slots)]
        waiting = agent.send(Generate(model="tiny", messages=ASK))
        thinking.died()
        thinking.up("decoder")
        for _ in range(len(running) + 1):
            for seq in list(thinking.system.turns.by_seq):
                thinking.step((seq, tokens_of("x"), "stop"))
        assert [sent.result().resumed for sent in running] == [1] * len(running)
        assert waiting.result().resumed == 0

    def test_a_turn_is_carried_on_so_often_and_no_more(self, thinking: World, agent: App) -> None:
        sent, _ = ask(agent)
        for _ in range(RESUMES):
            thinking.died()
            thinking.host.advance(60.0)
            thinking.up("decoder")
            assert sent.open
        thinking.died()
        error = sent.error()
        assert isinstance(error, DeviceError)
        assert "4 times" in error.message
        assert at_rest(thinking)

    def test_the_story_tells(self, thinking: World, agent: App) -> None:
        _, begin = ask(agent)
        thinking.step((begin.seq, tokens_of("ab"), ""))
        thinking.died()
        assert "lost its device after 2 tokens" in thinking.system.processes.rows[agent.pid].story[-1]

    @pytest.mark.parametrize("how", ["resumes", "intensity"])
    def test_a_crash_with_a_client_that_is_gone(self, thinking: World, agent: App, how: str) -> None:
        for _ in range(3):
            ask(agent)
        thinking.host.deliver = lambda client: Delivery.GONE if client is agent.client else Delivery.SENT
        for _ in range(RESUMES + 1):
            thinking.died()
            if how == "resumes":
                thinking.host.advance(60.0)
                thinking.up("decoder")
        assert at_rest(thinking)
        thinking.connect("app:other").call(Ping())


def test_a_turn_that_arrives_after_its_model_has_failed_is_refused(thinking: World, agent: App) -> None:
    for _ in range(4):
        thinking.died()
    assert isinstance(agent.refused(Generate(model="tiny", messages=ASK)), ModelUnavailableError)


def test_a_model_that_fails_while_the_prompt_is_made(tmp_path: Path) -> None:
    tiny_model(tmp_path / "store", "wide", window=100_000)
    world = make_world(tmp_path, store=tmp_path / "store")
    agent = world.connect("app:shop").spawn()
    world.up("decoder")
    sent = agent.send(Generate(model="wide", messages=[Message("user", "x" * (INLINE_TEXT + 1))]))
    for _ in range(4):
        world.died()
    world.host.work()
    assert isinstance(sent.error(), ModelUnavailableError)
