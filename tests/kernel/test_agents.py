"""Agents and what was used, over the death of the kernel."""

from pathlib import Path

import pytest

from kernos.kernel.core.processes import Life
from kernos.kernel.limits import COUNT_S, ORPHAN_S
from kernos.kernel.memory import mail as post
from kernos.kernel.memory import records
from kernos.syscalls.context import DeleteContext, OpenContext
from kernos.syscalls.errors import DeniedError, LimitError, NotFoundError, NotYoursError, StorageFullError
from kernos.syscalls.message import Receive, Send
from kernos.syscalls.model import Generate, Message
from kernos.syscalls.process import Ended, Exit, Kill, ListProcesses, Nice, Process, Right, SendSignal, SetLimits, Spawn, Wait
from kernos.syscalls.system import Ping
from tests.kernel.fakes import App, World, make_world

SHOP = "app:shop"


@pytest.fixture
def app(world: World) -> App:
    return world.connect(SHOP)


def rows(app: App) -> list[Process]:
    return app.call(ListProcesses(scope="all")).processes


def restarted(world: World, *, gone: set[int] = frozenset()) -> World:  # type: ignore[assignment]
    """The next kernel, after `world` was killed."""
    where = world.system.where
    return make_world(where.state.parent, store=where.models, gone=gone)


def test_agents_are_back_as_they_were(world: World, app: App) -> None:
    parent = app.spawn("parent", priority="batch")
    child = parent.spawn("child", user="user:anna")
    parent.call(Nice(pid=child.pid, priority="interactive", weight=4.0))
    parent.call(SendSignal(pid=child.pid, signal="stop"))
    before = rows(app)
    again = restarted(world)
    assert rows(again.connect(SHOP)) == before
    assert [(row.user, row.priority, row.weight, row.state) for row in before][1] == ("user:anna", "interactive", 4.0, "stopped")
    assert again.system.scheduler.held == {child.pid}
    again.connect(SHOP).agent(child.pid).call(Ping())
    assert isinstance(again.connect("app:other").agent(child.pid).refused(Ping()), NotYoursError)


def test_pids_are_never_used_again(world: World, app: App) -> None:
    last = [app.spawn() for _ in range(3)][-1]
    app.call(Exit(pid=last.pid))
    app.call(Wait(pid=last.pid))
    world.host.advance(COUNT_S)
    world.host.work()
    again = restarted(world)
    assert len(rows(again.connect(SHOP))) == 2
    assert again.connect(SHOP).spawn().pid == last.pid + 1


def test_how_an_agent_ended_waits_for_whoever_asks(world: World, app: App) -> None:
    agent = app.spawn()
    app.call(Exit(pid=agent.pid, code=3, reason="done"))
    assert restarted(world).connect(SHOP).call(Wait(pid=agent.pid)) == Ended(agent.pid, 3, "done")


def test_a_spawn_made_again_is_the_same_agent(world: World, app: App) -> None:
    first = app.call(Spawn(name="x"), key="k")
    again = restarted(world).connect(SHOP)
    assert again.call(Spawn(name="x"), key="k") == first
    assert len(rows(again)) == 1


def test_living_agents_are_charged_and_ended_ones_are_not(world: World, app: App) -> None:
    kept, ended = app.spawn(), app.spawn()
    app.call(Kill(pid=ended.pid))
    again = restarted(world)
    again.connect("admin:root").call(SetLimits(principal=SHOP, limits={"processes": 1}))
    app = again.connect(SHOP)
    assert isinstance(app.refused(Spawn(name="x")), LimitError)
    app.call(Exit(pid=kept.pid))
    app.spawn()


def test_an_agent_keeps_the_limits_of_its_rights(world: World, app: App) -> None:
    limited = App(world, app.client, app.call(Spawn(name="x", rights=[Right("system", "ping")])).pid)
    again = restarted(world).connect(SHOP).agent(limited.pid)
    again.call(Ping())
    assert isinstance(again.refused(OpenContext(name="chat")), DeniedError)


