"""KV pages as the kernel orders them, with a device played by hand that holds one token per byte of text."""

from typing import Any

import pytest

from kernos.kernel.devices.messages import (
    PAGE,
    Begin,
    Failed,
    Finish,
    Hello,
    Load,
    Loaded,
    Output,
    Save,
    Saved,
    Stepped,
    Stop,
)
from kernos.syscalls.model import Generate, Message
from kernos.syscalls.process import SendSignal
from tests.kernel.fakes import App, Sent, World, tokens_of

LONG = "x" * (3 * PAGE)
SPARED = (3 * PAGE + len("<user><assistant>")) // PAGE * PAGE


@pytest.fixture
def paged(thinking: World) -> World:
    """A kernel whose decoder takes pages."""
    thinking.system.registry.load(thinking.system.registry.get("tiny"))
    thinking.report("decoder", Loaded("tiny", "decoder", 0.1, 1, 8_192, 8, page_bytes=1_000))
    return thinking


def ask(agent: App, text: str = LONG, **options: Any) -> tuple[Sent, Begin]:
    sent = agent.send(Generate(model="tiny", messages=[Message("user", text)], **options), stream=True)
    return sent, agent.world.begun()


def step(world: World, begin: Begin, text: str, held: int, prefilled: int = 0, finish: Finish = "") -> None:
    output = Output(begin.seq, tokens_of(text), prefilled, finish, held)
    world.report("decoder", Stepped([output], 0.01, 1))


def saved(world: World, held: int | None = None) -> Save:
    """The device carries out the last order to save."""
    order = world.commands(Save)[-1]
    full = (order.first + len(order.slots)) * PAGE
    world.report("decoder", Saved(order.seq, order.first, full if held is None else held, 0.01))
    return order


def held(world: World) -> int:
    """Pages that stand in a table, in all tiers."""
    pool = world.system.paging.lanes["tiny"].pool
    pool.check()
    return pool.held("device") + pool.held("host") + pool.held("disk")


@pytest.fixture
def app(paged: World) -> App:
    return paged.connect("app:shop")


def test_a_decoder_is_given_its_pages(thinking: World) -> None:
    thinking.system.registry.load(thinking.system.registry.get("tiny"))
    assert thinking.commands(Load)[-1].pages == thinking.system.config.kv_pages > 0


def test_a_stopped_turn_comes_back_by_copy(paged: World, app: App) -> None:
    agent = app.spawn()
    _, first = ask(agent, "hi")
    step(paged, first, "abc", held=len(first.prompt) + 2, prefilled=len(first.prompt))
    app.call(SendSignal(pid=agent.pid, signal="stop"))
    order = paged.commands(Save)[-1]
    orders = [type(command) for _, command in paged.host.commands[-2:]]
    assert orders == [Save, Stop], "what is stopped cannot be saved any more"
    assert (order.seq, order.first, len(order.slots)) == (first.seq, 0, 1)
    app.call(SendSignal(pid=agent.pid, signal="continue"))
    again = paged.begun()
    assert (again.pages, again.cached) == (order.slots, len(first.prompt) + 2)
    assert held(paged) == 0, "what runs has a row of its own"
    assert again.prompt == first.prompt + tokens_of("abc")


def test_a_common_beginning_is_computed_once(paged: World, app: App) -> None:
    sent, first = ask(app.spawn())
    assert (first.pages, first.cached) == ([], 0)
    step(paged, first, "a", held=len(first.prompt), prefilled=len(first.prompt))
    begun = len(paged.commands(Begin))
    early = app.spawn().send(Generate(model="tiny", messages=[Message("user", LONG)]), stream=True)
    assert len(paged.commands(Begin)) == begun, "it waits for the pages that the first one computes"
    order = saved(paged)
    assert paged.begun().cached == SPARED
    step(paged, paged.begun(), "!", held=len(first.prompt), finish="stop")
    assert early.result().usage.cached_tokens == SPARED
    assert (order.first, len(order.slots) * PAGE) == (0, SPARED)
    other, second = ask(app.spawn())
    assert (second.pages, second.cached) == (order.slots, SPARED)
    step(paged, second, "!", held=len(first.prompt), prefilled=len(first.prompt) - SPARED, finish="stop")
    assert other.result().usage.cached_tokens == SPARED
    step(paged, first, "!", held=len(first.prompt) + 1, finish="stop")
    assert sent.result().usage.cached_tokens == 0
    paged.system.paging.lanes["tiny"].pool.check()


