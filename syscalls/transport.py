"""The client's end of the sockets: a DEALER with CURVE, and the monitor that tells what libzmq would keep to itself.

A refused key or a dead kernel makes a call hang for ever as far as libzmq is concerned; only the socket monitor knows. So connecting
waits for the handshake, and a lost connection is looked for whenever an answer is late. One that broke is thrown away with what it had
not sent: libzmq would hand that to the next kernel, long after its caller has given up or made the call again.
"""

import struct
import threading
from time import monotonic
from typing import Any, Final

import zmq

from .errors import RefusedError, UnreachableError
from .keys import Key

HANDSHAKE_S: Final = 5.0
"""How long a kernel may take to accept a connection; it takes about 2 ms when idle."""

_LEAST_S: Final = 0.1
"""The same where hardly any time is left."""

# Plain numbers: `|` and `&` on pyzmq's flag enums, as `send_multipart` does per frame, cost more than the sending.
_IN: Final = int(zmq.POLLIN)
_MORE: Final = int(zmq.SNDMORE)

_FAILED: Final[dict[int, str]] = {
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "it does not know this key (revoked, of another installation, or lent to another process)",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "the two do not speak the same protocol",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "the handshake broke off; it died, or its public key is not the one in the connection file",
}


def handshake_until(until: float) -> float:
    """Seconds to wait for a handshake, where a kernel is waited for until `monotonic` reads `until`; it is given one real chance."""
    left = until - monotonic()
    return HANDSHAKE_S if left < 0 else min(HANDSHAKE_S, max(left, _LEAST_S))


class Dealer:
    """One connection to the kernel, for as long as it holds. It can be used when the handshake is over: see `shake_hands`."""

    def __init__(self, endpoint: str, server_key: str, key: Key, context: "zmq.Context[Any] | None" = None) -> None:
        self.endpoint = endpoint
        self.principal = key.principal
        self.owner = threading.get_ident()
        self.socket: zmq.Socket[bytes] = (context or zmq.Context.instance()).socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 200)  # ms; time for a last message to leave when the process ends
        self.socket.setsockopt(zmq.CURVE_SERVERKEY, server_key.encode())
        self.socket.setsockopt(zmq.CURVE_PUBLICKEY, key.public.encode())
        self.socket.setsockopt(zmq.CURVE_SECRETKEY, key.secret.encode())
        self.socket.setsockopt(zmq.RECONNECT_IVL, 50)  # ms; until the first handshake
        self.monitor: zmq.Socket[bytes] = self.socket.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | sum(_FAILED)
        )
        self.socket.connect(endpoint)

    def send(self, frames: tuple[bytes, bytes]) -> None:
        """Send the two frames of a message."""
        self.socket.send(frames[0], _MORE)
        self.socket.send(frames[1])

    def receive(self) -> tuple[bytes, bytes]:
        """The two frames of the next message; `zmq.Again` if none comes in time."""
        return self.socket.recv(), self.socket.recv()

    def shake_hands(self, patience_s: float) -> None:
        """Wait until the kernel has accepted the connection; `UnreachableError` says why it did not, and the connection is closed."""
        accepted = False
        try:
            while not accepted and self.monitor.poll(int(patience_s * 1_000)):
                accepted = self.accepted(self.monitor.recv_multipart())
        finally:
            if not accepted:
                self.abandon()
        if not accepted:
            raise self.silent()

    def accepted(self, event: list[bytes]) -> bool:
        """Whether the monitor says that the kernel accepted us; raises `RefusedError` if it will not, `UnreachableError` if it did not."""
        kind = _kind(event)
        if kind in _FAILED:
            error = RefusedError if kind == zmq.EVENT_HANDSHAKE_FAILED_AUTH else UnreachableError
            raise error(f"The kernel at {self.endpoint} refused {self.principal}: {_FAILED[kind]}. Check the key with the administrator.")
        return bool(kind == zmq.EVENT_HANDSHAKE_SUCCEEDED)

    def silent(self) -> UnreachableError:
        """The error for a kernel that does not answer."""
        return UnreachableError(f"The kernel at {self.endpoint} did not answer. Is it running? Try `kernos status`.")

    def lost(self) -> bool:
        """Whether the connection broke since this was last asked."""
        broken = False
        while int(self.monitor.get(zmq.EVENTS)) & _IN:
            broken |= self.broke(self.monitor.recv_multipart())
        return broken

    @staticmethod
    def broke(event: list[bytes]) -> bool:
        """Whether the monitor says that the connection broke."""
        return _kind(event) == zmq.EVENT_DISCONNECTED

    def close(self) -> None:
        """Close the socket and its monitor."""
        self.socket.disable_monitor()
        self.monitor.close(0)
        self.socket.close()  # with its LINGER

    def abandon(self) -> None:
        """Close a connection that broke, and throw away what was not sent."""
        self.socket.setsockopt(zmq.LINGER, 0)
        self.close()

    def check_thread(self) -> None:
        """A ZeroMQ socket belongs to one thread; two would corrupt it silently."""
        if threading.get_ident() != self.owner:
            raise RuntimeError("A Kernel belongs to the thread that made it. Make one per thread, or use AsyncKernel.")


def _kind(event: list[bytes]) -> int:
    """Which event a monitor tells of: the first two bytes. pyzmq's own reader of them would load asyncio, a sixth of a program's start."""
    return int(struct.unpack_from("=H", event[0])[0])
