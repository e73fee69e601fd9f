"""A device server: the process that owns one device. `python -m kernos.kernel.devices.server`, started by the kernel.

Its whole configuration is one JSON line on stdin (`Boot`): keys do not belong on a command line, which every user of the machine can read.
It says `Hello` when it is ready for commands, then alternates: apply all commands that have arrived, make one step, report. Without work it
waits for a command or for the end of a copy. It ends by `Shutdown`, SIGTERM or SIGINT, and is killed when its parent dies. It is
crash-only: an error that concerns no single sequence or batch ends the process, and the kernel, which has every token, starts it anew.

This is the one file of this folder with a socket in it.
"""

import ctypes
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import zmq

from .driver import Driver
from .messages import (
    AnyCommand,
    AnyReport,
    Begin,
    Command,
    Copy,
    Embed,
    Embedded,
    Extend,
    Failed,
    Hello,
    Load,
    Save,
    Shutdown,
    Stop,
    Unload,
)
from .turnstile import Turnstile

if TYPE_CHECKING:
    import torch

_LINGER_MS = 1000
"""How long the last reports may take to leave when the server ends; a dead kernel must not hold it."""

_IDLE_MS = 1000
"""After so long without work the driver may use the time."""

_PR_SET_PDEATHSIG = 1


class Boot(msgspec.Struct, frozen=True, kw_only=True):
    """What a device server is told at its start. Keys are Z85 text, as CURVE has them."""

    device: str
    """"cpu:0" or "cuda:<n>"; also its name to the kernel."""
    endpoint: str
    """Where the kernel listens for device servers."""
    kernel_public: str
    public: str
    secret: str
    threads: int
    nice: int = 10
    """Below the kernel's own priority: beside two busy torch threads this kept the kernel's p99 at 0.5 ms instead of 4.1."""
    turnstile: str = ""
    """The folder with the locks of devices that servers share; empty: this one has its device for itself."""
    compiled: str = ""
    """Folder for compiled passes; empty: there are to be none."""
    parent: int = 0
    """Process id of the kernel on this machine; 0: it runs elsewhere, and someone else ends us."""


class Server:
    """The loop between the socket and the driver."""

    def __init__(self, socket: "zmq.Socket[bytes]", driver: Driver, turnstile: Turnstile) -> None:
        self._socket = socket
        self._driver = driver
        self._turnstile = turnstile
        self._decoder = msgspec.msgpack.Decoder(AnyCommand)
        self._encoder = msgspec.msgpack.Encoder()
        self._arrived: deque[AnyCommand] = deque()
        """Received and not applied yet."""
        self._running = True
        self._actions: dict[type[Command], Callable[[Any], AnyReport | None]] = {
            Load: driver.load,
            Unload: driver.unload,
            Begin: driver.begin,
            Extend: driver.extend,
            Stop: driver.stop,
            Save: driver.save,
            Copy: driver.copy,
            Embed: self._embed,
        }
        self._waiting = zmq.Poller()
        self._waiting.register(socket, zmq.POLLIN)
        self._waiting.register(driver.fileno(), zmq.POLLIN)

    def send(self, report: AnyReport) -> None:
        """Queue one report."""
        self._socket.send(self._encoder.encode(report))

    def _send_all(self, reports: Sequence[AnyReport]) -> None:
        for report in reports:
            self.send(report)

    def run(self) -> None:
        """Serve until `Shutdown`."""
        while self._running:
            if not self._driver.busy and not self._arrived:
                self._wait()
            self._send_all(self._driver.collect())
            self._drain()
            if self._driver.busy:
                with self._turnstile.turn():
                    self._drain()  # also what came while somebody else had the device
                    reports = self._driver.step(self._newcomer) if self._running else []
                self._send_all(reports)

    def _wait(self) -> None:
        """Wait for a command or for the end of a copy."""
        while not self._waiting.poll(0) and self._driver.prepare():
            pass
        while not self._waiting.poll(_IDLE_MS if self._driver.improvable else None):
            self._send_all(self._driver.improve())

    def _drain(self) -> None:
        """Apply every command that has arrived."""
        self._receive()
        while self._running and self._arrived:
            self._apply(self._arrived.popleft())
            self._receive()

    def _receive(self) -> None:
        while int(self._socket.get(zmq.EVENTS)) & zmq.POLLIN:
            frames = self._socket.recv_multipart()
            try:
                self._arrived.append(self._decoder.decode(frames[-1]))
            except msgspec.MsgspecError as error:  # a foreign or newer message is no reason to lose the others' work
                self.send(Failed(f"a frame of {len(frames[-1])} bytes is no command: {error}"))

    def _newcomer(self) -> float:
        """See `driver.Newcomer`."""
        self._receive()
        return min((command.rank for command in self._arrived if isinstance(command, Begin)), default=inf)

    def _embed(self, command: Embed) -> Embedded | Failed:
        with self._turnstile.turn():
            return self._driver.embed(command)

    def _apply(self, command: AnyCommand) -> None:
        if isinstance(command, Shutdown):
            self._running = False
            return
        report = self._actions[type(command)](command)
        if report is not None:
            self.send(report)


def main() -> None:
    """Start, connect, serve, leave."""
    boot = msgspec.json.decode(sys.stdin.buffer.readline(), type=Boot)
    _settle(boot)
    with zmq.Context() as context, _connect(context, boot) as socket:
        # Each thread has a priority of its own and gives it to those it starts. libzmq's have started; torch's shall not hold them up: at
        # one priority, commands reached a device that computed on all cores two steps late.
        os.setpriority(os.PRIO_PROCESS, 0, boot.nice)
        import torch

        from .torch_driver import TorchDriver

        torch.set_num_threads(boot.threads)
        device = torch.device(boot.device)
        turnstile = Turnstile(Path(boot.turnstile) if boot.turnstile else None, boot.device)
        server = Server(socket, TorchDriver(device, Path(boot.compiled) if boot.compiled else None), turnstile)
        server.send(Hello(boot.device, os.getpid(), _accelerator(device), boot.threads))
        server.run()


def _settle(boot: Boot) -> None:
    """Take our place among the processes, before libraries read the environment."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    # Threads that wait for each other spin for some tens of microseconds, then sleep. Measured at 1 row on 2 cores, alone and beside two
    # busy processes of the same priority: always sleeping 48 and 42 ms a step, this 27 and 58, always spinning 26 and several seconds.
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")
    os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if boot.parent:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != boot.parent:  # it died before the line above, which then never fires
            sys.exit("the kernel that started this device server is gone")


def _connect(context: "zmq.Context[zmq.Socket[bytes]]", boot: Boot) -> "zmq.Socket[bytes]":
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, _LINGER_MS)
    socket.curve_serverkey = boot.kernel_public.encode()
    socket.curve_publickey = boot.public.encode()
    socket.curve_secretkey = boot.secret.encode()
    socket.connect(boot.endpoint)
    return socket


def _accelerator(device: "torch.device") -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


if __name__ == "__main__":
    main()
