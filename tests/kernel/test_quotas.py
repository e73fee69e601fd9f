"""What is charged at the gate, to whom, and what comes back."""

from pathlib import Path

import pytest

from kernos.kernel.core.scheduler import RANK
from kernos.kernel.devices.messages import Failed
from kernos.syscalls.context import AppendContext, DeleteContext, OpenContext, ReadContext
from kernos.syscalls.errors import DeniedError, LimitError, NotFoundError, NotYoursError
from kernos.syscalls.message import Receive
from kernos.syscalls.model import Embed, Generate, Message
from kernos.syscalls.process import Exit, GetUsage, LimitName, ListProcesses, Nice, SetLimits, Spawn
from kernos.syscalls.store import DeleteFile, GetFile, PutFile
from kernos.syscalls.system import Cancel
from tests.kernel.fakes import App, World, make_world, tokens_of

ASK = Generate(model="tiny", messages=[Message("user", "hi")], max_tokens=100)
PROMPT = len(tokens_of("<user>hi<assistant>"))
SHOP, ANNA = "app:shop", "user:anna"


@pytest.fixture
def anna(thinking: World) -> App:
    """An agent of the shop for Anna."""
    agent = thinking.connect(SHOP).spawn(user=ANNA)
    agent.send(ASK)
    thinking.loaded("tiny")
    thinking.step((thinking.begun().seq, [], "stop"))
    thinking.host.advance(60)
    return agent


def used(world: World, principal: str) -> dict[str, int]:
    """What a principal uses, without what it does not."""
    return {meter.limit: meter.used for meter in world.system.quotas.usage(principal, world.host.now) if meter.used}


def allow(world: World, principal: str, name: LimitName, amount: int) -> None:
    world.connect("admin:root").call(SetLimits(principal=principal, limits={name: amount}))


class TestTurns:
    def test_app_and_user_are_charged_for_prompt_and_answer(self, thinking: World, anna: App) -> None:
        sent = anna.send(ASK)
        thinking.step((thinking.begun().seq, tokens_of("Good"), ""))
        both = {"tokens_per_minute": PROMPT + 4, "turns": 1, "kv_pages": 2, "calls": 1, "processes": 1}
        assert used(thinking, SHOP) == used(thinking, ANNA) == both
        thinking.step((thinking.begun().seq, tokens_of("."), "stop"))
        assert not sent.open
        assert used(thinking, SHOP) == used(thinking, ANNA) == {"tokens_per_minute": PROMPT + 5, "processes": 1}

    @pytest.mark.parametrize("short", [SHOP, ANNA])
    @pytest.mark.parametrize("name", ["tokens_per_minute", "turns", "calls"])
    def test_either_can_be_out_and_nothing_is_charged_then(self, thinking: World, anna: App, short: str, name: LimitName) -> None:
        allow(thinking, short, name, 0)
        begun = thinking.begun()
        error = anna.refused(ASK)
        assert isinstance(error, LimitError)
        assert (error.details["principal"], error.details["limit"], error.details["allowed"]) == (short, name, "0")
        assert used(thinking, SHOP) == used(thinking, ANNA) == {"processes": 1}
        assert thinking.begun() is begun
        assert not thinking.system.turns.answers

    def test_a_turn_that_began_ends_and_the_next_waits_until_retry_after(self, thinking: World, anna: App) -> None:
        allow(thinking, ANNA, "tokens_per_minute", 60)
        sent = anna.send(ASK)
        for _ in range(10):
            thinking.step((thinking.begun().seq, tokens_of("ten tokens"), ""))
        thinking.step((thinking.begun().seq, [], "length"))
        assert sent.result().usage.generated_tokens == 100
        error = anna.refused(ASK)
        assert error.details["used"] == str(PROMPT + 100)
        assert error.retry_after == pytest.approx(2 * PROMPT + 40, abs=1e-3)
        thinking.host.advance((error.retry_after or 0.0) - 0.01)
        assert isinstance(anna.refused(ASK), LimitError)
        thinking.host.advance(0.01)
        assert anna.send(ASK).open

    def test_what_the_device_could_not_do_is_free(self, thinking: World, anna: App) -> None:
        sent = anna.send(ASK)
        thinking.step((thinking.begun().seq, tokens_of("Good"), ""))
        thinking.report("decoder", Failed("out of memory", seq=thinking.begun().seq))
        assert not sent.open
        assert used(thinking, SHOP) == used(thinking, ANNA) == {"processes": 1}

    def test_what_the_caller_ends_is_paid(self, thinking: World, anna: App) -> None:
        sent = anna.send(ASK)
        anna.call(Cancel(id=sent.id))
        assert used(thinking, SHOP) == used(thinking, ANNA) == {"tokens_per_minute": PROMPT, "processes": 1}

    def test_embedding_is_charged_and_free_if_it_fails(self, thinking: World, anna: App) -> None:
        texts = Embed(model="tiny-encoder", texts=["four", "fiver"])
        anna.send(texts)
        thinking.host.work()
        thinking.loaded("tiny-encoder")
        assert used(thinking, ANNA) == {"tokens_per_minute": 9, "calls": 1, "processes": 1}
        thinking.report("encoder", Failed("out of memory", batch=1))
        assert used(thinking, ANNA) == {"processes": 1}
        allow(thinking, ANNA, "tokens_per_minute", 0)
        assert isinstance(anna.refused(texts), LimitError)
        assert not thinking.system.embeds.batches

    @pytest.mark.parametrize("payer", [SHOP, ANNA])
    def test_whoever_uses_more_than_the_rate_is_served_behind_the_others(self, thinking: World, anna: App, payer: str) -> None:
        """Half a minute's worth at once is more than flows in 10 s."""
        allow(thinking, payer, "tokens_per_minute", 2 * PROMPT)
        assert self.rank(thinking, anna) == RANK["normal"]
        assert self.rank(thinking, anna) == RANK["batch"], "after one turn"
        assert self.rank(thinking, thinking.connect("app:other").spawn()) == RANK["normal"]
        thinking.host.advance(60)
        assert self.rank(thinking, anna) == RANK["normal"]

    @staticmethod
    def rank(world: World, agent: App) -> int:
        """With which a turn begins on the device."""
        agent.send(ASK)
        begun = world.begun()
        world.step((begun.seq, [], "stop"))
        return begun.rank

    def test_agents_are_given_back_when_they_end(self, thinking: World, anna: App) -> None:
        anna.send(Receive(mailbox="queue/empty"))
        anna.send(ASK)
        anna.call(Exit(pid=anna.pid))
        assert used(thinking, SHOP) == used(thinking, ANNA) == {"tokens_per_minute": PROMPT}

    def test_a_user_has_a_limit_of_agents_over_all_apps(self, thinking: World, anna: App) -> None:
        allow(thinking, ANNA, "processes", 1)
        for app in (App(thinking, anna.client), thinking.connect("app:other")):
            assert isinstance(app.refused(Spawn(name="x", user=ANNA)), LimitError)
            app.spawn(user="user:ben")
        assert used(thinking, SHOP)["processes"] == 2


