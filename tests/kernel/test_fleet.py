"""Device servers and models: starting, loading, dying, giving up, reviving; and batches for encoders. Devices are played by hand."""

from pathlib import Path

import msgspec
import pytest

from kernos.kernel.config import Config
from kernos.kernel.devices.messages import Embed as EmbedCommand
from kernos.kernel.devices.messages import Embedded, Failed, Hello, Load, Loaded, LoadFailed, Optimized, Unload
from kernos.kernel.devices.modelstore import MANIFEST
from kernos.kernel.host import Delivery
from kernos.kernel.limits import BESIDE_SAVED_S, BESIDE_SHARE, RESTART_WINDOW_S, RESTARTS, RESUMES
from kernos.syscalls.errors import ConflictError, DeviceError, ModelUnavailableError, NotFoundError
from kernos.syscalls.model import CountTokens, Embed, Generate, ListModels, LoadModel, Message, UnloadModel
from kernos.syscalls.process import Priority
from kernos.syscalls.system import Cancel, GetStatus, Ping
from tests.kernel.fakes import App, World, make_world, tiny_model, tokens_of

ASK = Generate(model="tiny", messages=[Message("user", "hi")])
TEXT = Embed(model="tiny-encoder", texts=["ab"])


@pytest.fixture
def cold(tmp_path: Path, tiny_store: Path) -> World:
    """Models are there and no device is up yet."""
    return make_world(tmp_path, store=tiny_store)


@pytest.fixture
def agent(cold: World) -> App:
    return cold.connect("app:shop").spawn()


def states(world: World) -> dict[str, str]:
    models = world.connect("app:any").call(ListModels()).models
    return {model.name: model.state for model in models}


def devices(world: World) -> dict[str, tuple[str, int]]:
    return {row.device: (row.state, row.restarts) for row in world.connect("app:any").call(GetStatus()).devices}


def give_up(world: World, server: str = "decoder") -> None:
    for _ in range(RESTARTS + 1):
        world.died(server)


class TestLoading:
    def test_a_model_is_loaded_when_it_is_first_needed(self, cold: World, agent: App) -> None:
        assert states(cold) == {"tiny": "stored", "tiny-encoder": "stored"}
        cold.up()
        assert cold.commands(Load) == []
        agent.send(ASK)
        (load,) = cold.commands(Load)
        assert (load.model, load.kind, load.dtype, load.slots) == ("tiny", "decoder", "auto", cold.system.config.slots)
        assert states(cold)["tiny"] == "loading"
        cold.loaded("tiny")
        assert states(cold)["tiny"] == "ready"

    def test_a_model_that_is_wanted_early_is_loaded_when_the_device_is_up(self, cold: World, agent: App) -> None:
        sent = agent.send(ASK)
        assert cold.host.commands == []
        cold.up("decoder")
        cold.step((cold.begun().seq, tokens_of("x"), "stop"))
        assert sent.result().text == "x"

    def test_it_is_asked_for_once(self, cold: World, agent: App) -> None:
        cold.up()
        for _ in range(3):
            agent.send(ASK)
        assert len(cold.commands(Load)) == 1

    def test_load_waits_until_it_is_ready(self, cold: World, agent: App) -> None:
        cold.up()
        calls = [agent.send(LoadModel(model="tiny")) for _ in range(2)]
        assert all(call.open for call in calls)
        cold.loaded("tiny")
        assert [call.result().state for call in calls] == ["ready", "ready"]
        assert agent.call(LoadModel(model="tiny")).state == "ready"
        assert len(cold.commands(Load)) == 1

    def test_encoders_are_always_loaded_exactly(self, cold: World, agent: App) -> None:
        cold.up()
        agent.send(LoadModel(model="tiny-encoder"))
        assert [(load.dtype, load.kind) for load in cold.commands(Load)] == [("float32", "encoder")]

    def test_a_load_that_is_cancelled_loads_all_the_same(self, cold: World, agent: App) -> None:
        cold.up()
        call = agent.send(LoadModel(model="tiny"))
        agent.call(Cancel(id=call.id))
        cold.loaded("tiny")
        assert states(cold)["tiny"] == "ready"

    def test_a_model_that_cannot_be_loaded(self, cold: World, agent: App) -> None:
        cold.up()
        load, turn = agent.send(LoadModel(model="tiny")), agent.send(ASK)
        cold.report("decoder", LoadFailed("tiny", "the weights are torn"))
        for sent in (load, turn):
            assert isinstance(sent.error(), ModelUnavailableError)
            assert "the weights are torn" in sent.error().message
        assert isinstance(agent.refused(ASK), ModelUnavailableError)
        (model,) = [row for row in agent.call(ListModels()).models if row.name == "tiny"]
        assert (model.state, model.reason) == ("failed", "the weights are torn")

    def test_a_failed_model_can_be_tried_again(self, cold: World, agent: App) -> None:
        cold.up()
        agent.send(LoadModel(model="tiny"))
        cold.report("decoder", LoadFailed("tiny", "torn"))
        call = agent.send(LoadModel(model="tiny"))
        cold.loaded("tiny")
        assert call.result().state == "ready"

    def test_an_unknown_model(self, agent: App) -> None:
        for call in (LoadModel(model="huge"), UnloadModel(model="huge"), CountTokens(model="huge", text="x")):
            assert isinstance(agent.refused(call), NotFoundError)


