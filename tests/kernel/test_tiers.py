"""KV pages in three tiers, as the kernel orders them, on a device that looks into every page it is given (`paged.py`)."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernos.kernel.config import Config
from kernos.kernel.devices.messages import PAGE, Copy, Hello
from kernos.kernel.limits import QUANTUM_TOKENS
from kernos.syscalls.model import Generate, Message
from kernos.syscalls.process import SendSignal
from tests.kernel.fakes import App, Sent, examples, make_world, tiny_model
from tests.kernel.paged import PagedDevice, answer_to

SMALL = Config(slots=2, kv_pages=6, host_pages=20, disk_pages=60)


class Machine:
    """A kernel, its device, and agents of two apps that ask."""

    def __init__(self, home: Path, store: Path, config: Config) -> None:
        self.world = make_world(home, store=store, config=config)
        self.world.up()
        self.device = PagedDevice(self.world, "tiny")
        self.device.load()
        self.apps = [self.world.connect("app:shop"), self.world.connect("app:bank")]
        self.agents: list[App] = []
        self.asked: list[tuple[App, list[int], int, Sent]] = []

    def spawn(self, app: int) -> None:
        self.agents.append(self.apps[app].spawn())

    def ask(self, at: int, text: str, count: int) -> None:
        if not self.agents:
            self.spawn(at % 2)
        agent = self.agents[at % len(self.agents)]
        call = Generate(model="tiny", messages=[Message("user", text)], max_tokens=count, ignore_eos=True)
        sent = agent.send(call, stream=True)
        if sent.open:
            prompt = self.world.system.turns.answers[max(self.world.system.turns.answers)].prompt
            self.asked.append((agent, prompt, count, sent))
        self.device.obey()

    def signal(self, at: int, signal: Any) -> None:
        if self.agents:
            agent = self.agents[at % len(self.agents)]
            self.apps[0 if agent.client is self.apps[0].client else 1].call(SendSignal(pid=agent.pid, signal=signal))
            if signal == "terminate":
                self.agents.remove(agent)
                self.asked = [entry for entry in self.asked if entry[0] is not agent]
            self.device.obey()

    def step(self, count: int) -> None:
        for _ in range(count):
            self.device.step()
            self.check()

    def arrive(self, at: int, well: bool) -> None:
        self.device.arrive(at, well=well)

    def crash(self) -> None:
        self.world.died()
        device = PagedDevice(self.world, "tiny", seen=len(self.world.host.commands))
        self.device = device
        self.world.report("decoder", Hello("device:decoder", 1, "cpu", 1))
        device.load()

    def pause(self, seconds: int) -> None:
        self.world.host.advance(float(seconds))

    def check(self) -> None:
        for lane in self.world.system.paging.lanes.values():
            lane.pool.check()
        self.world.system.scheduler.check()

    def finish(self) -> None:
        """Let everybody go on to the end: every answer is that of an undisturbed turn, and no page stays behind."""
        for agent in self.agents:
            self.apps[0 if agent.client is self.apps[0].client else 1].call(SendSignal(pid=agent.pid, signal="continue"))
        self.device.obey()
        for _ in range(5_000):
            if not self.world.system.turns.answers and not self.device.beside:
                break
            self.device.step()
            self.device.arrive()
        for _, prompt, count, sent in self.asked:
            assert sent.result().tokens == answer_to(prompt, count)
        assert not self.world.system.turns.answers, "a turn that nobody goes on with"
        while self.agents:
            self.signal(0, "terminate")
        self.check()
        paging = self.world.system.paging
        assert all(lane.pool.held(tier) == 0 for lane in paging.lanes.values() for tier in lane.pool.sizes)
        assert not paging.saving
        assert not paging.reading
        assert not paging.beginnings.computing
        assert not paging.beginnings.expecting


def texts() -> st.SearchStrategy[str]:
    return st.tuples(st.sampled_from("xy"), st.integers(0, 130), st.integers(0, 30)).map(lambda of: of[0] * of[1] + "z" * of[2])


number = st.integers(0, 9)
histories = st.lists(
    st.one_of(
        st.tuples(st.just("spawn"), st.integers(0, 1)),
        st.tuples(st.just("ask"), number, texts(), st.sampled_from([1, 5, 40, 100])),
        st.tuples(st.just("ask"), number, texts(), st.sampled_from([1, 5, 40, 100])),
        st.tuples(st.just("step"), st.integers(1, 40)),
        st.tuples(st.just("arrive"), number, st.sampled_from([True, True, True, False])),
        st.tuples(st.just("signal"), number, st.sampled_from(["stop", "continue", "terminate"])),
        st.tuples(st.just("pause"), st.sampled_from([1, 100])),
        st.tuples(st.just("crash")),
    ),
    max_size=40,
)


@pytest.fixture(scope="module")
def store() -> Any:
    with TemporaryDirectory() as folder:
        tiny_model(Path(folder), "tiny")
        yield Path(folder)


@examples(60)
@given(st.tuples(st.integers(0, 8), st.integers(0, 6), st.integers(0, 6)), histories)
def test_whatever_happens_no_answer_changes_and_no_page_is_lost(store: Path, sizes: tuple[int, int, int], history: list[Any]) -> None:
    with TemporaryDirectory() as home:
        config = Config(slots=2, kv_pages=sizes[0], host_pages=sizes[1], disk_pages=sizes[2])
        machine = Machine(Path(home), store, config)
        crashes = 0
        for name, *arguments in history:
            crashes += name == "crash"
            if name != "crash" or crashes <= 3:
                getattr(machine, name)(*arguments)
            machine.check()
        machine.finish()


@pytest.fixture
def machine(tmp_path: Path, store: Path) -> Machine:
    return Machine(tmp_path, store, SMALL)


def rotate(machine: Machine, agents: int, count: int, copy_steps: int = 1) -> None:
    """As many agents, each with a prompt of its own of two pages and a bit, until all are done; a copy takes so many steps."""
    for agent in range(agents):
        machine.spawn(0)
        machine.ask(agent, chr(97 + agent) * 100, count)
    for step in range(1_000):
        machine.step(1)
        if step % copy_steps == 0:
            machine.arrive(0, True)
    assert not machine.world.system.turns.answers


def test_more_agents_than_fit_on_the_device_come_back_by_copy(machine: Machine) -> None:
    rotate(machine, 14, 2 * QUANTUM_TOKENS)
    tiers = {(order.source, order.target) for order in machine.world.commands(Copy)}
    assert tiers == {("device", "host"), ("host", "disk"), ("disk", "host"), ("host", "device")}
    prompts = sum(len(prompt) for _, prompt, _, _ in machine.asked)
    resumes = machine.device.begun - len(machine.asked)
    assert resumes >= 5
    assert machine.device.computed <= prompts + resumes, "a turn that comes back computes its last token alone"
    machine.finish()


def test_pages_are_read_before_their_turn_comes(machine: Machine) -> None:
    rotate(machine, 14, 2 * QUANTUM_TOKENS)
    assert not machine.world.system.paging.reading
    up = [order for order in machine.world.commands(Copy) if order.source == "disk"]
    assert up
    machine.finish()


def test_a_slot_waits_for_pages_that_are_late(machine: Machine) -> None:
    for agent in range(14):
        machine.spawn(0)
        machine.ask(agent, chr(97 + agent) * 100, 2 * QUANTUM_TOKENS)
    for _ in range(1_000):
        if machine.world.system.paging.reading:
            break
        machine.step(1)
        if machine.device.beside and machine.device.beside[0].source == "host":
            machine.arrive(0, True)
    (waiting,) = list(machine.world.system.paging.reading.values())[:1]
    assert waiting.running
    while machine.device.beside:
        machine.arrive(0, True)
    assert waiting.id not in machine.world.system.paging.reading
    assert waiting.cached >= PAGE
    machine.finish()


def test_where_reading_is_slow_it_is_computed(machine: Machine) -> None:
    machine.world.system.paging.lanes["tiny"].costs.read_s = machine.device.page_s = 60.0
    rotate(machine, 14, 2 * QUANTUM_TOKENS, copy_steps=40)
    prompts = sum(len(prompt) for _, prompt, _, _ in machine.asked)
    assert machine.device.computed > prompts + 2 * PAGE
    machine.finish()
