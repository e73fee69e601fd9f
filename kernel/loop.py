"""The one loop: sockets, timers, threads' results and the ends of processes. The only place with sockets and the clock.

Each turn of the loop first answers the control socket, then the devices, then a bounded batch of work messages, looking at the control
socket between batches: so signals, cancels and pings never queue behind work, whatever the clients send. Nothing in here waits but the
poll itself.
"""

import heapq
import itertools
import logging
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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
from .security.zap import answer_zap, peer_pid
from .system import System

log = logging.getLogger(__name__)

T = TypeVar("T")

_LINGER_MS = 500
"""Time for last replies to leave when the kernel stops."""

_REPORT_BYTES = 64 << 20
"""Largest report of a device server: the vectors of a batch."""


class _Timer:
    """An entry of the timer heap."""

    __slots__ = ("act",)

    def __init__(self, act: Callable[[], None]) -> None:
        self.act: Callable[[], None] | None = act

    def cancel(self) -> None:
        self.act = None


class Loop:
    """The real `Host`."""

    def __init__(self, key: Key) -> None:
        self.key = key
        self.now = time.monotonic()
        self.system: System
        self.gate: Gate
        self._context = zmq.Context(io_threads=1)
        self._context.set(zmq.MAX_SOCKETS, 65_536)
        self._poller = zmq.Poller()
        self._clients: dict[bytes, Client] = {}
        self._programs: set[int] = set()
        self._fds: dict[int, Callable[[], None]] = {}
        self._timers: list[tuple[float, int, _Timer]] = []
        self._counter = itertools.count()
        self._threads = ThreadPoolExecutor(2, "kernos-worker")
        self._results: deque[Callable[[], None]] = deque()
        self._devices: dict[str, subprocess.Popen[bytes]] = {}
        self._device_addresses: dict[str, bytes] = {}
        self._reports = msgspec.msgpack.Decoder(AnyReport)
        self._encode = msgspec.msgpack.Encoder().encode
        self._running = True
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._watch_fd(self._wake, self._take_results)

    # --- setting up ---------------------------------------------------------------------------------------------------------------

    def open(self, calls: str, control: str, devices: str) -> None:
        """Bind the sockets. Until `run` nothing is answered."""
        self._zap = self._context.socket(zmq.ROUTER)
        self._zap.bind("inproc://zeromq.zap.01")
        self._poller.register(self._zap, zmq.POLLIN)
        self._work = self._bind(calls, MAX_MESSAGE_BYTES, SEND_QUEUE)
        self._control = self._bind(control, MAX_MESSAGE_BYTES, SEND_QUEUE)
        self._device_socket = self._bind(devices, _REPORT_BYTES, DEVICE_QUEUE)
        self._device_endpoint = devices

    def _bind(self, endpoint: str, largest: int, queue: int) -> "zmq.Socket[bytes]":
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
        self._poller.register(socket, zmq.POLLIN)
        return socket

    def attach(self, system: System, gate: Gate) -> None:
        """Say whom the messages are for."""
        self.system, self.gate = system, gate

    # --- the loop -----------------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until `stop`."""
        while self._running:
            ready = dict(self._poller.poll(self._patience_ms()))
            self.now = time.monotonic()
            if self._zap in ready:
                self._drain(self._zap, self._handshake)
            if self._control in ready:
                self._drain(self._control, self._client_message)
            if self._device_socket in ready:
                self._drain(self._device_socket, self._device_message)
            if self._work in ready:
                self._drain(self._work, self._client_message)
            for fd in [fd for fd in ready if isinstance(fd, int)]:
                self._fds[fd]()
            self._run_timers()

    def close(self) -> None:
        """Take down the device servers, let the last replies leave, free the sockets."""
        for process in self._devices.values():
            process.terminate()
        for process in self._devices.values():
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._threads.shutdown(cancel_futures=True)
        self._context.destroy(_LINGER_MS)

    def _patience_ms(self) -> int | None:
        while self._timers and self._timers[0][2].act is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return None
        return max(0, int((self._timers[0][0] - time.monotonic()) * 1_000) + 1)

    def _run_timers(self) -> None:
        while self._timers and self._timers[0][0] <= self.now:
            act = heapq.heappop(self._timers)[2].act
            if act is not None:
                act()

    def _drain(self, socket: "zmq.Socket[bytes]", take: "Callable[[zmq.Socket[bytes]], None]") -> None:
        """Take what waits at a socket, at most `DRAIN` messages."""
        for _ in range(DRAIN):
            try:
                take(socket)
            except zmq.Again:
                return

    # --- messages in --------------------------------------------------------------------------------------------------------------

    def _handshake(self, socket: "zmq.Socket[bytes]") -> None:
        address, empty, *frames = socket.recv_multipart(zmq.NOBLOCK)
        socket.send_multipart([address, empty, *answer_zap(frames, self.system.identities)])

    def _client_message(self, socket: "zmq.Socket[bytes]") -> None:
        first = socket.recv(zmq.NOBLOCK, copy=False)
        frames: list[bytes] = []
        while socket.getsockopt(zmq.RCVMORE):
            frame = socket.recv()
            if len(frames) <= MAX_FRAMES:  # more are counted as one too many, not kept
                frames.append(frame)
        self.gate.receive(self._client(first, socket), frames)

    def _client(self, first: zmq.Frame, socket: "zmq.Socket[bytes]") -> Client:
        """The connection a message came by. Its principal is compared every time, as a routing id proves nothing."""
        address = first.bytes
        client = self._clients.get(address)
        principal = str(first.get("User-Id"))
        if client is None or client.principal != principal:
            os_pid = peer_pid(str(first.get("Peer-Address")))
            client = self._clients[address] = Client(address, principal, os_pid, socket is self._control)
            self._watch_program(os_pid)
        return client

    def _device_message(self, socket: "zmq.Socket[bytes]") -> None:
        first = socket.recv(zmq.NOBLOCK, copy=False)
        body = socket.recv_multipart()[-1]
        name = str(first.get("User-Id")).removeprefix("device:")
        if name not in self._devices:
            log.warning("a message on the device socket from %s, which is no device server, is left out", first.get("User-Id"))
            return
        self._device_addresses[name] = first.bytes
        try:
            report = self._reports.decode(body)
        except msgspec.MsgspecError:
            log.exception("the device server %s sent something that is no report", name)
        else:
            self.system.fleet.report(name, report)

    # --- what the kernel asks of the world (see `Host`) ---------------------------------------------------------------------------

    @property
    def clients(self) -> int:
        """Connections."""
        return len(self._clients)

    def send(self, client: Client, frames: list[bytes]) -> Delivery:
        """Send to a client, without waiting."""
        socket = self._control if client.control else self._work
        try:
            socket.send_multipart([client.address, *frames], zmq.NOBLOCK)
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
        try:
            self._device_socket.send_multipart([address, self._encode(command)], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            log.warning("the device server %s cannot be reached (%s) and is killed", server, error)
            self._devices[server].kill()

    def start_device(self, server: str) -> int:
        """Start a device server and watch its process."""
        self._device_addresses.pop(server, None)
        process = self._devices[server] = launch_device(self.system, server, self._device_endpoint, self.key.public)
        self._watch_process(process.pid, lambda: self._device_ended(server, process))
        return process.pid

    def kill(self, os_pid: int) -> None:
        """Kill a child process."""
        os.kill(os_pid, signal.SIGKILL)

    def at(self, when: float, act: Callable[[], None]) -> _Timer:
        """Do something when the clock has reached `when`."""
        timer = _Timer(act)
        heapq.heappush(self._timers, (when, next(self._counter), timer))
        return timer

    def offload(self, work: Callable[[], T], then: Callable[[T | Exception], None]) -> None:
        """Do slow work on a thread, then hand its result back in the loop."""

        def run() -> None:
            try:
                result: T | Exception = work()
            except Exception as error:
                result = error
            self._results.append(lambda: then(result))
            os.eventfd_write(self._wake, 1)

        self._threads.submit(run)

    def stop(self) -> None:
        """Leave the loop after this turn; safe in a signal handler."""
        self._running = False
        os.eventfd_write(self._wake, 1)

    # --- threads and processes ----------------------------------------------------------------------------------------------------

    def _take_results(self) -> None:
        os.eventfd_read(self._wake)
        while self._results:
            self._results.popleft()()

    def _watch_fd(self, fd: int, act: Callable[[], None]) -> None:
        self._fds[fd] = act
        self._poller.register(fd, zmq.POLLIN)

    def _watch_process(self, os_pid: int, act: Callable[[], None]) -> None:
        """Do something when a process has ended. A pidfd cannot be fooled by a pid that is used again."""
        fd = os.pidfd_open(os_pid)

        def ended() -> None:
            self._poller.unregister(fd)
            del self._fds[fd]
            os.close(fd)
            act()

        self._watch_fd(fd, ended)

    def _watch_program(self, os_pid: int) -> None:
        if os_pid and os_pid not in self._programs:
            self._programs.add(os_pid)
            try:
                self._watch_process(os_pid, lambda: self._program_ended(os_pid))
            except ProcessLookupError:
                self.at(self.now, lambda: self._program_ended(os_pid))

    def _program_ended(self, os_pid: int) -> None:
        self._programs.discard(os_pid)
        for client in [client for client in self._clients.values() if client.os_pid == os_pid]:
            self._clients.pop(client.address, None)
            self.gate.drop(client)
        self.system.program_died(os_pid)

    def _device_ended(self, server: str, process: "subprocess.Popen[bytes]") -> None:
        code = process.wait()
        self._device_addresses.pop(server, None)
        if self._running:
            self.system.fleet.died(server, code)
