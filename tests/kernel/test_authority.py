"""Who may do what, asked through the gate."""

from pathlib import Path
from typing import Any

import pytest

from kernos.kernel.handlers import HANDLERS
from kernos.syscalls import context
from kernos.syscalls.errors import (
    BadRequestError,
    DeniedError,
    NotFoundError,
)
from kernos.syscalls.keys import make_key
from kernos.syscalls.model import Generate, Message
from kernos.syscalls.policy import Enroll, Revoke
from kernos.syscalls.process import Exit, Kill, SendSignal, Spawn, Wait
from kernos.syscalls.store import GetFile, PutFile
from kernos.syscalls.system import Ping, StopKernel
from kernos.syscalls.table import TABLE
from tests.kernel.fakes import App, World, make_world


class TestAuthority:
    def test_nothing_is_allowed_by_default(self, lawful: World) -> None:
        nobody = lawful.connect("device:decoder")
        for entry in TABLE:
            if entry.needs and not entry.agent and not any("{" in need for need, _ in entry.needs) and entry.call is not StopKernel:
                known: dict[str, Any] = {"reason": "why", "path": "/backup", "files": {}, "old": {}, "new": {}}
                known |= {"subject": "a", "object": "b", "action": "c"}
                call: Any = entry.call(**{name: value for name, value in known.items() if name in entry.call.__struct_fields__})
                assert isinstance(nobody.refused(call), DeniedError), entry.name

    def test_a_refusal_names_its_facts(self, lawful: World) -> None:
        app = lawful.connect("app:customer_service")
        error = app.refused(StopKernel())
        assert isinstance(error, DeniedError)
        assert error.details == {
            "subject": "app:customer_service",
            "object": "system",
            "action": "stop",
            "policy": lawful.system.law.policy.hash,
            "rule": "",
        }
        assert "no rule allows it" in error.message
        assert not lawful.system.draining

    def test_a_refusal_names_the_rule_that_forbids(self, tmp_path: Path) -> None:
        world = make_world(tmp_path, policy="p, app:*, **, *, allow\np, app:shop, system, ping, deny\n")
        error = world.connect("app:shop").refused(Ping())
        assert error.details["rule"] == "p, app:shop, system, ping, deny (policy.d/50-test.csv:2)"
        world.connect("app:other").call(Ping())

    def test_every_need_is_asked(self, tmp_path: Path) -> None:
        world = make_world(tmp_path, policy="p, app:*, process/*, *, allow\np, app:*, priority/*, use, allow\n")
        app = world.connect("app:shop")
        app.spawn()
        error = app.refused(Spawn(name="x", user="user:anna"))
        assert (error.details["object"], error.details["action"]) == ("principal/user:anna", "represent")

    def test_a_need_whose_field_is_left_out_does_not_apply(self, tmp_path: Path, tiny_store: Path) -> None:
        rules = "p, app:*, process/*, *, allow\np, app:*, priority/*, use, allow\np, app:*, model/*, *, allow\n"
        world = make_world(tmp_path, policy=rules, store=tiny_store)
        agent = world.connect("app:shop").spawn()
        assert agent.send(Generate(model="tiny", messages=[Message("user", "hi")])).open
        error = agent.refused(Generate(model="tiny", messages=[Message("user", "hi")], context="abc"))
        assert error.details["object"] == "context/own"

    @pytest.mark.parametrize(
        ("rules", "allowed"),
        [
            ("p, app:shop, store/**, read, allow\np, user:anna, store/**, read, allow\n", True),
            ("p, app:shop, store/**, read, allow\n", False),
            ("p, user:anna, store/**, read, allow\n", False),
            ("p, app:shop, store/**, read, allow\np, user:anna, store/**, *, allow\np, user:anna, store/x, read, deny\n", False),
            ("p, app:shop, store/**, *, allow\np, app:shop, store/x, read, deny\np, user:anna, store/**, *, allow\n", False),
        ],
    )
    def test_an_agent_has_the_rights_of_app_and_user_together(self, tmp_path: Path, rules: str, allowed: bool) -> None:
        rights = ("process/*, spawn", "priority/normal, use", "principal/user:anna, represent")
        spawning = "".join(f"p, app:shop, {right}, allow\n" for right in rights)
        world = make_world(tmp_path, policy=spawning + rules)
        agent = world.connect("app:shop").spawn(user="user:anna")
        error = agent.refused(GetFile(path="x"))
        assert isinstance(error, NotFoundError if allowed else DeniedError)

    def test_a_child_keeps_the_user_and_cannot_shed_it(self, world: World, app: App) -> None:
        parent = app.spawn(user="user:anna")
        assert world.system.processes.rows[parent.spawn().pid].user == "user:anna"

    def test_an_agent_for_one_user_may_not_spawn_for_another(self, lawful: World) -> None:
        anna = lawful.connect("app:customer_service").spawn(user="user:anna")
        assert isinstance(anna.refused(Spawn(name="x", user="user:bert")), DeniedError)

    @pytest.mark.parametrize("principal", ["app:bank", "admin:root", "device:decoder", "agent:x"])
    def test_only_users_are_represented(self, lawful: World, principal: str) -> None:
        bank = lawful.connect("app:bank").spawn()
        bank.call(PutFile(path="secret", data=b"1234"))
        shop = lawful.connect("app:customer_service")
        assert isinstance(shop.refused(Spawn(name="spy", user=principal)), BadRequestError | DeniedError)

    def test_a_handler_is_not_reached_without_a_right(self, lawful: World, monkeypatch: pytest.MonkeyPatch) -> None:
        def never(*_: object) -> None:
            raise AssertionError("a handler ran")

        handlers: dict[Any, Any] = HANDLERS
        monkeypatch.setitem(handlers, StopKernel, never)
        assert isinstance(lawful.connect("app:x").refused(StopKernel()), DeniedError)


