"""What a system call is measured against: a bare ZeroMQ echo, and the same call over FastAPI. Each server is a process of its own."""

import http.client
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import zmq

from kernos.syscalls.requests import make_request
from kernos.syscalls.system import Ping, Pong
from kernos.syscalls.wire import Kind, ReplyHeader, encode

Caller = Callable[[], object]
"""Makes one call and returns when it is answered."""


def null_request() -> tuple[bytes, bytes]:
    """The frames of the null call."""
    return make_request(Ping(), 1 << 61, 0, False, None, None).frames


def null_reply() -> list[bytes]:
    """The frames of its answer."""
    return [encode(ReplyHeader(1 << 61, Kind.REPLY)), encode(Pong(b""))]


@contextmanager
def raw_zmq() -> Iterator[Caller]:
    """Two frames there and two back over ipc, without encryption, identity, policy or any work at the server."""
    with tempfile.TemporaryDirectory(prefix="kernos-") as folder, _served(_serve_raw, f"ipc://{folder}/raw.sock") as endpoint:
        frames = null_request()
        with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
            socket.connect(endpoint)

            def call() -> object:
                socket.send_multipart(frames)
                return socket.recv_multipart()

            yield call


@contextmanager
def fastapi() -> Iterator[Caller]:
    """The null call over HTTP on a connection kept alive, the fastest common way: uvicorn, uvloop, httptools."""
    with _served(_serve_http, "127.0.0.1") as address:
        host, _, port = address.partition(":")
        connection = http.client.HTTPConnection(host, int(port))

        def call() -> object:
            body = json.dumps({"call": "system.ping", "payload": ""})
            connection.request("POST", "/call", body, {"Content-Type": "application/json"})
            return json.loads(connection.getresponse().read())["payload"]

        try:
            yield call
        finally:
            connection.close()


@contextmanager
def _served(serve: Callable[[str, Connection], None], at: str) -> Iterator[str]:
    """Run a server that sends where it listens as soon as it does; end it afterwards."""
    spawn = get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=serve, args=(at, there), daemon=True)
    process.start()
    try:
        yield here.recv()
    finally:
        process.terminate()
        process.join()


def _serve_raw(endpoint: str, ready: Connection) -> None:
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
    socket.bind(endpoint)
    ready.send(endpoint)
    reply = null_reply()
    while True:
        peer, *_ = socket.recv_multipart()
        socket.send_multipart([peer, *reply])


def _serve_http(host: str, ready: Connection) -> None:
    import socket

    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel

    class Request(BaseModel):
        call: str
        payload: str

    app = FastAPI()

    async def answer(request: Request) -> dict[str, Any]:
        return {"payload": request.payload}

    app.post("/call")(answer)
    listening = socket.create_server((host, 0))
    config = uvicorn.Config(app, loop="uvloop", http="httptools", log_level="warning", access_log=False)
    ready.send(f"{host}:{listening.getsockname()[1]}")
    uvicorn.Server(config).run(sockets=[listening])
