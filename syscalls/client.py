"""`Kernel`: system calls from ordinary, blocking code.

    with Kernel() as kernel:
        agent = kernel.spawn("greeter")
        answer = agent.call(Generate(model="smollm2-135m", messages=[Message("user", "Good morning!")]))

A `Kernel` is a handle: a connection and the pid of the agent that calls. `spawn` gives another handle on the same connection. A
connection belongs to the thread that made it.
"""

from collections import deque
from time import monotonic
from types import TracebackType
from typing import Generic, Self, TypeVar, cast

import zmq

from .call import Call, StreamingCall
from .errors import CancelledError, DeadlineError
from .keys import Key, own_key
from .places import Connection, Places, places, read_connection
from .process import Exit, Priority, Right, Spawn
from .requests import Answer, Numbers, Request, event_of, gone_answer, is_last, lost_answer, make_request, outcome, read_answer
from .system import Cancel
from .transport import Dealer
from .wire import Kind

R = TypeVar("R")
E = TypeVar("E")

_LOOK_MS = 500
"""How often a waiting call looks whether the connection still stands."""


class _Line:
    """A connection, and a box per call in flight with the answers that arrived while another call was being waited for."""

    def __init__(self, endpoint: str, server_key: str, key: Key) -> None:
        self.dealer = Dealer(endpoint, server_key, key)
        self.dealer.socket.setsockopt(zmq.RCVTIMEO, _LOOK_MS)
        self.boxes: dict[int, deque[Answer]] = {}

    def send(self, request: Request) -> None:
        self.dealer.check_thread()
        # Asked before, so that a connection that broke while nobody waited does not end this call.
        if self.dealer.lost():
            self._end_all(lost_answer())
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

    def _sort(self, answer: Answer) -> None:
        if answer.kind == Kind.CUT_OFF:
            self._end_all(answer)
        elif (box := self.boxes.get(answer.id)) is not None:
            box.append(answer)

    def _look(self, request: Request, until: float | None) -> None:
        if self.dealer.lost():
            self._end_all(lost_answer())
        elif self.dealer.gone():
            self._end_all(gone_answer())
        elif until is not None and monotonic() > until:
            self.forget(request)
            raise DeadlineError(f"The kernel gave no answer to {request.row.name} in time; it may be stopped. See `kernos status`.")

    def _end_all(self, answer: Answer) -> None:
        for box in self.boxes.values():
            box.append(answer)


class _Link:
    """The two lines of a process to the kernel: one for work, and, once it is needed, one that never queues behind work."""

    def __init__(self, connection: Connection, key: Key) -> None:
        self.connection = connection
        self.key = key
        self.numbers = Numbers()
        self.work = _Line(connection.calls, connection.public_key, key)
        self._control: _Line | None = None

    @property
    def control(self) -> _Line:
        if self._control is None:
            self._control = _Line(self.connection.control, self.connection.public_key, self.key)
        return self._control

    def close(self) -> None:
        self.work.dealer.close()
        if self._control is not None:
            self._control.dealer.close()


class Kernel:
    """A handle on the kernel for blocking code.

    `key` is who one is (default: the key that `kernos run` passed, `KERNOS_KEY`, or the administrator's), `where` the installation.
    Raises `UnreachableError` when no kernel answers or it refuses the key.
    """

    def __init__(self, key: Key | None = None, *, where: Places | None = None) -> None:
        where = where or places()
        self._link = _Link(read_connection(where), key or own_key(where))
        self.pid = 0

    def call(self, call: Call[R], *, timeout: float | None = None, key: str | None = None, urgent: bool = False) -> R:
        """Make a system call and wait for its reply.

        `timeout` in seconds is the call's deadline, kept by the kernel. `key` is an idempotency key: repeat a mutating call with the
        same key and it is applied once. `urgent` sends a control call past all queues. Raises the errors of `errors.py`.
        """
        line = self._link.control if urgent else self._link.work
        request = make_request(call, self._link.numbers.take(), self.pid, False, timeout, key)
        until = None if request.patience_s is None else monotonic() + request.patience_s
        try:
            line.send(request)
            return cast(R, outcome(request.row, line.last(request, until)))
        except KeyboardInterrupt:
            line.forget(request)
            self.cancel(request.id)
            raise

    def stream(self, call: StreamingCall[E, R], *, timeout: float | None = None, key: str | None = None) -> "Stream[E, R]":
        """Make a system call and iterate over its events; the reply is the stream's `result`."""
        request = make_request(call, self._link.numbers.take(), self.pid, True, timeout, key)
        self._link.work.send(request)
        return Stream(self, self._link.work, request)

    def cancel(self, call_id: int) -> None:
        """End one of the principal's calls in flight; its caller gets `CancelledError`."""
        self.call(Cancel(id=call_id), urgent=True)

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
        self.call(Exit(pid=self.pid, code=code, reason=reason))

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

    def __init__(self, kernel: Kernel, line: _Line, request: Request) -> None:
        self.id = request.id
        self._kernel = kernel
        self._line = line
        self._request = request
        self._until = None if request.patience_s is None else monotonic() + request.patience_s
        self._last: Answer | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> E:
        while self._last is None:
            answer = self._line.next(self._request, self._until)
            if is_last(answer):
                self._last = answer
                outcome(self._request.row, answer)  # an error ends the iteration as itself
            elif (event := event_of(self._request.row, answer)) is not None:
                return cast(E, event)
        raise StopIteration

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