class TestUnloading:
    def test_a_ready_model(self, cold: World, agent: App) -> None:
        cold.up()
        agent.send(LoadModel(model="tiny"))
        cold.loaded("tiny")
        agent.call(UnloadModel(model="tiny"))
        assert cold.commands(Unload) == [Unload("tiny")]
        assert states(cold)["tiny"] == "stored"
        sent = agent.send(ASK)
        assert len(cold.commands(Load)) == 2
        cold.loaded("tiny")
        cold.step((cold.begun().seq, tokens_of("x"), "stop"))
        assert sent.result().text == "x"

    def test_not_while_turns_run_or_wait(self, cold: World, agent: App) -> None:
        agent.send(ASK)
        assert isinstance(agent.refused(UnloadModel(model="tiny")), ConflictError)

    def test_not_while_it_is_being_loaded(self, cold: World, agent: App) -> None:
        cold.up()
        agent.send(LoadModel(model="tiny"))
        assert isinstance(agent.refused(UnloadModel(model="tiny")), ConflictError)
        cold.loaded("tiny")
        assert states(cold)["tiny"] == "ready"

    def test_not_while_batches_are_on_their_way(self, cold: World, agent: App) -> None:
        cold.up()
        agent.send(LoadModel(model="tiny-encoder"))
        cold.loaded("tiny-encoder")
        agent.send(Embed(model="tiny-encoder", texts=["x"]))
        cold.host.work()
        assert isinstance(agent.refused(UnloadModel(model="tiny-encoder")), ConflictError)

    def test_loading_twice_at_once(self, cold: World, agent: App) -> None:
        cold.up()
        agent.send(LoadModel(model="tiny"))
        agent.send(UnloadModel(model="tiny"))
        sent = agent.send(ASK)
        for _ in cold.commands(Load):
            cold.loaded("tiny")
        cold.step((cold.begun().seq, tokens_of("x"), "stop"))
        assert sent.result().text == "x"


