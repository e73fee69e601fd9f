"""Ten thousand random and mutated messages from one client, while another one's calls stay correct and the kernel lives."""

import random
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest
import zmq

from benchmarks.kernel import RunningKernel
from kernos.syscalls import Call, Kernel, Key
from kernos.syscalls.bounds import MAX_MESSAGE_BYTES
from kernos.syscalls.context import AppendContext, OpenContext, ReadContext
from kernos.syscalls.model import CountTokens, Embed, Generate, ListModels, Message
from kernos.syscalls.places import read_connection
from kernos.syscalls.policy import Enroll, ExplainDecision, GetPolicy
from kernos.syscalls.process import Exit, GetUsage, Kill, ListProcesses, Nice, ReportCrash, SendSignal, SetLimits, Spawn, Wait
from kernos.syscalls.store import GetFile, ListFiles, PutFile
from kernos.syscalls.system import Cancel, GetStatus, Ping, Pong, StopKernel
from kernos.syscalls.tool import AnswerTool, CallTool, ListTools, ServeTool
from kernos.syscalls.transport import HANDSHAKE_S, Dealer
from kernos.syscalls.wire import Kind, RequestHeader, decode_error, decode_reply_header, encode

MESSAGES = 10_000
BATCH = 50
SEED = 20_261_123

HI = Message("user", "hi")
REQUESTS: list[Call[object]] = [
    Ping(payload=b"ping"),
    GetStatus(),
    Cancel(id=7),
    StopKernel(),
    Spawn(name="a", user="user:ann"),
    ListProcesses(scope="all"),
    Wait(pid=99),
    Exit(pid=99, code=3, reason="done"),
    SendSignal(pid=99, signal="stop"),
    Kill(pid=99),
    Nice(pid=99, priority="batch"),
    GetUsage(principal="user:ann"),
    SetLimits(principal="user:ann", limits={"turns": 1}),
    ReportCrash(app="fuzz", code=1),
    Generate(model="smollm2-135m", messages=[HI], max_tokens=2, stop=["x"], schema="{}", seed=1),
    Embed(model="minilm", texts=["text"]),
    CountTokens(model="smollm2-135m", text="text"),
    ListModels(),
    OpenContext(name="a"),
    AppendContext(context="c1", messages=[HI]),
    ReadContext(context="c1", start=1, limit=2),
    PutFile(path="a/b", data=b"data", expect=1),
    GetFile(path="a/b"),
    ListFiles(prefix="a"),
    ServeTool(tool="fuzz/t", description="d", schema="{}"),
    AnswerTool(invocation="i1", result="1"),
    CallTool(tool="fuzz/t", arguments="{}"),
    ListTools(prefix="f"),
    GetPolicy(),
    ExplainDecision(subject="app:a", object="model/x", action="generate"),
    Enroll(principal="app:x", public_key="x" * 40),
]

NASTY = (
    b"",
    b"\x00",
    b"\xc1",  # never used by msgpack
    b"\xdb\xff\xff\xff\xff",  # a string of 4 GB
    b"\xc6\xff\xff\xff\xff",  # as much in bytes
    b"\xdd\xff\xff\xff\xff",  # 4 G items
    b"\xdf\xff\xff\xff\xff\xa1",  # 4 G pairs
    b"\x91" * 100_000,  # lists in lists
    b"\x81\xa1k" * 50_000 + b"\xc0",  # maps in maps
    b"\x82\xa4call\xabsystem.ping\xa1x" + b"\x91" * 100_000,  # the same in a field that no one knows
    b"\x81\xa4call\xa4\xff\xfe\xfd\xfc",  # not UTF-8
    b"\x82\xa4call\xabsystem.ping\xa7payload\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00",  # NaN where bytes belong
    encode({"call": "system.nothing"}),
    encode({"call": 5}),
    encode({"payload": b"x"}),
    encode(["system.ping"]),
    encode({"call": "system.ping", "payload": "x" * 1_000}),
    encode({"call": "context.read", "context": "c1", "start": (1 << 64) - 1}),
    encode({"call": "process.report_crash", "app": "fuzz", "code": -(1 << 63)}),
)


