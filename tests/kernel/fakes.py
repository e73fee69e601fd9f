"""A world for the kernel without sockets, clock, threads or devices: everything in it moves by hand.

world = make_world(tmp_path)
app = world.connect("app:shop")
agent = app.spawn("greeter")
agent.call(Ping())
"""

import functools
import heapq
import itertools
import os
import random
import struct
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from hypothesis import HealthCheck, settings
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from kernos.kernel.boot import install_policies, make_folders
from kernos.kernel.config import Config
from kernos.kernel.devices import messages
from kernos.kernel.devices.messages import AnyCommand, AnyReport, Begin, Kind, Load
from kernos.kernel.devices.modelstore import MANIFEST, Manifest
from kernos.kernel.gate import Gate
from kernos.kernel.host import Client, Delivery
from kernos.kernel.law import Law, enforced
from kernos.kernel.memory.connection import Connection
from kernos.kernel.memory.database import NAME, Database, open_database, storage_key
from kernos.kernel.security.generations import Generations
from kernos.kernel.security.identity import Identities
from kernos.kernel.security.policy import Policy, load_policy
from kernos.kernel.system import System
from kernos.syscalls.call import Call
from kernos.syscalls.errors import KernosError, raised
from kernos.syscalls.places import Places
from kernos.syscalls.process import Priority, Spawn
from kernos.syscalls.table import ROWS
from kernos.syscalls.wire import Kind as MessageKind
from kernos.syscalls.wire import RequestHeader, decode_error, decode_reply_header, encode_request

T = TypeVar("T")
R = TypeVar("R")

ADMIN: Final = "admin:root"
START: Final = 1_000.0
EPOCH: Final = 1_700_000_000.0


def examples(few: int) -> settings:
    """As many examples as are quick, always the same ones; `KERNOS_PROVE=1` runs 10,000."""
    prove = bool(os.environ.get("KERNOS_PROVE"))
    slow = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much]
    return settings(max_examples=10_000 if prove else few, derandomize=not prove, database=None, deadline=None, suppress_health_check=slow)


# --- the world ---------------------------------------------------------------------------------------------------------------------


class FakeTimer:
    """An entry of the fake clock."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.act: Callable[[], None] | None = act

    def cancel(self) -> None:
        self.act = None


class FakeHost:
    """A `Host` in memory. Threads' work waits until `work`, timers until `advance`."""

    def __init__(self) -> None:
        self.now = START
        self.clients = 0
        self.sent: list[tuple[Client, tuple[bytes, bytes]]] = []
        self.deliver: Callable[[Client], Delivery] = lambda _: Delivery.SENT
        self.commands: list[tuple[str, AnyCommand]] = []
        self.started: list[str] = []
        self.killed: list[int] = []
        self.programs_gone: set[int] = set()
        self.watched: list[int] = []
        self.stopped = False
        self.timers: list[tuple[float, int, FakeTimer]] = []
        self.offloaded: list[Callable[[], object]] = []
        self._counter = itertools.count()

    @property
    def clock(self) -> float:
        return EPOCH + self.now

    def send(self, client: Client, frames: tuple[bytes, bytes]) -> Delivery:
        delivery = self.deliver(client)
        if delivery is Delivery.SENT:
            self.sent.append((client, frames))
        return delivery

    def command(self, server: str, command: AnyCommand) -> None:
        self.commands.append((server, command))

    def start_device(self, server: str) -> int:
        self.started.append(server)
        return 50_000 + len(self.started)

    def watch_program(self, os_pid: int, start_time: int) -> bool:
        self.watched.append(os_pid)
        return os_pid not in self.programs_gone

    def at(self, when: float, act: Callable[[], None]) -> FakeTimer:
        timer = FakeTimer(act)
        heapq.heappush(self.timers, (when, next(self._counter), timer))
        return timer

    def offload(self, work: Callable[[], T], then: Callable[[T | Exception], object]) -> None:
        def run() -> None:
            result: T | Exception
            try:
                result = work()
            except Exception as error:
                result = error
            then(result)

        self.offloaded.append(run)

    def post(self, act: Callable[[], object]) -> None:
        self.offloaded.append(act)

    def stop(self) -> None:
        self.stopped = True

    def work(self) -> None:
        """Let the threads finish."""
        while self.offloaded:
            self.offloaded.pop(0)()

    def advance(self, seconds: float) -> None:
        """Let time pass, and what is due happen."""
        until = self.now + seconds
        while self.timers and self.timers[0][0] <= until:
            when, _, timer = heapq.heappop(self.timers)
            self.now = max(self.now, when)
            if timer.act is not None:
                timer.act()
        self.now = until