class TestCrashes:
    def test_a_server_is_started_again_and_loads_what_was_loaded(self, cold: World, agent: App) -> None:
        cold.up()
        agent.send(LoadModel(model="tiny"))
        cold.loaded("tiny")
        cold.died()
        assert devices(cold)["decoder"] == ("restarting", 1)
        assert states(cold)["tiny"] == "loading"
        assert cold.host.started == ["decoder", "encoder", "decoder"]
        cold.up("decoder")
        assert devices(cold)["decoder"] == ("up", 1)
        assert states(cold)["tiny"] == "ready"

    def test_the_other_server_does_not_notice(self, cold: World) -> None:
        cold.up()
        cold.died("decoder")
        assert devices(cold)["encoder"] == ("up", 0)

    def test_crashes_far_apart_are_forgiven(self, cold: World) -> None:
        for _ in range(20):
            cold.died()
            cold.host.advance(RESTART_WINDOW_S)
        assert devices(cold)["decoder"][0] == "restarting"

    def test_too_many_and_everything_is_refused_clearly(self, cold: World, agent: App) -> None:
        cold.up()
        turn = agent.send(ASK)
        load = agent.send(LoadModel(model="tiny"))
        give_up(cold)
        assert devices(cold)["decoder"] == ("failed", RESTARTS + 1)
        for error in (turn.error(), load.error(), agent.refused(ASK)):
            assert isinstance(error, ModelUnavailableError)
            assert "died 4 times in 10 s" in error.message
        assert cold.host.started.count("decoder") == 1 + RESTARTS

    def test_load_revives(self, cold: World, agent: App) -> None:
        cold.up()
        agent.send(ASK)
        give_up(cold)
        load = agent.send(LoadModel(model="tiny"))
        assert cold.host.started.count("decoder") == 2 + RESTARTS
        assert devices(cold)["decoder"][0] == "starting"
        cold.up("decoder")
        assert load.result().state == "ready"
        sent = agent.send(ASK)
        cold.step((cold.begun().seq, tokens_of("x"), "stop"))
        assert sent.result().text == "x"
        for _ in range(RESTARTS):
            cold.died()
        assert devices(cold)["decoder"][0] == "restarting", "the old crashes are forgiven"

    def test_a_model_that_was_only_stored_when_its_server_was_given_up(self, cold: World, agent: App) -> None:
        cold.up()
        give_up(cold)
        assert isinstance(agent.refused(ASK), ModelUnavailableError)
        sent = agent.send(LoadModel(model="tiny"))
        cold.up("decoder")
        assert sent.result().state == "ready"

    def test_the_mode_that_serves_is_shown(self, cold: World, agent: App) -> None:
        cold.up()
        agent.send(LoadModel(model="tiny"))
        cold.report("decoder", Loaded("tiny", "decoder", 0.1, 1, 256, 4, mode="eager"))
        cold.report("decoder", Optimized("tiny", "compiled", 1))
        cold.report("decoder", Optimized("removed", "compiled", 1))
        shown = {model.name: (model.state, model.mode) for model in agent.call(ListModels()).models}
        assert shown == {"tiny": ("ready", "compiled"), "tiny-encoder": ("stored", "")}

    def test_reports_about_models_that_are_no_more(self, cold: World) -> None:
        cold.up()
        cold.report("decoder", LoadFailed("removed", "gone"))
        cold.report("decoder", Loaded("removed", "decoder", 0.1, 1, 256, 4))


class TestStore:
    def test_a_model_pulled_later_is_found(self, tmp_path: Path) -> None:
        world = make_world(tmp_path)
        agent = world.connect("app:shop").spawn()
        assert isinstance(agent.refused(ASK), NotFoundError)
        tiny_model(tmp_path / "models", "tiny")
        assert agent.send(ASK).open

    def test_a_model_removed_is_forgotten(self, tmp_path: Path) -> None:
        folder = tiny_model(tmp_path / "store", "tiny")
        world = make_world(tmp_path, store=tmp_path / "store")
        (folder / MANIFEST).unlink()
        assert states(world) == {}

    def test_defaults(self, tmp_path: Path, tiny_store: Path) -> None:
        world = make_world(tmp_path / "a", store=tiny_store)
        models = world.connect("app:x").call(ListModels())
        assert (models.decoder, models.encoder) == ("tiny", "tiny-encoder")
        chosen = make_world(tmp_path / "b", store=tiny_store, config=Config(decoder="other"))
        assert chosen.connect("app:x").call(ListModels()).decoder == "other"
        empty = make_world(tmp_path / "c").connect("app:x").call(ListModels())
        assert (empty.models, empty.decoder, empty.encoder) == ([], "", "")

    def test_a_damaged_model_hides_no_other(self, tmp_path: Path) -> None:
        tiny_model(tmp_path / "store", "good")
        (tiny_model(tmp_path / "store", "bad") / MANIFEST).write_text("{", "utf-8")
        world = make_world(tmp_path, store=tmp_path / "store")
        assert states(world)["good"] == "stored"

    def test_counting_needs_no_device(self, cold: World, agent: App) -> None:
        assert agent.call(CountTokens(model="tiny", text="five!")).tokens == 5
        assert agent.call(CountTokens(model="tiny-encoder", text="x" * 99)).tokens == 99