class Mutator:
    """Messages by a seeded chance: most are requests with something wrong, some are noise, a few are sound."""

    def __init__(self, seed: int, pids: list[int]) -> None:
        self._random = random.Random(seed)
        self._pids = pids
        self._ways = (self._sound, self._cut, self._flipped, self._spliced, self._counted, self._nasty, self._noise, self._header)

    def message(self) -> list[bytes]:
        """The next message."""
        return self._random.choice(self._ways)()

    def _sound(self) -> list[bytes]:
        chance = self._random
        header = RequestHeader(chance.getrandbits(62), chance.choice(self._pids), chance.random() < 0.5, chance.choice((None, 1, 50)))
        return [encode(header), encode(chance.choice(REQUESTS))]

    def _cut(self) -> list[bytes]:
        return [frame[: self._random.randrange(len(frame) + 1)] for frame in self._sound()]

    def _flipped(self) -> list[bytes]:
        return [self._flip(frame) for frame in self._sound()]

    def _flip(self, frame: bytes) -> bytes:
        changed = bytearray(frame)
        for _ in range(self._random.randrange(4)):
            changed[self._random.randrange(len(changed))] ^= 1 << self._random.randrange(8)
        return bytes(changed)

    def _spliced(self) -> list[bytes]:
        (header, one), (_, other) = self._sound(), self._sound()
        at = self._random.randrange(len(one))
        return [header, one[:at] + other[self._random.randrange(len(other)) :]]

    def _counted(self) -> list[bytes]:
        frames = self._sound() * 20
        return frames[: self._random.choice((1, 3, 4, 40))]

    def _nasty(self) -> list[bytes]:
        return [self._sound()[0], self._random.choice(NASTY)]

    def _noise(self) -> list[bytes]:
        return [self._random.randbytes(self._random.randrange(200)) for _ in range(self._random.randrange(1, 4))]

    def _header(self) -> list[bytes]:
        values: tuple[object, ...] = (
            -1,
            0,
            1 << 63,
            (1 << 64) - 1,
            None,
            True,
            1.5,
            "x" * 100,
            b"x",
            [],
            {"a": [1]},
            "\ud7ff",
            float("nan"),
        )
        header = [self._random.choice(values) for _ in range(self._random.randrange(12))]
        return [encode(header), self._sound()[1]]


@pytest.fixture
def key(own_kernel: RunningKernel) -> Key:
    return own_kernel.enroll("app:fuzz")


@pytest.fixture
def attacker(own_kernel: RunningKernel, key: Key) -> Iterator[Dealer]:
    connection = read_connection(own_kernel.where)
    dealer = Dealer(connection.calls, connection.public_key, key)
    dealer.shake_hands(HANDSHAKE_S)
    dealer.socket.setsockopt(zmq.SNDTIMEO, 10_000)
    yield dealer
    dealer.close()


def answers(attacker: Dealer) -> Iterator[str]:
    """What has come back so far: kinds, and codes of errors."""
    while attacker.socket.poll(0):
        head, body = attacker.socket.recv_multipart()
        kind = decode_reply_header(head).kind
        yield decode_error(body).code if kind in (Kind.ERROR, Kind.CUT_OFF) else Kind(kind).name


def assert_in_order(own_kernel: RunningKernel, kernel: Kernel, payload: bytes) -> None:
    assert kernel.call(Ping(payload=payload), timeout=5) == Pong(payload)
    assert kernel.call(GetStatus(), timeout=5).os_pid == own_kernel.os_pid


def test_no_message_harms_the_kernel_or_others(own_kernel: RunningKernel, attacker: Dealer, key: Key) -> None:
    started = monotonic()
    with own_kernel.connect(key) as same_app, own_kernel.connect() as other:
        mutator = Mutator(SEED, [0, same_app.spawn("a").pid, same_app.spawn("b").pid, 10_000])
        found: Counter[str] = Counter()
        for number in range(0, MESSAGES, BATCH):
            for _ in range(BATCH):
                attacker.socket.send_multipart(mutator.message())
            assert_in_order(own_kernel, other, str(number).encode())
            found.update(answers(attacker))
        assert other.call(GetStatus()).refused > MESSAGES / 4
    assert found["internal"] == 0, found
    assert {"REPLY", "bad_request", "unknown_call", "denied", "not_yours", "not_found"} <= set(found), found
    assert monotonic() - started < 30


def test_a_frame_that_is_too_large_cuts_off_its_sender_alone(own_kernel: RunningKernel, attacker: Dealer) -> None:
    with own_kernel.connect() as other:
        attacker.socket.send_multipart([encode(RequestHeader(1)), bytes(MAX_MESSAGE_BYTES + 1)])
        assert attacker.monitor.poll(5_000)
        assert attacker.lost()
        assert_in_order(own_kernel, other, b"after")


def test_strangers_who_speak_another_language_disturb_nobody(own_kernel: RunningKernel) -> None:
    chance = random.Random(SEED)
    path = read_connection(own_kernel.where).calls.removeprefix("ipc://")
    assert Path(path).is_socket()
    with own_kernel.connect() as kernel:
        for number in range(300):
            with socket.socket(socket.AF_UNIX) as stranger:
                stranger.connect(path)
                stranger.sendall(
                    chance.choice((b"GET / HTTP/1.1\r\n\r\n", b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f", chance.randbytes(300)))
                )
                if number % 50 == 0:
                    assert_in_order(own_kernel, kernel, str(number).encode())
