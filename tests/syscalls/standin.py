"""A stand-in for the kernel: a ROUTER pair with CURVE and ZAP in a thread, which answers by a script. For tests of the clients alone.

What a call gets is told by its type: `Ping`, `Spawn` and `Cancel` are served; `Generate` streams three chunks, or, if its text is
`forever`, one and then nothing until it is cancelled, `silent` nothing unless the stand-in is `talkative`, as is the spawn of a
`silent` agent; `GetPolicy` and `CallTool` are never answered; `ListModels` has the client cut off.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import msgspec
import zmq
from zmq.utils import z85

from kernos.syscalls import Call, Done, Key, Places
from kernos.syscalls.errors import CancelledError, CutOffError, KernosError
from kernos.syscalls.model import Chunk, Generate, Generation, ListModels, Message, Usage
from kernos.syscalls.places import Connection
from kernos.syscalls.policy import GetPolicy
from kernos.syscalls.process import Exit, Spawn, Spawned
from kernos.syscalls.system import Cancel, Ping, Pong
from kernos.syscalls.table import request_decoder
from kernos.syscalls.tool import CallTool
from kernos.syscalls.wire import Kind, ReplyHeader, RequestHeader, decode_request_header, encode

OF_TOMORROW = 9
"""A kind of message that only a newer kernel sends."""

Sender = tuple[zmq.Socket[bytes], bytes]


class StandIn:
    """A kernel for one test; `seen` holds the headers and calls that came in."""

    def __init__(self, where: Places, allowed: set[str], pair: tuple[bytes, bytes], talkative: bool) -> None:
        self.where = where
        self.allowed = allowed
        self.seen: list[tuple[RequestHeader, Call[Any]]] = []
        self.idle = threading.Event()
        self.talkative = talkative
        self._waiting: dict[int, Sender] = {}
        self._decoder = request_decoder()
        self._context = zmq.Context()
        self._stop = self._context.socket(zmq.PAIR)
        self._stop.bind("inproc://stop")
        self._zap = self._context.socket(zmq.REP)
        self._zap.bind("inproc://zeromq.zap.01")
        self.pair = pair
        self._routers = [self._bind(name) for name in ("calls", "control")]
        self._write_connection(pair[0].decode())
        self._thread = threading.Thread(target=self._run)

    def start(self) -> Self:
        self._thread.start()
        return self

    def die(self) -> None:
        """Leave as a killed process does, with every call in flight unanswered."""
        if self._thread.is_alive():
            self._stop_thread()

    def _bind(self, name: str) -> zmq.Socket[bytes]:
        router = self._context.socket(zmq.ROUTER)
        router.setsockopt(zmq.CURVE_SERVER, 1)
        router.setsockopt(zmq.CURVE_SECRETKEY, self.pair[1])
        router.setsockopt_string(zmq.ZAP_DOMAIN, "kernos")
        router.bind(self.where.socket(name))
        return router

    def _write_connection(self, public: str) -> None:
        connection = Connection(os.getpid(), self.where.socket("calls"), self.where.socket("control"), public, "1.0")
        self.where.connection.write_bytes(msgspec.json.encode(connection))

    def _stop_thread(self) -> None:
        with self._context.socket(zmq.PAIR) as bell:
            bell.connect("inproc://stop")
            bell.send(b"")
            self._thread.join()

    def _run(self) -> None:
        poller = zmq.Poller()
        for socket in (self._stop, self._zap, *self._routers):
            poller.register(socket, zmq.POLLIN)
        while self._stop not in (ready := dict(poller.poll())):
            if self._zap in ready:
                self._admit(self._zap.recv_multipart())
            for router in self._routers:
                if router in ready:
                    self._serve(router, *router.recv_multipart())
        self._context.destroy(linger=0)

    def _admit(self, frames: list[bytes]) -> None:
        version, request, *_, client = frames
        known = z85.encode(client).decode() in self.allowed
        self._zap.send_multipart([version, request, b"200" if known else b"400", b"", b"", b""])

    def _serve(self, router: zmq.Socket[bytes], peer: bytes, head: bytes, body: bytes) -> None:
        header, call = decode_request_header(head), self._decoder.decode(body)
        self.seen.append((header, call))
        if self._is_silent(call):
            self.idle.set()
            return
        for kind, answer in self._answers(header, call, (router, peer)):
            send((router, peer), header.id, kind, answer)

    def _is_silent(self, call: Call[Any]) -> bool:
        match call:
            case GetPolicy() | CallTool():
                return True
            case Spawn(name="silent") | Generate(messages=[Message(text="silent")]):
                return not self.talkative
        return False

    def _answers(self, header: RequestHeader, call: Call[Any], sender: Sender) -> Iterator[tuple[int, Any]]:
        match call:
            case Ping(payload):
                yield Kind.REPLY, Pong(payload)
            case Spawn():
                yield Kind.REPLY, Spawned(7)
            case Cancel(id_):
                self._cancel(id_)
                yield Kind.REPLY, Done()
            case Generate(messages=[message]) if message.text == "forever":
                self._waiting[header.id] = sender
                yield Kind.EVENT, Chunk("one", 1)
            case Generate(messages=[message]):
                if message.text == "tomorrow":
                    yield OF_TOMORROW, "something"
                yield from generation(header.stream)
            case ListModels():
                yield Kind.CUT_OFF, CutOffError("You did not read your answers.").body()
            case Exit():
                yield Kind.ERROR, KernosError("It is of tomorrow.").body()

    def _cancel(self, id_: int) -> None:
        if (sender := self._waiting.pop(id_, None)) is not None:
            send(sender, id_, Kind.ERROR, CancelledError("It was cancelled.").body())


def generation(stream: bool) -> Iterator[tuple[int, Any]]:
    """An answer, with events if they are wanted."""
    yield from ((Kind.EVENT, Chunk(text, 1)) for text in ("Good ", "morning", "!") if stream)
    yield Kind.REPLY, Generation("Good morning!", "stop", Usage(3, 3), [1, 2, 3], 0)


def send(sender: Sender, id_: int, kind: int, answer: Any) -> None:
    router, peer = sender
    router.send_multipart([peer, encode(ReplyHeader(id_, kind)), encode(answer)])


@contextmanager
def standing_in(where: Places, *keys: Key, pair: tuple[bytes, bytes] | None = None, talkative: bool = False) -> Iterator[StandIn]:
    """A stand-in that knows these keys; with the key pair of one before, it is the same kernel started again."""
    where.runtime.mkdir(parents=True, exist_ok=True)
    kernel = StandIn(where, {key.public for key in keys}, pair or zmq.curve_keypair(), talkative).start()
    try:
        yield kernel
    finally:
        kernel.die()