class TestEmbeds:
    @pytest.fixture
    def warm(self, cold: World, agent: App) -> World:
        cold.up()
        agent.send(LoadModel(model="tiny-encoder"))
        cold.loaded("tiny-encoder")
        return cold

    def done(self, world: World, batch: EmbedCommand) -> None:
        world.report("encoder", Embedded(batch.batch, 2, bytes(8 * len(batch.inputs))))

    def test_a_batch(self, warm: World, agent: App) -> None:
        sent = agent.send(Embed(model="tiny-encoder", texts=["ab", "c" * 40]))
        warm.host.work()
        (batch,) = warm.commands(EmbedCommand)
        assert batch.inputs == [tokens_of("ab"), tokens_of("c" * 16)], "cut at the window"
        self.done(warm, batch)
        reply = sent.result()
        assert (reply.count, reply.dim, len(reply.data)) == (2, 2, 16)
        assert not warm.system.embeds.batches

    def test_it_waits_for_the_model(self, cold: World, agent: App) -> None:
        sent = agent.send(Embed(model="tiny-encoder", texts=["ab"]))
        cold.host.work()
        assert cold.commands(EmbedCommand) == []
        cold.up("encoder")
        self.done(cold, cold.commands(EmbedCommand)[0])
        assert sent.result().count == 1

    def test_it_is_sent_again_after_a_crash(self, warm: World, agent: App) -> None:
        sent = agent.send(Embed(model="tiny-encoder", texts=["ab"]))
        warm.host.work()
        warm.died("encoder")
        warm.up("encoder")
        first, second = warm.commands(EmbedCommand)
        assert first == second
        self.done(warm, second)
        self.done(warm, second)  # a late twin
        assert sent.result().count == 1

    def test_so_often_and_no_more(self, warm: World, agent: App) -> None:
        sent = agent.send(Embed(model="tiny-encoder", texts=["ab"]))
        warm.host.work()
        for _ in range(RESUMES + 1):
            assert sent.open
            warm.died("encoder")
            warm.host.advance(60.0)
            warm.up("encoder")
        assert isinstance(sent.error(), DeviceError)

    def test_a_batch_that_fails(self, warm: World, agent: App) -> None:
        sent = agent.send(Embed(model="tiny-encoder", texts=["ab"]))
        warm.host.work()
        warm.report("encoder", Failed("out of memory", batch=1))
        assert "out of memory" in sent.error().message

    def test_a_cancelled_batch(self, warm: World, agent: App) -> None:
        early, late = (agent.send(Embed(model="tiny-encoder", texts=["ab"])) for _ in range(2))
        agent.send(Cancel(id=early.id))
        warm.host.work()
        agent.send(Cancel(id=late.id))
        assert not warm.system.embeds.batches
        warm.report("encoder", Embedded(1, 2, bytes(8)))

    def test_an_encoder_given_up(self, warm: World, agent: App) -> None:
        sent = agent.send(Embed(model="tiny-encoder", texts=["ab"]))
        warm.host.work()
        give_up(warm, "encoder")
        assert isinstance(sent.error(), ModelUnavailableError)

    def test_an_encoder_given_up_while_the_texts_are_tokenized(self, warm: World, agent: App) -> None:
        sent = agent.send(Embed(model="tiny-encoder", texts=["ab"]))
        give_up(warm, "encoder")
        warm.host.work()
        assert isinstance(sent.error(), ModelUnavailableError)

    def test_an_encoder_given_up_with_a_client_that_is_gone(self, warm: World, agent: App) -> None:
        for _ in range(2):
            agent.send(Embed(model="tiny-encoder", texts=["ab"]))
        warm.host.work()
        warm.host.deliver = lambda client: Delivery.GONE if client is agent.client else Delivery.SENT
        give_up(warm, "encoder")
        assert not warm.system.embeds.batches
        warm.connect("app:other").call(Ping())