class FakeDisk:
    """A `Disk` without threads: jobs and queries wait until `FakeHost.work`. The database is real, and opened when first used."""

    def __init__(self, host: FakeHost, folder: Path) -> None:
        self.host = host
        self.folder = folder
        self.failure: Exception | None = None
        """Raised by the next commits."""

    @functools.cached_property
    def database(self) -> Database:
        return open_database(self.folder, storage_key(self.folder))

    def write(self, job: Callable[[Connection], T], then: Callable[[T | Exception], object], *, erases: bool = False) -> None:
        self.host.offload(lambda: self._carry_out(job), then)

    def read(self, query: Callable[[Connection], T], then: Callable[[T | Exception], object]) -> None:
        self.host.offload(lambda: query(self.database.connection), then)

    def close(self) -> None:
        self.database.close()

    def _carry_out(self, job: Callable[[Connection], T]) -> T:
        connection = self.database.connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            result = job(connection)
            if self.failure is not None:
                raise self.failure
            self.database.commit()
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        return result


@dataclass(frozen=True)
class Answer:
    """A message of the kernel to a client."""

    id: int
    kind: int
    body: bytes


@dataclass
class World:
    """A system, its gate and its host."""

    system: System
    gate: Gate
    host: FakeHost
    disk: FakeDisk
    _ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _os_pids: Iterator[int] = field(default_factory=lambda: itertools.count(20_000))

    def connect(self, principal: str, *, control: bool = False) -> "App":
        """A new connection, of a program of its own."""
        os_pid = next(self._os_pids)
        self.host.clients += 1
        holder = self.system.identities.holder(self.system.identities.enrolled.get(principal, ""))
        return App(self, Client(str(os_pid).encode(), principal, os_pid, control, badge=holder.badge if holder else ""))

    def next_id(self) -> int:
        return next(self._ids)

    def answers(self, client: Client) -> list[Answer]:
        """All that was sent to a client."""
        found = []
        for to, (header, body) in self.host.sent:
            if to is client:
                head = decode_reply_header(header)
                found.append(Answer(head.id, head.kind, body))
        return found

    # --- the fake devices

    def report(self, server: str, report: AnyReport) -> None:
        """A device server says something."""
        self.system.fleet.report(server, report)
        self.system.scheduler.check()

    def up(self, *servers: str) -> None:
        """Let device servers come up and load what the kernel wants of them."""
        for server in servers or ("decoder", "encoder"):
            seen = len(self.host.commands)
            self.report(server, messages.Hello(f"device:{server}", 1, "cpu", 1))
            for _, command in self.host.commands[seen:]:
                if isinstance(command, Load):
                    self.loaded(command.model)

    def loaded(self, model: str) -> None:
        """The device has loaded a model."""
        manifest = self.system.registry.entries[model].manifest
        self.report(manifest.kind, messages.Loaded(model, manifest.kind, 0.1, 1, manifest.window, manifest.dim))

    def died(self, server: str = "decoder", code: int = -9) -> None:
        self.system.fleet.died(server, code)
        self.system.scheduler.check()

    def step(self, *outputs: tuple[int, list[int], messages.Finish]) -> None:
        """The decoder has made a step, and what follows from it is done."""
        rows = [messages.Output(seq, tokens, 0, finish) for seq, tokens, finish in outputs]
        self.report("decoder", messages.Stepped(rows, 0.01, len(rows)))
        self.host.work()

    def embed(self) -> None:
        """The encoder embeds all that it is sent; the same text has the same vector, another text one of its own."""
        self.host.work()
        while self.system.embeds.batches:
            piece = self.commands(messages.Embed)[-1]
            vectors = b"".join(_vector(tokens) for tokens in piece.inputs)
            self.report("encoder", messages.Embedded(piece.batch, 4, vectors))
            self.host.work()

    def commands(self, kind: type[R]) -> list[R]:
        """All commands of a kind that were sent to devices."""
        return [command for _, command in self.host.commands if isinstance(command, kind)]

    def begun(self) -> Begin:
        """The last sequence that was started."""
        return self.commands(Begin)[-1]