def test_other_apps_find_nothing(paged: World, app: App) -> None:
    _, first = ask(app.spawn())
    step(paged, first, "a", held=len(first.prompt), prefilled=len(first.prompt))
    saved(paged)
    _, second = ask(paged.connect("app:bank").spawn())
    assert second.cached == 0


def test_an_order_that_came_too_late_is_forgotten(paged: World, app: App) -> None:
    _, first = ask(app.spawn())
    step(paged, first, "a", held=len(first.prompt), prefilled=len(first.prompt))
    paged.report("decoder", Failed("the sequence has ended", save=first.seq))
    assert held(paged) == 0
    _, second = ask(app.spawn())
    assert second.cached == 0


def test_a_turn_whose_pages_are_refused_is_computed(paged: World, app: App) -> None:
    _, first = ask(app.spawn(), max_tokens=2)
    step(paged, first, "a", held=len(first.prompt), prefilled=len(first.prompt))
    saved(paged)
    other, second = ask(app.spawn(), max_tokens=1)
    assert second.cached
    paged.report("decoder", Failed("the pages do not hold this", seq=second.seq))
    third = paged.begun()
    assert (third.prompt, third.cached, third.lease) == (second.prompt, 0, second.lease)
    step(paged, third, "b", held=len(third.prompt), prefilled=len(third.prompt), finish="length")
    assert other.result().text == "b"


def test_a_crash_takes_the_pages_with_it(paged: World, app: App) -> None:
    agent = app.spawn()
    _, first = ask(agent)
    step(paged, first, "a", held=len(first.prompt), prefilled=len(first.prompt))
    saved(paged)
    paged.died()
    paged.report("decoder", Hello("device:decoder", 1, "cpu", 1))
    paged.report("decoder", Loaded("tiny", "decoder", 0.1, 1, 8_192, 8, page_bytes=1_000))
    again = paged.begun()
    assert (again.prompt, again.cached) == (first.prompt + tokens_of("a"), 0)


def test_pages_come_back_when_turns_end(paged: World, app: App) -> None:
    agents = [app.spawn() for _ in range(3)]
    for agent in agents:
        _, begin = ask(agent, "hi")
        step(paged, begin, "abc", held=len(begin.prompt) + 2, prefilled=len(begin.prompt))
        app.call(SendSignal(pid=agent.pid, signal="stop"))
    assert held(paged) == 3
    for agent in agents:
        app.call(SendSignal(pid=agent.pid, signal="terminate"))
    assert held(paged) == 0
    assert not paged.system.turns.answers


def test_a_full_pool_is_no_reason_to_fail(paged: World, app: App) -> None:
    pool = paged.system.paging.lanes["tiny"].pool
    hog = pool.match([])
    assert pool.extend(hog, pool.sizes["device"] * PAGE) is not None
    agent = app.spawn()
    _, first = ask(agent, "hi")
    step(paged, first, "ab", held=len(first.prompt) + 1, prefilled=len(first.prompt))
    app.call(SendSignal(pid=agent.pid, signal="stop"))
    assert not paged.commands(Save)
    app.call(SendSignal(pid=agent.pid, signal="continue"))
    assert paged.begun().cached == 0


@pytest.mark.parametrize("end", ["finished", "killed", "stopped", "crashed"])
def test_turns_that_expected_pages_go_on_without_them(paged: World, app: App, end: str) -> None:
    agent = app.spawn()
    _, first = ask(agent)
    waits = app.spawn().send(Generate(model="tiny", messages=[Message("user", LONG)]), stream=True)
    if end == "finished":
        step(paged, first, "!", held=len(first.prompt), prefilled=len(first.prompt), finish="stop")
        paged.report("decoder", Failed("no room", save=first.seq))
    elif end == "crashed":
        paged.died()
        paged.report("decoder", Hello("device:decoder", 1, "cpu", 1))
        paged.report("decoder", Loaded("tiny", "decoder", 0.1, 1, 8_192, 8, page_bytes=1_000))
    else:
        app.call(SendSignal(pid=agent.pid, signal="stop" if end == "stopped" else "terminate"))
    begin = paged.begun()
    assert (begin.seq, begin.cached) == (paged.commands(Begin)[-1].seq, 0)
    assert begin.seq != first.seq
    if end != "crashed":
        step(paged, begin, "!", held=len(begin.prompt), prefilled=len(begin.prompt), finish="stop")
        assert waits.result().text == "!"