class TestBeside:
    """Texts of the class `normal` beside turns of the class `interactive`, on one device; a piece takes all that is saved up."""

    @pytest.fixture
    def agent(self, cold: World) -> App:
        cold.up()
        agent = cold.connect("app:shop").spawn()
        for model in ("tiny", "tiny-encoder"):
            agent.send(LoadModel(model=model))
            cold.loaded(model)
        return agent

    def pieces(self, world: World) -> int:
        """How many were sent."""
        world.host.work()
        return len(world.commands(EmbedCommand))

    def done(self, world: World, seconds: float = BESIDE_SAVED_S + 0.1) -> None:
        batch = world.commands(EmbedCommand)[-1]
        world.report("encoder", Embedded(batch.batch, 2, bytes(8 * len(batch.inputs)), seconds))

    def talk(self, world: World) -> int:
        """Let an answer to a person be decoded; its sequence."""
        world.connect("app:shop").spawn(priority="interactive").send(ASK)
        return world.begun().seq

    def test_they_wait_when_their_share_is_used_up_and_no_longer(self, cold: World, agent: App) -> None:
        seq = self.talk(cold)
        for _ in range(2):
            agent.send(TEXT)
        assert self.pieces(cold) == 1, "there was something saved up"
        self.done(cold)
        assert self.pieces(cold) == 1
        cold.step((seq, tokens_of("a"), ""))
        cold.host.advance(0.1 / BESIDE_SHARE - 0.01)
        assert self.pieces(cold) == 1, "the answer goes on"
        cold.host.advance(0.02)
        assert self.pieces(cold) == 2, "it is not starved, though no step is made any more"

    def test_two_classes_less_urgent_get_half_the_share(self, cold: World, agent: App) -> None:
        seq = self.talk(cold)
        for _ in range(2):
            cold.connect("app:shop").spawn(priority="batch").send(TEXT)
        assert self.pieces(cold) == 1
        self.done(cold, BESIDE_SAVED_S / 2 + 0.1)
        cold.step((seq, tokens_of("a"), ""))
        cold.host.advance(0.2 / BESIDE_SHARE - 0.01)
        assert self.pieces(cold) == 1
        cold.host.advance(0.02)
        assert self.pieces(cold) == 2

    def test_they_go_on_when_nobody_more_urgent_is_decoded(self, cold: World, agent: App) -> None:
        seq = self.talk(cold)
        for _ in range(2):
            agent.send(TEXT)
        cold.host.work()
        self.done(cold)
        cold.step((seq, tokens_of("a"), "stop"))
        assert self.pieces(cold) == 2
        self.done(cold)
        agent.send(TEXT)
        assert self.pieces(cold) == 3, "an idle device is there for whoever wants it"

    def test_a_decoder_that_died_is_not_waited_for(self, cold: World, agent: App) -> None:
        self.talk(cold)
        for _ in range(2):
            agent.send(TEXT)
        cold.host.work()
        self.done(cold)
        cold.died("decoder")
        cold.host.advance(0.1 / BESIDE_SHARE + 0.01)
        assert self.pieces(cold) == 2

    @pytest.mark.parametrize(("texts", "turns"), [("interactive", "interactive"), ("normal", "batch"), ("interactive", "normal")])
    def test_equals_and_the_more_urgent_do_not_wait(self, cold: World, agent: App, texts: Priority, turns: Priority) -> None:
        cold.connect("app:shop").spawn(priority=turns).send(ASK)
        reader = cold.connect("app:news").spawn(priority=texts)
        for number in range(1, 4):
            reader.send(TEXT)
            assert self.pieces(cold) == number
            self.done(cold)

    def test_a_device_of_their_own_is_all_theirs(self, tmp_path: Path, tiny_store: Path) -> None:
        world = make_world(tmp_path, store=tiny_store, config=Config(device="cuda:0"))
        world.up()
        agent = world.connect("app:shop").spawn()
        for model in ("tiny", "tiny-encoder"):
            agent.send(LoadModel(model=model))
            world.loaded(model)
        self.talk(world)
        for number in range(1, 4):
            agent.send(TEXT)
            assert self.pieces(world) == number
            self.done(world)


def test_slots_shown_are_those_that_can_be_used(cold: World, agent: App) -> None:
    cold.up()
    agent.send(ASK)
    cold.loaded("tiny")
    (row,) = [row for row in agent.call(GetStatus()).devices if row.device == "decoder"]
    assert (row.rows, row.slots) == (1, cold.system.config.slots)


def test_manifests_of_the_tiny_models_are_real(tiny_store: Path) -> None:
    """They are read back by the same code, so that these tests stay honest."""
    assert msgspec.json.decode((tiny_store / "tiny" / MANIFEST).read_bytes())["name"] == "tiny"


def test_hello_of_a_server(cold: World) -> None:
    cold.report("decoder", Hello("cuda:0", 7, "H100", 4))
    (row,) = [row for row in cold.connect("app:x").call(GetStatus()).devices if row.device == "decoder"]
    assert (row.state, row.accelerator) == ("up", "H100")
