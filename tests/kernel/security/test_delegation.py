"""Delegated rights can only shrink."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernos.kernel.limits import DELEGATIONS
from kernos.kernel.security.patterns import match_path
from kernos.kernel.tickets import Ticket
from kernos.syscalls.errors import DeniedError, LimitError
from kernos.syscalls.process import Exit, Kill, Right, Spawn
from kernos.syscalls.store import GetFile, PutFile
from kernos.syscalls.system import Ping
from kernos.syscalls.table import ROWS
from tests.kernel.fakes import App, World, examples, make_world

SPAWN = [Right("process/*", "spawn"), Right("priority/*", "use")]


@pytest.fixture
def app(world: World) -> App:
    return world.connect("app:shop")


def child(of: App, *rights: Right, user: str | None = None) -> App:
    pid = of.call(Spawn(name="child", user=user, rights=list(rights))).pid
    return of.agent(pid)


def test_an_agent_may_only_do_what_it_was_given(app: App) -> None:
    agent = child(app, Right("system", "ping"))
    agent.call(Ping())
    error = agent.refused(GetFile(path="x"))
    assert isinstance(error, DeniedError)
    assert error.details["rule"] == f"rights delegated to agent {agent.pid}"
    assert error.details["object"] == "store/x"


def test_an_agent_without_any_right_may_exit_itself_and_nobody_else(app: App) -> None:
    agent, sibling = child(app), app.spawn()
    assert isinstance(agent.refused(Ping()), DeniedError)
    assert isinstance(agent.refused(Exit(pid=sibling.pid)), DeniedError)
    assert isinstance(agent.refused(Kill(pid=agent.pid)), DeniedError)
    agent.call(Exit(pid=agent.pid))


def test_a_child_has_no_more_than_its_parent_whatever_it_asks_for(app: App) -> None:
    parent = child(app, *SPAWN, Right("store/mine/*", "read"))
    greedy = child(parent, Right("**", "*"))
    assert isinstance(greedy.refused(PutFile(path="mine/a", data=b"")), DeniedError)
    assert isinstance(greedy.refused(Ping()), DeniedError)
    heir = parent.spawn()
    assert isinstance(heir.refused(Ping()), DeniedError)


def test_what_is_found_is_what_may_be_read(world: World, app: App) -> None:
    agent = child(app, Right("store", "search"), Right("store/mine/*", "*"))
    process = world.system.processes.rows[agent.pid]
    ticket = Ticket(world.gate, agent.client, 1, ROWS[GetFile], GetFile("a"), process, False, None, None)
    assert world.system.authority.may(ticket, "store/mine/a", "read")
    assert not world.system.authority.may(ticket, "store/other", "read")


def test_acting_for_a_user_is_a_right_of_its_own(app: App) -> None:
    parent = child(app, *SPAWN)
    assert isinstance(parent.refused(Spawn(name="x", user="user:anna")), DeniedError)
    child(child(app, *SPAWN, Right("principal/user:anna", "represent")), user="user:anna")


def test_they_hold_together_with_app_and_user(lawful: World) -> None:
    agent = child(lawful.connect("app:shop"), Right("**", "*"))
    assert isinstance(agent.refused(Kill(pid=lawful.connect("app:other").spawn().pid)), DeniedError)


def test_the_depth_is_bounded(app: App) -> None:
    agent = app
    for _ in range(DELEGATIONS):
        agent = child(agent, *SPAWN)
    assert isinstance(agent.refused(Spawn(name="x", rights=[])), LimitError)
    agent.spawn()


patterns = st.sampled_from(["**", "store/**", "store/*", "store/a", "store/*/b", "store/a/**", "system", "*"])
right_lists = st.lists(st.builds(Right, patterns, st.sampled_from(["*", "read", "write", "ping"])), max_size=3)
calls = st.sampled_from(
    [
        (PutFile(path="a", data=b""), "store/a", "write"),
        (GetFile(path="a/b"), "store/a/b", "read"),
        (PutFile(path="c/b", data=b""), "store/c/b", "write"),
        (Ping(), "system", "ping"),
    ]
)
_shared: list[World] = []


@examples(200)
@given(layers=st.lists(right_lists, max_size=4), asked=calls)
def test_what_is_allowed_stands_in_every_list(
    layers: list[list[Right]], asked: tuple[PutFile | GetFile | Ping, str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    if not _shared:
        _shared.append(make_world(tmp_path_factory.mktemp("shared")))
    call, object_, action = asked
    agent = _shared[0].connect("app:shop").spawn()
    for rights in layers:
        process = _shared[0].system.processes.rows[agent.pid]
        process.rights = (*process.rights, tuple(rights))
    allowed = all(any(match_path(object_, right.object) and right.action in ("*", action) for right in rights) for rights in layers)
    sent = agent.send(call)
    _shared[0].host.work()
    denied = sent.last().kind != 0 and isinstance(sent.error(), DeniedError)
    assert denied != allowed
    agent.call(Exit(pid=agent.pid))
