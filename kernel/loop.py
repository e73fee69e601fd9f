"""The one loop, and the only place of the kernel with sockets.

Each turn first answers the control socket, then the devices, then a bounded batch of work messages: so signals, cancels and pings never
queue behind work, whatever the clients send. Nothing in here waits but `Reactor.turn`.

A ZeroMQ socket is not a descriptor: the one it shows is readable when *something* happened, and is silent about messages that were there
before it was last asked. So a socket is asked whether it has messages after its descriptor woke us and after every send on it, before
the loop may wait again.
"""

import logging
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import msgspec
import zmq

from kernos.syscalls.bounds import MAX_FRAMES, MAX_MESSAGE_BYTES
from kernos.syscalls.keys import Key

from .devices.messages import AnyCommand, AnyReport
from .gate import Gate
from .host import Client, Delivery
from .launch import launch_device
from .limits import BACKLOG, DEVICE_QUEUE, DRAIN, HANDSHAKE_MS, RECEIVE_QUEUE, SEND_QUEUE
from .reactor import Reactor, Timer, guarded
from .security.identity import principal_of
from .security.liveness import start_time as _start_time
from .security.zap import answer_zap, peer_pid
from .system import System

log = logging.getLogger(__name__)

T = TypeVar("T")

# Plain numbers: `|` and `&` on pyzmq's flag enums, as `send_multipart` does per frame, cost more than the sending.
_IN = int(zmq.POLLIN)
_NOW = int(zmq.NOBLOCK)
_NOW_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)

_LINGER_MS = 500
"""Time for last replies to leave when the kernel stops."""

_REPORT_BYTES = 64 << 20
"""Largest report of a device server: the vectors of a batch."""

_TERMINATE_S = 5.0
"""Time for a device server to leave when asked to, before it is killed."""


@dataclass(eq=False)
class _Inlet:
    """A socket and what takes one message from it."""

    socket: "zmq.Socket[bytes]"
    take: "Callable[[zmq.Socket[bytes]], None]"