def test_a_withdrawn_turn_is_not_submitted(paged: World, app: App) -> None:
    _, first = ask(app.spawn())
    impatient = app.spawn()
    impatient.send(Generate(model="tiny", messages=[Message("user", LONG)]), stream=True)
    app.call(SendSignal(pid=impatient.pid, signal="terminate"))
    begun = len(paged.commands(Begin))
    step(paged, first, "!", held=len(first.prompt), prefilled=len(first.prompt), finish="stop")
    saved(paged)
    assert len(paged.commands(Begin)) == begun
    assert not paged.system.paging.beginnings.expecting


def test_the_token_of_the_step_under_way_is_kept_too(paged: World, app: App) -> None:
    agent = app.spawn()
    _, first = ask(agent, "x" * (PAGE - len("<user><assistant>") - 1))
    step(paged, first, "a", held=PAGE - 1, prefilled=PAGE - 1)
    app.call(SendSignal(pid=agent.pid, signal="stop"))
    step(paged, first, "b", held=PAGE)
    saved(paged, held=PAGE)
    app.call(SendSignal(pid=agent.pid, signal="continue"))
    assert paged.begun().cached == PAGE
    assert paged.begun().prompt == first.prompt + tokens_of("ab")


class TestConversations:
    """KV between two turns of an agent."""

    def talk(self, paged: World, agent: App, text: str, answer: str) -> Begin:
        sent, begin = ask(agent, text)
        step(paged, begin, answer, held=len(begin.prompt) + len(answer) - 1, prefilled=len(begin.prompt), finish="length")
        assert sent.result().text == answer
        save, stop = paged.host.commands[-2:]
        assert isinstance(stop[1], Stop), "its row is kept until it is saved, and no longer"
        if isinstance(save[1], Save):  # unless it is all known
            saved(paged)
        return begin

    def test_the_next_turn_goes_on_from_the_last(self, paged: World, app: App) -> None:
        agent = app.spawn()
        first = self.talk(paged, agent, LONG, "y" * PAGE)
        assert held(paged) == (len(first.prompt) + PAGE - 1) // PAGE
        history = [Message("user", LONG), Message("assistant", "y" * PAGE), Message("user", "and?")]
        agent.send(Generate(model="tiny", messages=history), stream=True)
        assert paged.begun().cached == (len(first.prompt) + PAGE - 1) // PAGE * PAGE
        assert held(paged) == 0

    def test_what_is_on_its_way_is_found_though_its_agent_has_ended(self, paged: World, app: App) -> None:
        agent = app.spawn()
        _, begin = ask(agent)
        step(paged, begin, "y", held=len(begin.prompt), prefilled=len(begin.prompt), finish="length")
        app.call(SendSignal(pid=agent.pid, signal="terminate"))
        saved(paged)
        assert held(paged) == 0
        assert ask(app.spawn())[1].cached == SPARED

    def test_it_is_held_for_a_learned_time(self, paged: World, app: App) -> None:
        agent = app.spawn()
        for pause in (2.0, 2.0, 2.0, 2.0):
            self.talk(paged, agent, LONG, "y" * PAGE)
            assert held(paged)
            paged.host.advance(pause)
            assert held(paged), "before much is known, and after"
        self.talk(paged, agent, LONG, "y" * PAGE)
        paged.host.advance(10.0)
        assert held(paged) == 0

    def test_it_ends_with_its_agent(self, paged: World, app: App) -> None:
        agent = app.spawn()
        self.talk(paged, agent, LONG, "y" * PAGE)
        app.call(SendSignal(pid=agent.pid, signal="terminate"))
        assert held(paged) == 0
        assert not paged.system.paging.keeping.kept
        assert not paged.system.paging.keeping.left