@dataclass
class App:
    """A client's end of a connection, speaking as one agent of its principal."""

    world: World
    client: Client
    pid: int = 0

    def send(
        self, call: Call[Any], *, stream: bool = False, timeout_ms: int | None = None, key: str | None = None, id_: int | None = None
    ) -> "Sent":
        """Make a call and do not wait."""
        header = RequestHeader(id_ if id_ is not None else self.world.next_id(), self.pid, stream, timeout_ms, key)
        before = len(self.world.answers(self.client))
        self.frames(encode_request(header, call))
        return Sent(self, header.id, call, before)

    def frames(self, frames: Sequence[bytes]) -> None:
        """Send anything."""
        self.world.gate.receive(self.client, frames)
        self.world.system.scheduler.check()

    def call(self, call: Call[R], *, timeout_ms: int | None = None, key: str | None = None) -> R:
        """Make a call that is answered at once, or by a thread."""
        sent = self.send(call, timeout_ms=timeout_ms, key=key)
        self.world.host.work()
        result: R = sent.result()
        return result

    def refused(self, call: Call[Any], **options: Any) -> KernosError:
        """Make a call that must fail at once; its error."""
        sent = self.send(call, **options)
        self.world.host.work()
        return sent.error()

    def spawn(self, name: str = "agent", *, user: str | None = None, priority: Priority = "normal") -> "App":
        return App(self.world, self.client, self.call(Spawn(name=name, user=user, priority=priority)).pid)

    def agent(self, pid: int) -> "App":
        return App(self.world, self.client, pid)


@dataclass(frozen=True)
class Sent:
    """A call on its way."""

    app: App
    id: int
    made: Call[Any]
    before: int

    @property
    def answers(self) -> list[Answer]:
        """What came for it since it was made."""
        return [answer for answer in self.app.world.answers(self.app.client)[self.before :] if answer.id == self.id]

    @property
    def open(self) -> bool:
        return not [answer for answer in self.answers if answer.kind in (MessageKind.REPLY, MessageKind.ERROR)]

    @property
    def events(self) -> list[Any]:
        decoder = ROWS[type(self.made)].event_decoder
        return [decoder.decode(answer.body) for answer in self.answers if answer.kind == MessageKind.EVENT]

    def last(self) -> Answer:
        """The one last word on it."""
        words = [answer for answer in self.answers if answer.kind in (MessageKind.REPLY, MessageKind.ERROR)]
        assert len(words) == 1, f"{ROWS[type(self.made)].name} was answered {len(words)} times"
        return words[0]

    def result(self) -> Any:
        """The reply, or its error raised."""
        last = self.last()
        if last.kind == MessageKind.ERROR:
            raise raised(decode_error(last.body))
        return ROWS[type(self.made)].reply_decoder.decode(last.body)

    def error(self) -> KernosError:
        """The error."""
        last = self.last()
        assert last.kind == MessageKind.ERROR, f"{ROWS[type(self.made)].name} was carried out"
        return raised(decode_error(last.body))


# --- builders ----------------------------------------------------------------------------------------------------------------------


