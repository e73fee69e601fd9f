"""`Kernel`: system calls from ordinary, blocking code.

    with Kernel() as kernel:
        agent = kernel.spawn("greeter")
        answer = agent.call(Generate(model="smollm2-135m", messages=[Message("user", "Good morning!")]))

A `Kernel` is a handle: a connection and the pid of the agent that calls. `spawn` gives another handle on the same connection. A
connection belongs to the thread that made it. If the kernel dies, the handle waits for the next one and goes on: see `attempts.py`.
"""

from collections import deque
from contextlib import suppress
from itertools import count
from time import monotonic, sleep
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast

import zmq

from .attempts import LOST, Attempts, pause_after
from .call import Call, StreamingCall
from .errors import CancelledError, DeadlineError, KernelRestartedError, UnreachableError
from .keys import Key, own_key
from .places import Places, places, read_connection
from .process import Exit, Priority, Right, Spawn
from .requests import Answer, Numbers, Request, event_of, is_last, lost_answer, outcome, read_answer
from .system import Cancel
from .transport import Dealer, handshake_until
from .wire import Kind

R = TypeVar("R")
E = TypeVar("E")

_LOOK_MS = 100
"""How often a waiting call looks whether the connection still stands."""


class _Line:
    """A connection, and a box per call in flight with the answers that arrived while another call was being waited for."""

    def __init__(self, endpoint: str, server_key: str, key: Key, patience_s: float) -> None:
        self.dealer = Dealer(endpoint, server_key, key)
        self.dealer.shake_hands(patience_s)
        self.dealer.socket.setsockopt(zmq.RCVTIMEO, _LOOK_MS)
        self.boxes: dict[int, deque[Answer]] = {}
        self._broken = False

    def broken(self) -> bool:
        """Whether the connection is lost; then every call in flight has been told."""
        self.dealer.check_thread()
        if not self._broken and self.dealer.lost():
            self._broken = True
            self._end_all(lost_answer())
            self.dealer.abandon()
        return self._broken

    def send(self, request: Request) -> None:
        self.boxes[request.id] = deque()
        self.dealer.send(request.frames)

    def next(self, request: Request, until: float | None) -> Answer:
        """The next answer to a request, waiting at most until `monotonic` reads `until`."""
        box = self.boxes.get(request.id)
        if box is None:
            raise CancelledError(f"This {request.row.name} has been given up.")
        while not box:
            try:
                self._sort(read_answer(self.dealer.receive()))
            except zmq.Again:
                self._look(request, until)
        answer = box.popleft()
        if is_last(answer):
            self.forget(request)
        return answer

    def forget(self, request: Request) -> None:
        self.boxes.pop(request.id, None)

    def last(self, request: Request, until: float | None) -> Answer:
        """The last answer to a request; others are left out."""
        while not is_last(answer := self.next(request, until)):
            pass
        return answer

    def close(self) -> None:
        if not self._broken:
            self._broken = True
            self.dealer.close()

    def _sort(self, answer: Answer) -> None:
        if answer.kind == Kind.CUT_OFF:
            self._end_all(answer)
        elif (box := self.boxes.get(answer.id)) is not None:
            box.append(answer)

    def _look(self, request: Request, until: float | None) -> None:
        if not self.broken() and until is not None and monotonic() > until:
            self.forget(request)
            raise DeadlineError(f"The kernel gave no answer to {request.row.name} in time; it may be stopped. See `kernos status`.")

    def _end_all(self, answer: Answer) -> None:
        for box in self.boxes.values():
            box.append(answer)


class _Link:
    """The two lines of a process to the kernel: one for work, and, once it is needed, one that never queues behind work."""

    def __init__(self, where: Places, key: Key) -> None:
        self.where = where
        self.key = key
        self.numbers = Numbers()
        self._lines: dict[bool, _Line] = {}
        self.line(urgent=False, until=float("-inf"))

    def line(self, *, urgent: bool, until: float) -> _Line:
        """A connection that holds; a new one if the last broke, for which a kernel is waited for until `monotonic` reads `until`."""
        line = self._lines.get(urgent)
        if line is None or line.broken():
            line = self._lines[urgent] = self._connect(urgent, until)
        return line

    def _connect(self, urgent: bool, until: float) -> _Line:
        for tries in count():
            try:
                connection = read_connection(self.where)
                endpoint = connection.control if urgent else connection.calls
                return _Line(endpoint, connection.public_key, self.key, handshake_until(until))
            except UnreachableError as error:
                if not error.retry or monotonic() + pause_after(tries) > until:
                    raise
                sleep(pause_after(tries))
        raise AssertionError("unreachable")  # the loop ends by returning or raising

    def close(self) -> None:
        for line in self._lines.values():
            line.close()