class TestKept:
    def test_contexts_and_their_bytes(self, world: World) -> None:
        anna = world.connect(SHOP).spawn(user=ANNA)
        id_ = anna.call(OpenContext(name="chat")).context
        other = world.connect("app:other").spawn(user=ANNA)
        other.call(AppendContext(context=id_, messages=[Message("user", "é")]))
        assert used(world, SHOP) == {"processes": 1, "contexts": 1, "bytes": 2}, "it made the context"
        assert used(world, ANNA) == {"processes": 2, "contexts": 1, "bytes": 2}
        assert used(world, "app:other") == {"processes": 1}
        allow(world, SHOP, "bytes", 3)
        assert isinstance(other.refused(AppendContext(context=id_, messages=[Message("user", "é")])), LimitError)
        assert other.call(ReadContext(context=id_)).total == 1
        other.call(DeleteContext(context=id_))
        assert used(world, SHOP) == {"processes": 1}
        assert used(world, ANNA) == {"processes": 2}

    def test_files_are_charged_to_the_app_that_wrote_last(self, world: World) -> None:
        shop, other = (world.connect(app).spawn(user=ANNA) for app in (SHOP, "app:other"))
        shop.call(PutFile(path="x", data=bytes(5)))
        allow(world, "app:other", "bytes", 3)
        assert isinstance(other.refused(PutFile(path="x", data=bytes(4))), LimitError)
        assert (used(world, SHOP), used(world, "app:other")) == ({"processes": 1, "files": 1, "bytes": 5}, {"processes": 1})
        other.call(PutFile(path="x", data=bytes(3)))
        assert (used(world, SHOP), used(world, "app:other")) == ({"processes": 1}, {"processes": 1, "files": 1, "bytes": 8}), (
            "with its versions"
        )
        assert used(world, ANNA) == {"processes": 2, "files": 1, "bytes": 8}
        shop.call(DeleteFile(path="x"))
        assert used(world, "app:other") == {"processes": 1}
        assert isinstance(shop.refused(GetFile(path="x")), NotFoundError)


