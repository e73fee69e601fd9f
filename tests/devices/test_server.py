"""The server process, over a real socket."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from kernos.kernel.devices.messages import (
    AnyCommand,
    AnyReport,
    Begin,
    Copied,
    Copy,
    Embed,
    Extend,
    Failed,
    Hello,
    Load,
    Loaded,
    LoadFailed,
    Sampling,
    Save,
    Saved,
    Shutdown,
    Stepped,
    Stop,
)
from kernos.kernel.devices.server import Boot

SERVER = [sys.executable, "-m", "kernos.kernel.devices.server"]
PATIENCE_MS = 60_000


class Wire:
    """The kernel's end of the wire."""

    def __init__(self, context: "zmq.Context[Any]", folder: Path) -> None:
        self.public, self.secret = zmq.curve_keypair()
        self.socket = context.socket(zmq.ROUTER)
        self.socket.linger = 0
        self.socket.curve_server = True
        self.socket.curve_secretkey = self.secret
        self.endpoint = f"ipc://{folder}/devices"
        self.socket.bind(self.endpoint)
        self.peer = b""

    def boot(self, parent: int) -> bytes:
        public, secret = zmq.curve_keypair()
        boot = Boot(
            device="cpu:0",
            endpoint=self.endpoint,
            kernel_public=self.public.decode(),
            public=public.decode(),
            secret=secret.decode(),
            threads=1,
            parent=parent,
        )
        return msgspec.json.encode(boot) + b"\n"

    def send(self, *commands: AnyCommand | bytes) -> None:
        for command in commands:
            self.socket.send_multipart([self.peer, command if isinstance(command, bytes) else msgspec.msgpack.encode(command)])

    def receive(self) -> AnyReport:
        assert self.socket.poll(PATIENCE_MS), "the device server is silent"
        self.peer, frame = self.socket.recv_multipart()
        report: AnyReport = msgspec.msgpack.decode(frame, type=AnyReport)
        return report

    def tokens(self, seq: int) -> tuple[list[int], str]:
        """The tokens of a sequence up to its finish."""
        found: list[int] = []
        while True:
            report = self.receive()
            assert isinstance(report, Stepped), report
            for output in report.outputs:
                if output.seq == seq:
                    found += output.tokens
                    if output.finish:
                        return found, output.finish


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    with zmq.Context() as context:
        wire = Wire(context, tmp_path)
        yield wire
        wire.socket.close()


@pytest.fixture
def server(wire: Wire) -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(SERVER, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(wire.boot(os.getpid()))
        process.stdin.flush()
        yield process
        process.kill()


def test_a_whole_life(wire: Wire, server: "subprocess.Popen[bytes]", small_model: Callable[..., Any], tmp_path: Path) -> None:
    small_model(tmp_path, "llama", max_position_embeddings=65536)
    hello = wire.receive()
    assert hello == Hello("cpu:0", server.pid, "cpu", 1)
    assert os.getpriority(os.PRIO_PROCESS, server.pid) >= 10
    wire.send(Load("it", str(tmp_path), "decoder", "float32", 4), Load("no", str(tmp_path / "no"), "decoder", "float32", 4))
    loaded, refused = wire.receive(), wire.receive()
    assert isinstance(loaded, Loaded)
    assert (loaded.model, loaded.window) == ("it", 65536)
    assert isinstance(refused, LoadFailed)

    plain = Sampling(ignore_eos=True)
    wire.send(Begin(1, "it", [5, 6, 7], 10, 4, plain), Extend(1, 100), Extend(99, 1), Stop(99))
    first, finish = wire.tokens(1)
    assert (len(first), finish) == (10, "length")

    wire.send(b"\xff nonsense", b"", Begin(3, "none", [5], 10, 100, plain), Begin(2, "it", [5, 6, 7], 10, 100, plain))
    failures = [wire.receive() for _ in range(3)]
    assert all(isinstance(failure, Failed) for failure in failures)
    assert [getattr(failure, "seq", None) for failure in failures] == [None, None, 3]
    assert wire.tokens(2) == (first, "length")

    wire.send(Begin(4, "it", [5, 6, 7], 60000, 60000, plain))
    wire.receive()
    wire.send(Stop(4), Embed(7, "it", [[1]]))  # in order: what answers the second shows that the first was obeyed
    while isinstance(report := wire.receive(), Stepped):
        pass
    assert isinstance(report, Failed)
    assert report.batch == 7
    wire.send(Shutdown())
    assert server.wait(30) == 0


def test_the_end_of_a_copy_wakes_it(wire: Wire, server: "subprocess.Popen[bytes]", small_model: Callable[..., Any], tmp_path: Path) -> None:
    """Saved, to the host, to the disk, back, and begun with it, all over the wire, while it has nothing else to do."""
    small_model(tmp_path, "llama")
    wire.receive()
    wire.send(Load("it", str(tmp_path), "decoder", "float32", 4, 4, 4, 4, str(tmp_path / "swap")))
    loaded = wire.receive()
    assert isinstance(loaded, Loaded)
    prompt, plain = list(range(100)), Sampling(ignore_eos=True)
    wire.send(Begin(1, "it", prompt, 8, 8, plain, keep=True))
    tokens, _ = wire.tokens(1)
    wire.send(Save(1, "it", 0, [0, 1]), Stop(1))
    wire.send(Copy(1, "it", "device", "host", [(0, 0), (1, 1)]), Copy(2, "it", "host", "disk", [(0, 0), (1, 1)]))
    saved, *copied = [wire.receive() for _ in range(3)]
    assert isinstance(saved, Saved)
    assert saved.held == 107
    wire.send(Copy(3, "it", "disk", "host", [(0, 2), (1, 3)]))
    copied.append(wire.receive())
    wire.send(Copy(4, "it", "host", "device", [(2, 2), (3, 3)]), Begin(2, "it", prompt, 8, 8, plain, pages=[2, 3], cached=99))
    copied.append(wire.receive())
    assert [(report.id, report.bytes) for report in copied if isinstance(report, Copied)] == [
        (n, 2 * loaded.page_bytes) for n in (1, 2, 3, 4)
    ]
    assert wire.tokens(2)[0] == tokens
    wire.send(Shutdown())
    assert server.wait(30) == 0


def test_sigterm_ends_it_cleanly(wire: Wire, server: "subprocess.Popen[bytes]") -> None:
    wire.receive()
    server.send_signal(signal.SIGTERM)
    assert server.wait(30) == 0


def test_it_dies_with_its_parent(wire: Wire) -> None:
    """A stand-in for the kernel starts a server, says its pid, and is killed."""
    code = "import subprocess, sys; p = subprocess.Popen(sys.argv[1:], stdin=0); p.wait()"
    with subprocess.Popen([sys.executable, "-c", code, *SERVER], stdin=subprocess.PIPE) as parent:
        assert parent.stdin is not None
        parent.stdin.write(wire.boot(parent.pid))
        parent.stdin.flush()
        hello = wire.receive()
        assert isinstance(hello, Hello)
        watched = os.pidfd_open(hello.pid)
        parent.kill()
        poller = select.poll()
        poller.register(watched)
        assert poller.poll(30_000), "the server outlived its parent"
        os.close(watched)


def test_it_refuses_to_serve_a_parent_that_is_gone(wire: Wire) -> None:
    done = subprocess.run(SERVER, input=wire.boot(parent=1 << 22), capture_output=True, check=False)
    assert done.returncode == 1
    assert b"is gone" in done.stderr