class Kernel:
    """A handle on the kernel for blocking code.

    `key` is who one is (default: the key that `kernos run` passed, `KERNOS_KEY`, or the administrator's), `where` the installation.
    Raises `UnreachableError` when no kernel answers or it refuses the key.
    """

    def __init__(self, key: Key | None = None, *, where: Places | None = None) -> None:
        where = where or places()
        read_connection(where)  # no kernel: that is said first
        self._link = _Link(where, key or own_key(where))
        self.pid = 0

    def call(self, call: Call[R], *, timeout: float | None = None, key: str | None = None, urgent: bool = False, retry: bool = True) -> R:
        """Make a system call and wait for its reply.

        `timeout` in seconds is the call's deadline, kept by the kernel. `key` is an idempotency key: repeat a mutating call with the
        same key and it is applied once; where none is given the client makes one. `urgent` sends a control call past all queues. A call
        whose kernel dies is made again of the next one, once applied, unless not `retry`. Raises the errors of `errors.py`.
        """
        attempts = Attempts(call, self.pid, stream=False, timeout=timeout, key=key, retry=retry)
        while True:
            try:
                return cast(R, self._attempt(attempts, urgent))
            except LOST as error:
                sleep(attempts.again(error))

    def _attempt(self, attempts: Attempts, urgent: bool) -> Any:
        line = self._link.line(urgent=urgent, until=attempts.connect_until)
        request = attempts.request(self._link.numbers.take())
        until = None if request.patience_s is None else monotonic() + request.patience_s
        try:
            line.send(request)
            return outcome(request.row, line.last(request, until))
        except KeyboardInterrupt:
            line.forget(request)
            self.cancel(request.id)
            raise

    def stream(
        self, call: StreamingCall[E, R], *, timeout: float | None = None, key: str | None = None, retry: bool = True
    ) -> "Stream[E, R]":
        """Make a system call and iterate over its events; the reply is the stream's `result`.

        If its kernel dies before the first event it is made again, as by `call`; after that it ends with `KernelRestartedError`.
        """
        return Stream(self, Attempts(call, self.pid, stream=True, timeout=timeout, key=key, retry=retry))

    def cancel(self, call_id: int) -> None:
        """End one of the principal's calls in flight; its caller gets `CancelledError`. A kernel that died has ended it already."""
        with suppress(KernelRestartedError, UnreachableError):
            self.call(Cancel(id=call_id), urgent=True, retry=False)

    def spawn(self, name: str, *, user: str | None = None, priority: Priority = "normal", rights: list[Right] | None = None) -> "Kernel":
        """Make an agent, on behalf of `user` where one is named, and return the handle that calls as this agent.

        By an agent's handle this makes a child of it; `rights` limit it further than its app, its user and its parent are: see `Spawn`.
        """
        return self.act_as(self.call(Spawn(name=name, user=user, priority=priority, rights=rights)).pid)

    def act_as(self, pid: int) -> "Kernel":
        """A handle on the same connection that calls as another agent of this principal."""
        other = object.__new__(type(self))
        other._link, other.pid = self._link, pid
        return other

    def exit(self, code: int = 0, reason: str = "") -> None:
        """End this handle's agent in good order."""
        # For the principal, not as the agent: made again it would be refused to an agent that has ended.
        self.act_as(0).call(Exit(pid=self.pid, code=code, reason=reason))

    @property
    def principal(self) -> str:
        """Whose key this connection uses."""
        return self._link.key.principal

    def close(self) -> None:
        """Close the connection, for every handle on it."""
        self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Stream(Generic[E, R]):
    """The events of a call as they come, then its `result`. Left early, as a context manager or by `close`, it cancels the call."""

    def __init__(self, kernel: Kernel, attempts: Attempts) -> None:
        self._kernel = kernel
        self._attempts = attempts
        self._begun = False
        self._begin()

    def _begin(self) -> None:
        link = self._kernel._link
        self._line = link.line(urgent=False, until=self._attempts.connect_until)
        self._request = self._attempts.request(link.numbers.take())
        self._until = None if self._request.patience_s is None else monotonic() + self._request.patience_s
        self._last: Answer | None = None
        self._line.send(self._request)

    @property
    def id(self) -> int:
        """The call's number, by which it can be cancelled."""
        return self._request.id

    @property
    def key(self) -> str | None:
        """Its idempotency key: made again with it, a generation that was completed and kept is answered at once."""
        return self._attempts.key

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> E:
        while self._last is None:
            answer = self._line.next(self._request, self._until)
            if is_last(answer):
                self._last = answer
                self._end()
            elif (event := event_of(self._request.row, answer)) is not None:
                self._begun = True
                return cast(E, event)
        raise StopIteration

    def _end(self) -> None:
        """Take the last word: an error ends the iteration as itself, or begins it anew where nothing was given yet."""
        assert self._last is not None  # noqa: S101
        try:
            outcome(self._request.row, self._last)
        except LOST as error:
            if self._begun:
                raise
            sleep(self._attempts.again(error))
            self._begin()

    @property
    def result(self) -> R:
        """The reply; waits for it, leaving out the events not yet taken."""
        for _ in self:
            pass
        assert self._last is not None  # noqa: S101  (the loop ends with the last answer or an error)
        return cast(R, outcome(self._request.row, self._last))

    def close(self) -> None:
        """Cancel the call unless it has ended."""
        if self._last is None:
            self._line.forget(self._request)
            self._kernel.cancel(self.id)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