class TestUsage:
    def test_ones_own_ones_users_and_no_others(self, lawful: World) -> None:
        app = lawful.connect("app:customer_service")
        anna = app.spawn(user=ANNA)
        assert app.call(GetUsage()).principal == app.call(GetUsage(principal="app:customer_service")).principal == "app:customer_service"
        assert {meter.limit: meter.used for meter in anna.call(GetUsage(principal=ANNA)).meters}["processes"] == 1
        error = anna.refused(GetUsage(principal="user:ben"))
        assert isinstance(error, DeniedError)
        assert error.details["object"] == "quota/user:ben"
        assert isinstance(app.refused(GetUsage(principal=ANNA)), DeniedError)
        assert lawful.connect("admin:root").call(GetUsage(principal=ANNA)).principal == ANNA

    def test_the_shipped_limits_by_kind_and_role(self, lawful: World) -> None:
        admin = lawful.connect("admin:root")
        turns = [admin.call(GetUsage(principal=name)).meters[1].allowed for name in ("admin:root", SHOP, ANNA)]
        assert turns == [4_096, 1_024, 64]

    def test_limits_are_set_by_administrators_and_go_back_to_the_law(self, lawful: World) -> None:
        assert isinstance(lawful.connect(SHOP).refused(SetLimits(principal=SHOP, limits={"turns": 9})), DeniedError)
        admin = lawful.connect("admin:root", control=True)
        assert admin.call(SetLimits(principal=SHOP, limits={"turns": 9})).meters[1].allowed == 9
        assert admin.call(SetLimits(principal=SHOP, limits={"calls": 8})).meters[1].allowed == 9
        assert admin.call(SetLimits(principal=SHOP, limits={})).meters[1].allowed == 1_024


RAISER = """\
p, app:*, process/*, spawn, allow
p, app:*, process/own, nice, allow
p, app:*, process/own, list, allow
p, app:*, priority/*, use, allow
p, app:*, priority/realtime, use, deny
p, app:raiser, process/own, raise, allow
p, app:police, process/app:shop, nice, allow
"""


class TestNice:
    @pytest.fixture
    def ruled(self, tmp_path: Path) -> World:
        return make_world(tmp_path, policy=RAISER)

    def test_down_is_free_and_up_is_a_right(self, ruled: World) -> None:
        shop = ruled.connect(SHOP).spawn(priority="interactive")
        shop.call(Nice(pid=shop.pid, priority="interactive"))
        shop.call(Nice(pid=shop.pid, priority="batch"))
        error = shop.refused(Nice(pid=shop.pid, priority="normal"))
        assert isinstance(error, DeniedError)
        assert (error.details["object"], error.details["action"]) == ("process/own", "raise")
        assert [row.priority for row in shop.call(ListProcesses()).processes] == ["batch"]

    def test_with_the_right_only_to_a_class_one_may_use(self, ruled: World) -> None:
        app = ruled.connect("app:raiser").spawn(priority="batch")
        app.call(Nice(pid=app.pid, priority="interactive"))
        error = app.refused(Nice(pid=app.pid, priority="realtime"))
        assert error.details["object"] == "priority/realtime"

    def test_weights_are_like_classes(self, ruled: World) -> None:
        shop = ruled.connect(SHOP).spawn()
        shop.call(Nice(pid=shop.pid, priority="normal", weight=0.5))
        shop.call(Nice(pid=shop.pid, priority="normal"))
        error = shop.refused(Nice(pid=shop.pid, priority="normal", weight=1.0))
        assert (error.details["object"], error.details["action"]) == ("process/own", "raise")
        assert [row.weight for row in shop.call(ListProcesses()).processes] == [0.5]
        raiser = ruled.connect("app:raiser").spawn()
        raiser.call(Nice(pid=raiser.pid, priority="normal", weight=4.0))
        assert ruled.system.scheduler.account(raiser.pid).weight == 4.0

    def test_the_agent_of_another(self, ruled: World) -> None:
        shop = ruled.connect(SHOP).spawn()
        police = ruled.connect("app:police")
        police.call(Nice(pid=shop.pid, priority="batch"))
        assert police.refused(Nice(pid=shop.pid, priority="normal")).details["object"] == "process/app:shop"
        assert isinstance(ruled.connect("app:thief").refused(Nice(pid=shop.pid, priority="batch")), DeniedError)

    def test_nobody_and_the_dead(self, ruled: World) -> None:
        app = ruled.connect(SHOP)
        assert isinstance(app.refused(Nice(pid=99, priority="batch")), NotFoundError)
        assert isinstance(app.agent(99).refused(Nice(pid=99, priority="batch")), NotYoursError)

    def test_the_class_at_birth_is_a_right(self, lawful: World) -> None:
        error = lawful.connect(SHOP).refused(Spawn(name="x", priority="interactive"))
        assert (error.details["object"], error.details["action"]) == ("priority/interactive", "use")
        service = lawful.connect("app:customer_service")
        service.spawn(priority="interactive", user=ANNA)
        assert isinstance(service.refused(Spawn(name="x", priority="realtime")), DeniedError)

    def test_the_next_turn_has_the_new_class(self, thinking: World, anna: App) -> None:
        anna.call(Nice(pid=anna.pid, priority="realtime"))
        anna.send(ASK)
        assert [row.priority for row in anna.call(ListProcesses()).processes] == ["realtime"]
        (turn,) = thinking.system.scheduler.turns.values()
        assert turn.rank == 0
