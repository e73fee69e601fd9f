"""`process.*` through the gate."""

from itertools import product

import pytest

from kernos.kernel import system as system_module
from kernos.kernel.devices.messages import Stop
from kernos.kernel.handlers import process as handler
from kernos.kernel.host import Delivery
from kernos.syscalls.errors import (
    AgentKilledError,
    CancelledError,
    DeadlineError,
    LimitError,
    NotFoundError,
    NotYoursError,
)
from kernos.syscalls.message import Receive
from kernos.syscalls.model import Generate, Message
from kernos.syscalls.process import (
    Ended,
    Exit,
    Kill,
    Launch,
    ListProcesses,
    ReportCrash,
    SendSignal,
    Spawn,
    Wait,
)
from kernos.syscalls.system import GetStatus, Ping
from tests.kernel.fakes import App, Sent, World


@pytest.fixture
def app(world: World) -> App:
    return world.connect("app:shop")


def rows(app: App, scope: str = "own") -> dict[int, str]:
    found = app.call(ListProcesses(scope="all" if scope == "all" else "own")).processes
    return {row.pid: row.state for row in found}


def receive(agent: App) -> Sent:
    return agent.send(Receive(mailbox="queue/empty"))


class TestSpawn:
    def test_a_row_tells_who_it_is(self, app: App) -> None:
        parent = app.spawn("parent", user="user:anna", priority="batch")
        child = parent.spawn("child")
        one, two = app.call(ListProcesses()).processes
        assert (one.name, one.principal, one.user, one.parent, one.priority) == ("parent", "app:shop", "user:anna", 0, "batch")
        assert (two.pid, two.parent, two.user, two.priority) == (child.pid, parent.pid, "user:anna", "normal")

    def test_a_principal_has_a_limit(self, world: World, app: App) -> None:
        world.system.quotas.set_limits("app:shop", {"processes": 2})
        first = app.spawn()
        app.spawn()
        assert isinstance(app.refused(Spawn(name="x")), LimitError)
        world.connect("app:other").spawn()
        app.call(Exit(pid=first.pid))
        app.spawn()

    def test_the_table_has_a_limit(self, world: World, app: App, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(handler, "PROCESSES", 2)
        app.spawn()
        app.spawn()
        assert isinstance(world.connect("app:other").refused(Spawn(name="x")), LimitError)


class TestList:
    def test_ones_own_and_all(self, world: World, app: App) -> None:
        mine, other = app.spawn(), world.connect("app:other").spawn()
        assert set(rows(app)) == {mine.pid}
        assert set(rows(app, "all")) == {mine.pid, other.pid}

    def test_states(self, thinking: World) -> None:
        app = thinking.connect("app:shop")
        idle, waits, stopped, exited, runs, queued = (app.spawn() for _ in range(6))
        receive(waits)
        app.call(SendSignal(pid=stopped.pid, signal="stop"))
        app.call(Exit(pid=exited.pid))
        runs.send(Generate(model="tiny", messages=[Message("user", "x")]))
        thinking.loaded("tiny")
        for _ in range(thinking.system.config.slots - 1):
            app.spawn(priority="realtime").send(Generate(model="tiny", messages=[Message("user", "x")]))
        queued.send(Generate(model="tiny", messages=[Message("user", "x")]))
        states = rows(app)
        of = {"idle": idle, "waiting": waits, "stopped": stopped, "exited": exited, "running": runs, "queued": queued}
        assert {state: states[agent.pid] for state, agent in of.items()} == {state: state for state in of}

    def test_a_long_table_is_listed_without_looking_at_every_call_for_every_row(
        self, world: World, app: App, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        agents = [app.spawn() for _ in range(40)]
        for agent in agents:
            receive(agent)
        looked = 0

        class Counting(dict):  # type: ignore[type-arg]
            def values(self) -> object:  # type: ignore[override]
                nonlocal looked
                looked += 1
                return super().values()

        monkeypatch.setattr(world.gate, "in_flight", Counting(world.gate.in_flight))
        rows(app)
        assert looked <= 2


class TestExit:
    def test_in_good_order(self, app: App) -> None:
        agent = app.spawn()
        call = receive(agent)
        agent.call(Exit(pid=agent.pid, code=3, reason="done"))
        assert isinstance(call.error(), CancelledError)
        (row,) = app.call(ListProcesses()).processes
        assert (row.state, row.exit_code, row.reason) == ("exited", 3, "done")

    def test_twice_is_once(self, app: App) -> None:
        agent = app.spawn()
        app.call(Exit(pid=agent.pid, code=3))
        app.call(Exit(pid=agent.pid, code=4))
        assert app.call(Wait(pid=agent.pid)).code == 3

    def test_an_unknown_agent(self, app: App) -> None:
        assert isinstance(app.refused(Exit(pid=42)), NotFoundError)
        assert isinstance(app.refused(Exit(pid=0)), NotFoundError)

    def test_the_count_of_agents(self, app: App) -> None:
        agents = [app.spawn() for _ in range(3)]
        app.call(Exit(pid=agents[0].pid))
        assert app.call(GetStatus()).agents == 2


class TestKill:
    def test_calls_end_as_killed(self, app: App) -> None:
        agent = app.spawn("victim")
        call = receive(agent)
        app.call(Kill(pid=agent.pid))
        error = call.error()
        assert isinstance(error, AgentKilledError)
        assert "victim" in error.message
        assert app.call(Wait(pid=agent.pid)) == Ended(agent.pid, -9, "killed by app:shop")

    def test_oneself(self, app: App) -> None:
        agent = app.spawn()
        agent.call(Kill(pid=agent.pid))
        assert isinstance(agent.refused(Ping()), NotYoursError)

    def test_the_dead(self, app: App) -> None:
        agent = app.spawn()
        app.call(Kill(pid=agent.pid))
        app.call(Exit(pid=agent.pid, code=3))
        app.call(Kill(pid=agent.pid))
        assert app.call(Wait(pid=agent.pid)).code == -9
        assert isinstance(app.refused(Kill(pid=agent.pid)), NotFoundError)

    def test_its_turn_leaves_the_device(self, thinking: World) -> None:
        app = thinking.connect("app:shop")
        agent = app.spawn()
        turn = agent.send(Generate(model="tiny", messages=[Message("user", "x")]))
        thinking.loaded("tiny")
        app.call(Kill(pid=agent.pid))
        assert isinstance(turn.error(), AgentKilledError)
        assert thinking.commands(Stop)[-1].seq == thinking.begun().seq
        assert not thinking.system.scheduler.turns
        assert not thinking.system.turns.answers


class TestSignals:
    @pytest.mark.parametrize("signals", list(product(("stop", "continue"), repeat=3)))
    def test_any_order_of_stop_and_continue(self, app: App, signals: tuple[str, ...]) -> None:
        agent = app.spawn()
        for signal in signals:
            app.call(SendSignal(pid=agent.pid, signal="stop" if signal == "stop" else "continue"))
        assert rows(app)[agent.pid] == ("stopped" if signals[-1] == "stop" else "idle")

    def test_a_stopped_agent_leaves_the_device_and_comes_back(self, thinking: World) -> None:
        app = thinking.connect("app:shop")
        agent = app.spawn()
        turn = agent.send(Generate(model="tiny", messages=[Message("user", "x")], max_tokens=4))
        thinking.loaded("tiny")
        thinking.step((thinking.begun().seq, [65, 66], ""))
        first = thinking.begun()
        app.call(SendSignal(pid=agent.pid, signal="stop"))
        thinking.step((first.seq, [67], ""))  # on its way when the stop came
        app.call(SendSignal(pid=agent.pid, signal="continue"))
        again = thinking.begun()
        assert again.seq != first.seq
        assert again.prompt == [*first.prompt, 65, 66, 67]
        assert again.resumed == 3
        thinking.step((again.seq, [68], "length"))
        assert turn.result().tokens == [65, 66, 67, 68]
        assert turn.result().resumed == 0, "that counts crashes"

    def test_interrupt_ends_calls_and_not_the_agent(self, app: App) -> None:
        agent = app.spawn()
        calls = [receive(agent), receive(agent)]
        app.call(SendSignal(pid=agent.pid, signal="interrupt"))
        assert all(isinstance(call.error(), CancelledError) for call in calls)
        agent.call(Ping())

    def test_terminate(self, app: App) -> None:
        agent = app.spawn()
        call = receive(agent)
        app.call(SendSignal(pid=agent.pid, signal="terminate"))
        assert isinstance(call.error(), AgentKilledError)
        assert app.call(Wait(pid=agent.pid)).code == -15

    def test_the_dead_take_no_signals(self, app: App) -> None:
        agent = app.spawn()
        app.call(Exit(pid=agent.pid))
        for signal in ("stop", "continue", "interrupt", "terminate"):
            assert isinstance(app.refused(SendSignal(pid=agent.pid, signal=signal)), NotFoundError)

    def test_a_stopped_agent_can_exit(self, world: World, app: App) -> None:
        agent = app.spawn()
        app.call(SendSignal(pid=agent.pid, signal="stop"))
        app.call(Exit(pid=agent.pid))
        assert not world.system.scheduler.held


class TestWait:
    def test_for_one_that_has_ended(self, app: App) -> None:
        agent = app.spawn()
        app.call(Exit(pid=agent.pid, code=7, reason="why"))
        assert app.call(Wait(pid=agent.pid)) == Ended(agent.pid, 7, "why")
        assert rows(app) == {}
        assert isinstance(app.refused(Wait(pid=agent.pid)), NotFoundError)

    def test_until_it_ends(self, app: App) -> None:
        agent = app.spawn()
        calls = [app.send(Wait(pid=agent.pid)) for _ in range(3)]
        assert all(call.open for call in calls)
        app.call(Exit(pid=agent.pid, code=7))
        assert [call.result().code for call in calls] == [7, 7, 7]
        assert rows(app) == {}

    def test_a_deadline(self, world: World, app: App) -> None:
        agent = app.spawn()
        call = app.send(Wait(pid=agent.pid), timeout_ms=1_000)
        world.host.advance(2.0)
        assert isinstance(call.error(), DeadlineError)
        app.call(Exit(pid=agent.pid))
        assert app.call(Wait(pid=agent.pid)).code == 0

    def test_for_oneself(self, app: App) -> None:
        agent = app.spawn()
        call = agent.send(Wait(pid=agent.pid))
        app.call(Exit(pid=agent.pid))
        assert isinstance(call.error(), CancelledError)

    def test_the_uncollected_are_bounded(self, world: World, app: App, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(system_module, "ZOMBIES", 3)
        agents = [app.spawn() for _ in range(10)]
        for agent in agents:
            app.call(Exit(pid=agent.pid))
        assert set(rows(app)) == {agent.pid for agent in agents[-3:]}

    def test_a_waiter_who_is_gone_keeps_nobody_waiting(self, world: World, app: App) -> None:
        agent = app.spawn()
        gone = world.connect("app:shop")
        calls = [
            gone.send(Wait(pid=agent.pid)),
            gone.send(Wait(pid=agent.pid)),
            app.send(Wait(pid=agent.pid)),
            app.send(Wait(pid=agent.pid)),
        ]
        world.host.deliver = lambda client: Delivery.GONE if client is gone.client else Delivery.SENT
        app.call(Exit(pid=agent.pid))
        assert [call.open for call in calls[2:]] == [False, False]


class TestApps:
    def test_restart_intensity(self, world: World, app: App) -> None:
        app.call(Launch(app="shop"))
        verdicts = [app.call(ReportCrash(app="shop", code=1)) for _ in range(4)]
        assert [verdict.restart for verdict in verdicts] == [True, True, True, False]
        assert "giving up" in verdicts[-1].reason
        world.host.advance(60.0)
        assert app.call(ReportCrash(app="shop", code=1)).restart

    def test_a_new_launch_forgives(self, app: App) -> None:
        app.call(Launch(app="shop"))
        for _ in range(4):
            app.call(ReportCrash(app="shop", code=1))
        app.call(Launch(app="shop"))
        assert app.call(ReportCrash(app="shop", code=1)).restart

    def test_an_app_that_was_launched_under_the_kernel_before_is_judged_anew(self, app: App) -> None:
        assert app.call(ReportCrash(app="shop", code=1)).restart