class TestPrograms:
    def test_an_agent_whose_program_is_gone_ends_after_a_while(self, world: World, app: App) -> None:
        agent, other = app.spawn(), world.connect(SHOP).spawn()
        again = restarted(world, gone={app.client.os_pid})
        again.host.advance(ORPHAN_S + 1)
        assert [row.state for row in rows(again.connect(SHOP))] == ["exited", "idle"]
        assert "did not come back" in again.connect(SHOP).call(Wait(pid=agent.pid)).reason
        again.connect(SHOP).agent(other.pid).call(Ping())

    def test_a_successor_of_its_principal_takes_it_over(self, world: World, app: App) -> None:
        agent = app.spawn()
        again = restarted(world, gone={app.client.os_pid})
        successor = again.connect(SHOP)
        again.connect("app:other").agent(agent.pid).refused(Ping())
        successor.agent(agent.pid).call(Ping())
        again.host.advance(ORPHAN_S + 1)
        again.host.work()
        successor.agent(agent.pid).call(Ping())
        third = restarted(again)
        assert third.system.processes.rows[agent.pid].os_pid == successor.client.os_pid
        third.system.program_died(successor.client.os_pid)
        assert third.system.processes.rows[agent.pid].life is Life.EXITED

    def test_a_program_that_ends_before_its_agent_begins_leaves_none(self, world: World, app: App) -> None:
        app.send(Spawn(name="x"))
        world.host.programs_gone.add(app.client.os_pid)
        world.host.work()
        assert world.system.processes.living == 0


class TestFullDisk:
    def test_no_agent_begins_that_could_not_be_kept(self, world: World, app: App) -> None:
        world.disk.failure = StorageFullError("The disk is full.")
        assert isinstance(app.refused(Spawn(name="x")), StorageFullError)
        assert world.system.quotas.books[SHOP].held["processes"] == 0
        assert rows(app) == []

    def test_one_can_kill_and_it_is_written_down_later(self, world: World, app: App) -> None:
        agent = app.spawn()
        world.disk.failure = StorageFullError("The disk is full.")
        app.call(Kill(pid=agent.pid))
        assert rows(restarted(world).connect(SHOP))[0].state == "idle", "the disk did not take it"
        world.disk.failure = None
        world.host.advance(60)
        world.host.work()
        assert rows(restarted(world).connect(SHOP))[0].state == "exited"