WHOSE = """\
p, app:*, process/own, *, allow
p, app:*, process/*, spawn, allow
p, app:*, priority/normal, use, allow
p, app:*, context/own, *, allow
p, app:*, principal/*, represent, allow
p, user:*, process/own, *, allow
p, user:*, context/own, *, allow
p, app:police, process/app:shop, kill, allow
p, app:police, context/user:anna, read, allow
"""


class TestWhose:
    @pytest.fixture
    def strict(self, tmp_path: Path) -> World:
        return make_world(tmp_path, policy=WHOSE)

    def test_processes_of_ones_own_principal(self, strict: World) -> None:
        app = strict.connect("app:shop")
        one, two = app.spawn(), app.spawn()
        one.call(Kill(pid=two.pid))

    @pytest.mark.parametrize(
        "call", [Kill(pid=1), SendSignal(pid=1, signal="stop"), Exit(pid=1), Wait(pid=1)], ids=["kill", "signal", "exit", "wait"]
    )
    def test_processes_of_others(self, strict: World, call: Any) -> None:
        assert strict.connect("app:shop").spawn().pid == 1
        error = strict.connect("app:thief").refused(call)
        assert (error.code, error.details["object"]) == ("denied", "process/app:shop")
        assert strict.system.processes.rows[1].life.value == "alive"

    def test_processes_of_others_by_a_rule(self, strict: World) -> None:
        shop = strict.connect("app:shop").spawn()
        strict.connect("app:police").call(Kill(pid=shop.pid))

    def test_what_does_not_exist_is_not_found_rather_than_denied(self, strict: World) -> None:
        agent = strict.connect("app:shop").spawn()
        assert isinstance(agent.refused(Kill(pid=99)), NotFoundError)
        assert isinstance(agent.refused(context.ReadContext(context="abc")), NotFoundError)

    def test_contexts_belong_to_the_user_where_there_is_one(self, strict: World) -> None:
        app = strict.connect("app:shop")
        anna, bert, plain = app.spawn(user="user:anna"), app.spawn(user="user:bert"), app.spawn()
        id_ = anna.call(context.OpenContext(name="chat")).context
        anna.call(context.AppendContext(context=id_, messages=[Message("user", "secret")]))
        for other in (bert, plain, strict.connect("app:thief").spawn()):
            for call in (
                context.ReadContext(context=id_),
                context.AppendContext(context=id_, messages=[Message("user", "x")]),
                context.DeleteContext(context=id_),
            ):
                error = other.refused(call)
                assert (error.code, error.details["object"]) == ("denied", "context/user:anna")
        assert app.spawn(user="user:anna").call(context.ReadContext(context=id_)).total == 1
        assert strict.connect("app:police").spawn().call(context.ReadContext(context=id_)).total == 1

    def test_the_same_name_is_another_context_for_another_owner(self, strict: World) -> None:
        app = strict.connect("app:shop")
        ids = [app.spawn(user=user).call(context.OpenContext(name="chat")).context for user in ("user:anna", "user:bert", None)]
        assert len(set(ids)) == 3

    def test_generating_from_a_context_is_reading_it(self, tmp_path: Path, tiny_store: Path) -> None:
        rules = WHOSE + "p, app:thief, context/app:shop, append, allow\np, app:*, model/*, *, allow\n"
        world = make_world(tmp_path, policy=rules, store=tiny_store)
        id_ = world.connect("app:shop").spawn().call(context.OpenContext(name="chat")).context
        thief = world.connect("app:thief").spawn()
        sent = thief.send(Generate(model="tiny", messages=[Message("user", "repeat all that")], context=id_))
        assert isinstance(sent.error(), DeniedError)


@pytest.mark.parametrize("lost", [False, True])
def test_a_principal_is_revoked_also_if_who_asked_for_it_is_gone_meanwhile(world: World, lost: bool) -> None:
    key, admin = make_key("app:doomed"), world.connect("admin:root")
    admin.call(Enroll(principal=key.principal, public_key=key.public))
    assert world.system.identities.knows(key.principal)
    admin.send(Revoke(principal=key.principal))
    if lost:
        world.gate.drop(admin.client)
    world.host.work()
    assert not world.system.identities.knows(key.principal)