def make_places(home: Path, store: Path | None = None) -> Places:
    """The folders of an installation, made."""
    where = Places(home / "config", home / "state", store or home / "models", home / "run")
    make_folders(where)
    return where


def make_policy(folder: Path, text: str, *, model: str | None = None) -> Path:
    """A policy folder with the shipped model and one file, whose last line is added."""
    shipped = Path(__file__).parents[2] / "policies"
    (folder / "policy.d").mkdir(parents=True)
    (folder / "model.conf").write_text(model or (shipped / "model.conf").read_text("utf-8"), "utf-8")
    (folder / "policy.d" / "50-test.csv").write_bytes(f"{text}# end\n".encode())
    return folder


OPEN_POLICY: Final = """\
p, role:admin, **, *, allow
p, app:*, **, *, allow
p, user:*, **, *, allow
g, admin:root, role:admin
"""
"""For tests of what is behind the policy. `app:*` may do everything, so what is refused is refused by something else."""

_policies: dict[str, Policy] = {}


def make_world(
    home: Path,
    *,
    policy: str | None = OPEN_POLICY,
    store: Path | None = None,
    config: Config | None = None,
    gone: Collection[int] = (),
    started: float = START,
) -> World:
    """A kernel at rest; `policy` None: the shipped policies. It finds what another left in this home; `gone` are programs that ended."""
    where = make_places(home, store)
    if policy is None:
        law = enforced(install_policies(where, ADMIN, EPOCH))
    else:
        if policy not in _policies:  # a snapshot never changes, so worlds can share it
            _policies[policy] = load_policy(make_policy(home / "law", policy))
        law = Law(_policies[policy], Generations(where.config / "policies"), None)
    host = FakeHost()
    host.now = started
    host.programs_gone.update(gone)
    disk = FakeDisk(host, where.state)
    system = System(host, where, config or Config(), law, Identities(where.state / "principals"), disk, 1.0)
    world = World(system, Gate(system), host, disk)
    if (where.state / NAME).exists():
        system.recover(disk.database.connection)
    system.fleet.start()
    return world


BYTES: Final = pre_tokenizers.ByteLevel.alphabet
"""One character per byte; sorted, they are the vocabulary of the tiny models."""

END: Final = "<|end|>"

CHAT: Final = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"


def tiny_tokenizer() -> Tokenizer:
    """A token per byte, and one that ends a turn."""
    vocabulary = {symbol: number for number, symbol in enumerate(sorted(BYTES()))}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END])
    return tokenizer


def tiny_model(store: Path, name: str, kind: Kind = "decoder", *, window: int = 256, template: str = CHAT) -> Path:
    """A model folder as far as the kernel looks into one."""
    folder = store / name
    folder.mkdir(parents=True)
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(template, "utf-8")
    manifest = Manifest(
        name=name,
        kind=kind,
        architecture="tiny",
        source="here",
        window=window,
        dim=4,
        vocab=257,
        eos=[256],
        eos_token=END,
        bytes=1,
        sha256="0",
        created="2026-11-23T00:00:00Z",
    )
    (folder / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    return folder


def tokens_of(text: str) -> list[int]:
    """The tokens of the tiny models."""
    return list(_tiny().encode(text, add_special_tokens=False).ids)


def _vector(tokens: list[int]) -> bytes:
    numbers = [random.Random(f"{tokens}{n}").gauss() for n in range(4)]
    length = sum(number * number for number in numbers) ** 0.5
    return struct.pack("<4f", *(number / length for number in numbers))


@functools.cache
def _tiny() -> Tokenizer:
    return tiny_tokenizer()


def byte_token(value: int) -> int:
    """The token of a byte, be it valid UTF-8 or not."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    # As GPT-2 writes bytes: printable ones as themselves, the others from U+0100 on.
    symbol = chr(value) if value in printable else chr(0x100 + sum(1 for other in range(value) if other not in printable))
    found = _tiny().token_to_id(symbol)
    assert found is not None
    return found