class Loop:
    """The real `Host`."""

    def __init__(self, key: Key) -> None:
        self.key = key
        self.system: System
        self.gate: Gate
        self._reactor = Reactor()
        self._context = zmq.Context(io_threads=1)
        self._context.set(zmq.MAX_SOCKETS, 65_536)
        self._inlets: list[_Inlet] = []
        self._touched: set[zmq.Socket[bytes]] = set()
        self._clients: dict[bytes, Client] = {}
        self._programs: set[int] = set()
        self._devices: dict[str, subprocess.Popen[bytes]] = {}
        self._device_addresses: dict[str, bytes] = {}
        self._reports = msgspec.msgpack.Decoder(AnyReport)
        self._encode = msgspec.msgpack.Encoder().encode
        self._running = True

    # --- setting up ---------------------------------------------------------------------------------------------------------------

    def open(self, calls: str, control: str, devices: str) -> None:
        """Bind the sockets, most urgent first. Until `run` nothing is answered."""
        zap = self._context.socket(zmq.ROUTER)
        zap.bind("inproc://zeromq.zap.01")
        self._listen(zap, self._handshake)
        self._control = self._bind(control, MAX_MESSAGE_BYTES, SEND_QUEUE, self._client_message)
        self._device_socket = self._bind(devices, _REPORT_BYTES, DEVICE_QUEUE, self._device_message)
        self._work = self._bind(calls, MAX_MESSAGE_BYTES, SEND_QUEUE, self._client_message)
        self._device_endpoint = devices

    def _bind(self, endpoint: str, largest: int, queue: int, take: "Callable[[zmq.Socket[bytes]], None]") -> "zmq.Socket[bytes]":
        socket = self._context.socket(zmq.ROUTER)
        for option, value in (
            (zmq.LINGER, _LINGER_MS),
            (zmq.ROUTER_MANDATORY, 1),
            (zmq.SNDHWM, queue),
            (zmq.RCVHWM, RECEIVE_QUEUE if queue == SEND_QUEUE else queue),
            (zmq.MAXMSGSIZE, largest),
            (zmq.BACKLOG, BACKLOG),
            (zmq.HANDSHAKE_IVL, HANDSHAKE_MS),
            (zmq.CURVE_SERVER, 1),
            (zmq.CURVE_SECRETKEY, self.key.secret.encode()),
            (zmq.ZAP_DOMAIN, b"kernos"),
        ):
            socket.setsockopt(option, value)
        socket.bind(endpoint)
        self._listen(socket, take)
        return socket

    def _listen(self, socket: "zmq.Socket[bytes]", take: "Callable[[zmq.Socket[bytes]], None]") -> None:
        self._inlets.append(_Inlet(socket, take))
        self._touched.add(socket)
        self._reactor.watch(int(socket.getsockopt(zmq.FD)), lambda: self._touched.add(socket))

    def attach(self, system: System, gate: Gate) -> None:
        """Say whom the messages are for."""
        self.system, self.gate = system, gate

    # --- the loop -----------------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until `stop`."""
        while self._running:
            self._reactor.turn(wait=not self._touched)
            for inlet in self._inlets:
                if inlet.socket in self._touched:
                    self._drain(inlet)

    def _drain(self, inlet: _Inlet) -> None:
        """Take what waits at a socket, at most `DRAIN` messages; then the others have their turn."""
        try:
            for _ in range(DRAIN):
                inlet.take(inlet.socket)
                if not int(inlet.socket.get(zmq.EVENTS)) & _IN:
                    break  # asking is cheaper than the exception of a vain attempt
            else:
                return
        except zmq.Again:
            pass  # woken for something else than a message
        self._touched.discard(inlet.socket)

    def stop(self) -> None:
        """Leave the loop after this turn; safe in a signal handler."""
        self._running = False
        self._reactor.wake()

    def close(self) -> None:
        """Take down the device servers, let the last replies leave, free the sockets."""
        for process in self._devices.values():
            process.terminate()
        for process in self._devices.values():
            try:
                process.wait(_TERMINATE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._reactor.close()
        self._context.destroy(_LINGER_MS)

    # --- messages in --------------------------------------------------------------------------------------------------------------

    def _handshake(self, socket: "zmq.Socket[bytes]") -> None:
        address, empty, *frames = socket.recv_multipart(_NOW)
        reply = answer_zap(frames, self.system.identities)
        if reply[2] != b"200":
            self.system.audit.turned_away(frames[3].decode("utf-8", "replace") if len(frames) > 3 else "", reply[3].decode())
        socket.send_multipart([address, empty, *reply])

    def _client_message(self, socket: "zmq.Socket[bytes]") -> None:
        first = part = socket.recv(_NOW, copy=False)
        frames: list[bytes] = []
        while part.more:
            part = socket.recv(copy=False)
            if len(frames) <= MAX_FRAMES:  # more are counted as one too many, not kept
                frames.append(part.bytes)
        client = self._client(first, socket)
        if self.system.identities.stands(client.badge):
            self.gate.receive(client, frames)
        else:
            self.gate.turn_away(client, frames)

    def _client(self, first: zmq.Frame, socket: "zmq.Socket[bytes]") -> Client:
        """The connection a message came by. Its badge is compared every time, as a routing id proves nothing."""
        address = first.bytes
        client = self._clients.get(address)
        badge = first.get("User-Id")
        if client is None or client.badge != badge:
            os_pid = peer_pid(str(first.get("Peer-Address")))
            client = Client(
                address, principal_of(str(badge)), os_pid, socket is self._control, start_time=_start_time(os_pid), badge=str(badge)
            )
            self._clients[address] = client
            self._watch_program(os_pid)
        return client

    def _device_message(self, socket: "zmq.Socket[bytes]") -> None:
        first = socket.recv(_NOW, copy=False)
        body = socket.recv_multipart()[-1]
        badge = str(first.get("User-Id"))
        name = principal_of(badge).removeprefix("device:")
        if name not in self._devices or not self.system.identities.stands(badge):
            log.warning("a message on the device socket from %s, which is no device server, is left out", badge)
            return
        self._device_addresses[name] = first.bytes
        try:
            report = self._reports.decode(body)
        except msgspec.MsgspecError:
            log.exception("the device server %s sent something that is no report", name)
        else:
            guarded(lambda: self.system.fleet.report(name, report))

    # --- what the kernel asks of the world (see `Host`) ---------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Seconds on a clock that only goes forward."""
        return self._reactor.now

    @property
    def clock(self) -> float:
        """Seconds since the Unix epoch."""
        return time.time()

    @property
    def clients(self) -> int:
        """Connections."""
        return len(self._clients)

    def send(self, client: Client, frames: tuple[bytes, bytes]) -> Delivery:
        """Send to a client, without waiting."""
        socket = self._control if client.control else self._work
        self._touched.add(socket)
        try:
            socket.send(client.address, _NOW_MORE)
            socket.send(frames[0], _NOW_MORE)
            socket.send(frames[1], _NOW)
        except zmq.Again:
            return Delivery.FULL
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._clients.pop(client.address, None)
            return Delivery.GONE
        return Delivery.SENT

    def command(self, server: str, command: AnyCommand) -> None:
        """Send to a device server; one that is gone or hangs is killed, and its end sets everything else in motion."""
        address = self._device_addresses.get(server)
        if address is None:
            return
        self._touched.add(self._device_socket)
        try:
            self._device_socket.send_multipart([address, self._encode(command)], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            log.warning("the device server %s cannot be reached (%s) and is killed", server, error)
            self._devices[server].kill()

    def start_device(self, server: str) -> int:
        """Start a device server and watch its process."""
        self._device_addresses.pop(server, None)
        process = self._devices[server] = launch_device(self.system, server, self._device_endpoint, self.key.public)
        self._reactor.watch_process(process.pid, lambda: self._device_ended(server, process))
        return process.pid

    def watch_program(self, os_pid: int, start_time: int) -> bool:
        """Tell the system when a program ends; whether it is there."""
        there = os_pid != 0 and _start_time(os_pid) == start_time
        if there:
            self._watch_program(os_pid)
        return there

    def at(self, when: float, act: Callable[[], object]) -> Timer:
        """Do something when the clock has reached `when`."""
        return self._reactor.at(when, act)

    def offload(self, work: Callable[[], T], then: Callable[[T | Exception], object]) -> None:
        """Do slow work on a thread, then hand its result back in the loop."""
        self._reactor.offload(work, then)

    def post(self, act: Callable[[], object]) -> None:
        """Do something in the loop; may be called in any thread."""
        self._reactor.post(act)

    # --- ends of processes --------------------------------------------------------------------------------------------------------

    def _watch_program(self, os_pid: int) -> None:
        if os_pid and os_pid not in self._programs:
            self._programs.add(os_pid)
            self._reactor.watch_process(os_pid, lambda: self._program_ended(os_pid))

    def _program_ended(self, os_pid: int) -> None:
        self._programs.discard(os_pid)
        for client in [client for client in self._clients.values() if client.os_pid == os_pid]:
            self._clients.pop(client.address, None)
            self.gate.drop(client)
        self.system.program_died(os_pid)

    def _device_ended(self, server: str, process: "subprocess.Popen[bytes]") -> None:
        code = process.wait()
        self.system.identities.end_loans(process.pid)
        self._device_addresses.pop(server, None)
        if self._running:
            self.system.fleet.died(server, code)