class TestUsage:
    def test_a_restart_is_no_way_round_a_limit(self, thinking: World) -> None:
        agent = _thought(thinking)
        thinking.connect("admin:root").call(SetLimits(principal=SHOP, limits={"tokens_per_minute": 60}))
        agent.send(Generate(model="tiny", messages=[Message("user", "x" * 40)], max_tokens=60))
        thinking.step((thinking.begun().seq, [65] * 10, "length"))
        thinking.host.advance(COUNT_S)
        thinking.host.work()
        used = thinking.system.quotas.usage(SHOP, thinking.host.now)[0].used
        assert used > 50
        again = restarted(thinking)
        again.system.quotas.set_limits(SHOP, {"tokens_per_minute": 60})
        assert again.system.quotas.usage(SHOP, again.host.now)[0].used == pytest.approx(used, abs=2)

    def test_a_bucket_fills_while_there_is_no_kernel(self, world: World) -> None:
        _pour(world)
        assert _used(world) == 1_000
        again = make_world(world.system.where.state.parent, started=world.host.now + 30)
        assert _used(again) == max(0, 1_000 - again.system.quotas.limits(SHOP)["tokens_per_minute"] // 2)

    def test_a_full_bucket_is_not_kept(self, world: World) -> None:
        _pour(world)
        assert records.facts(world.disk.database.connection, "usage")
        world.host.advance(120)
        world.system.quotas.pour((SHOP,), 0, world.host.now)
        world.system.agents.flush()
        world.host.work()
        assert not records.facts(world.disk.database.connection, "usage")

    def test_counters_of_agents_follow_within_a_second(self, thinking: World) -> None:
        agent = _thought(thinking)
        thinking.host.advance(COUNT_S)
        thinking.host.work()
        before = rows(thinking.connect(SHOP))[0]
        after = rows(restarted(thinking).connect(SHOP))[0]
        assert before.generated_tokens == 4
        assert before.service == 4.0
        assert (after.pid, after.prompt_tokens, after.generated_tokens, after.service) == (
            agent.pid,
            before.prompt_tokens,
            before.generated_tokens,
            before.service,
        )


class TestMail:
    def test_the_box_of_an_agent_outlives_the_kernel_and_is_read_once(self, world: World, app: App) -> None:
        anna, bert = app.spawn("anna"), world.connect("app:desk").spawn("bert")
        for text in ("one", "two"):
            anna.call(Send(to=f"agent/{bert.pid}", text=text))
        first = bert.call(Receive(mailbox=f"agent/{bert.pid}"), key="read")
        bert = restarted(world).connect("app:desk").agent(bert.pid)
        assert bert.call(Receive(mailbox=f"agent/{bert.pid}"), key="read") == first
        assert bert.call(Receive(mailbox=f"agent/{bert.pid}")).text == "two"

    def test_it_is_emptied_when_the_agent_ends_under_a_later_kernel(self, world: World, app: App) -> None:
        agent = app.spawn()
        app.spawn().call(Send(to=f"agent/{agent.pid}", text="unread"))
        again = restarted(world)
        again.connect(SHOP).call(Exit(pid=agent.pid))
        assert post.boxes(again.disk.database.connection) == []

    def test_a_reply_names_the_mail_it_answers(self, world: World, app: App) -> None:
        anna, bert = app.spawn("anna"), world.connect("app:desk").spawn("bert")
        asked = anna.call(Send(to=f"agent/{bert.pid}", text="how much?"))
        question = bert.call(Receive(mailbox=f"agent/{bert.pid}"))
        bert.call(question.reply("seven"))
        answer = anna.call(Receive(mailbox=f"agent/{anna.pid}"))
        assert (answer.text, answer.in_reply_to, answer.sender, answer.sender_pid) == ("seven", asked.mail, "app:desk", bert.pid)
        assert question.in_reply_to is None
        anna.call(Exit(pid=anna.pid))
        assert isinstance(bert.refused(question.reply("still seven")), NotFoundError)


def test_an_answer_is_forgotten_with_its_context(thinking: World, tmp_path: Path) -> None:
    agent = _thought(thinking)
    chat = agent.call(OpenContext(name="chat"), key="open").context
    sent = agent.send(Generate(model="tiny", context=chat, messages=[Message("user", "hi")]), key="ask")
    thinking.host.work()
    thinking.step((thinking.begun().seq, [65, 66], "stop"))
    assert sent.result().finish == "stop"
    count = "SELECT count(*) FROM replies WHERE call IN ('open', 'ask')"
    assert thinking.disk.database.connection.execute(count).fetchone() == (2,)
    agent.call(DeleteContext(context=chat))
    assert thinking.disk.database.connection.execute(count).fetchone() == (1,)


def _thought(world: World) -> App:
    """An agent that has been answered with four tokens."""
    agent = world.connect(SHOP).spawn()
    agent.send(Generate(model="tiny", messages=[Message("user", "x")], max_tokens=4))
    world.loaded("tiny")
    world.step((world.begun().seq, [65, 66, 67, 68], "length"))
    return agent


def _pour(world: World) -> None:
    world.system.quotas.pour((SHOP,), -1_000, world.host.now)
    world.system.agents.flush()
    world.host.work()


def _used(world: World) -> int:
    return world.system.quotas.usage(SHOP, world.host.now)[0].used
