"""The client's end of the sockets: a DEALER with CURVE, and the monitor that tells what libzmq would keep to itself.

A refused key or a dead kernel makes a call hang for ever as far as libzmq is concerned; only the socket monitor knows. So connecting
waits for the handshake, and a lost connection is looked for whenever an answer is late.
"""

import threading
from time import monotonic
from typing import Final

import zmq
from zmq.utils.monitor import parse_monitor_message

from .errors import RefusedError, UnreachableError
from .keys import Key

HANDSHAKE_S: Final = 5.0
"""How long a kernel may take to accept a connection; it takes about 2 ms when idle."""

# Plain numbers: `|` and `&` on pyzmq's flag enums, as `send_multipart` does per frame, cost more than the sending.
_IN: Final = int(zmq.POLLIN)
_MORE: Final = int(zmq.SNDMORE)

_REFUSED: Final[dict[int, str]] = {
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "it does not know this key (revoked, of another installation, or lent to another process)",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "the two do not speak the same protocol",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "the handshake broke off; is its public key the one in the connection file?",
}


class Dealer:
    """One connection to the kernel."""

    def __init__(self, endpoint: str, server_key: str, key: Key) -> None:
        """Connect and wait for the handshake; `UnreachableError` says why there is none."""
        self.down_since: float | None = None
        self.owner = threading.get_ident()
        self.socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 200)  # ms; time for a last message to leave when the process ends
        self.socket.setsockopt(zmq.CURVE_SERVERKEY, server_key.encode())
        self.socket.setsockopt(zmq.CURVE_PUBLICKEY, key.public.encode())
        self.socket.setsockopt(zmq.CURVE_SECRETKEY, key.secret.encode())
        self.socket.setsockopt(zmq.RECONNECT_IVL, 100)
        self.socket.setsockopt(zmq.RECONNECT_IVL_MAX, 2_000)
        self.monitor: zmq.Socket[bytes] = self.socket.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | sum(_REFUSED)
        )
        self.socket.connect(endpoint)
        try:
            self._await_handshake(endpoint, key)
        except BaseException:
            self.close()
            raise

    def send(self, frames: tuple[bytes, bytes]) -> None:
        """Send the two frames of a message."""
        self.socket.send(frames[0], _MORE)
        self.socket.send(frames[1])

    def receive(self) -> tuple[bytes, bytes]:
        """The two frames of the next message; `zmq.Again` if none comes in time."""
        return self.socket.recv(), self.socket.recv()

    def lost(self) -> bool:
        """Whether the connection broke since this was last asked (libzmq connects again by itself)."""
        broken = False
        while int(self.monitor.get(zmq.EVENTS)) & _IN:
            broken |= self.note(self.monitor.recv_multipart())
        return broken

    def note(self, event: list[bytes]) -> bool:
        """Take in what the monitor says; whether it says that the connection broke."""
        kind = parse_monitor_message(event)["event"]
        if kind == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self.down_since = None
        elif self.down_since is None:
            self.down_since = monotonic()
        return bool(kind == zmq.EVENT_DISCONNECTED)

    def gone(self) -> bool:
        """Whether the connection has been down for so long that no kernel is likely to take it up again."""
        return self.down_since is not None and monotonic() - self.down_since > HANDSHAKE_S

    def close(self) -> None:
        """Close the socket and its monitor."""
        self.socket.disable_monitor()
        self.monitor.close(0)
        self.socket.close()

    def check_thread(self) -> None:
        """A ZeroMQ socket belongs to one thread; two would corrupt it silently."""
        if threading.get_ident() != self.owner:
            raise RuntimeError("A Kernel belongs to the thread that made it. Make one per thread, or use AsyncKernel.")

    def _await_handshake(self, endpoint: str, key: Key) -> None:
        while self.monitor.poll(int(HANDSHAKE_S * 1_000)):
            event = parse_monitor_message(self.monitor.recv_multipart())["event"]
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                return
            if event in _REFUSED:
                kind = RefusedError if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH else UnreachableError
                raise kind(f"The kernel at {endpoint} refused {key.principal}: {_REFUSED[event]}. Check the key with the administrator.")
        raise UnreachableError(f"The kernel at {endpoint} did not answer within {HANDSHAKE_S:g} s. Is it running? Try `kernos status`.")
