"""`AsyncKernel`: system calls from asyncio code, many at once on one connection.

async with AsyncKernel() as kernel:
    agent = await kernel.spawn("greeter")
    async for chunk in agent.stream(Generate(model="smollm2-135m", messages=[Message("user", "Good morning!")])):
        print(chunk.text, end="")
"""

import asyncio
from contextlib import suppress
from itertools import count
from time import monotonic
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast

import zmq
import zmq.asyncio

from .attempts import LOST, Attempts, pause_after
from .call import Call, StreamingCall
from .errors import DeadlineError, KernelRestartedError, KernosError, UnreachableError
from .keys import Key, own_key
from .places import Places, places, read_connection
from .process import Exit, Priority, Right, Spawn
from .requests import Answer, Numbers, Request, event_of, is_last, lost_answer, outcome, read_answer
from .system import Cancel
from .transport import Dealer, handshake_until
from .wire import Kind

R = TypeVar("R")
E = TypeVar("E")


class _AsyncLine:
    """A connection whose reader sorts answers into a queue per call in flight."""

    def __init__(self, dealer: Dealer) -> None:
        self.dealer = dealer
        self.broken = False
        """Whether the connection is lost; then every call in flight has been told."""
        self.boxes: dict[int, asyncio.Queue[Answer]] = {}
        self._socket = cast(zmq.asyncio.Socket, dealer.socket)
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._watch())]

    @classmethod
    async def open(cls, endpoint: str, server_key: str, key: Key, patience_s: float) -> "_AsyncLine":
        """Connect and wait for the handshake; `UnreachableError` says why there is none."""
        dealer = Dealer(endpoint, server_key, key, zmq.asyncio.Context.instance())
        try:
            async with asyncio.timeout(patience_s):
                while not dealer.accepted(await _said(dealer)):
                    pass
        except TimeoutError:
            dealer.abandon()
            raise dealer.silent() from None
        except BaseException:
            dealer.abandon()
            raise
        return cls(dealer)

    async def send(self, request: Request) -> None:
        self.boxes[request.id] = asyncio.Queue()
        await self._socket.send_multipart(request.frames)

    async def next(self, request: Request) -> Answer:
        """The next answer to a request, waiting as long as its patience lasts."""
        try:
            async with asyncio.timeout(request.patience_s):
                answer = await self.boxes[request.id].get()
        except TimeoutError:
            self.forget(request)
            raise DeadlineError(
                f"The kernel gave no answer to {request.row.name} in time; it may be stopped. See `kernos status`."
            ) from None
        if is_last(answer):
            self.forget(request)
        return answer

    async def last(self, request: Request) -> Answer:
        """The last answer to a request; others are left out."""
        while not is_last(answer := await self.next(request)):
            pass
        return answer

    def forget(self, request: Request) -> None:
        self.boxes.pop(request.id, None)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.broken:
            self.dealer.abandon()
        else:
            self.dealer.close()

    async def _read(self) -> None:
        while True:
            answer = read_answer(await self._socket.recv_multipart())
            if answer.kind == Kind.CUT_OFF:
                self._end_all(answer)
            elif (box := self.boxes.get(answer.id)) is not None:
                box.put_nowait(answer)

    async def _watch(self) -> None:
        while not self.broken:
            self.broken = self.dealer.broke(await _said(self.dealer))
        self._end_all(lost_answer())

    def _end_all(self, answer: Answer) -> None:
        for box in self.boxes.values():
            box.put_nowait(answer)


async def _said(dealer: Dealer) -> list[bytes]:
    """The next event of the monitor."""
    return await cast(zmq.asyncio.Socket, dealer.monitor).recv_multipart()


class _AsyncLink:
    """The two lines of a process to the kernel, connected when first needed."""

    def __init__(self, where: Places, key: Key | None) -> None:
        read_connection(where)  # no kernel: that is said at once
        self.where = where
        self.key = key or own_key(where)
        self.numbers = Numbers()
        self._lines: dict[bool, _AsyncLine] = {}
        self._connecting = asyncio.Lock()
        self._connected = False
        """Whether there ever was a kernel: the first one is not waited for."""

    async def line(self, *, urgent: bool, until: float) -> _AsyncLine:
        """A connection that holds; a new one if the last broke, for which a kernel is waited for until `monotonic` reads `until`."""
        line = self._lines.get(urgent)
        if line is not None and not line.broken:
            return line
        async with self._connecting:  # one at a time: the others find what it made
            line = self._lines.get(urgent)
            if line is None or line.broken:
                if line is not None:
                    await self._lines.pop(urgent).close()
                line = self._lines[urgent] = await self._connect(urgent, until if self._connected else float("-inf"))
                self._connected = True
        return line

    async def _connect(self, urgent: bool, until: float) -> _AsyncLine:
        for tries in count():
            try:
                connection = read_connection(self.where)
                endpoint = connection.control if urgent else connection.calls
                return await _AsyncLine.open(endpoint, connection.public_key, self.key, handshake_until(until))
            except UnreachableError as error:
                if not error.retry or monotonic() + pause_after(tries) > until:
                    raise
                await asyncio.sleep(pause_after(tries))
        raise AssertionError("unreachable")  # the loop ends by returning or raising

    async def close(self) -> None:
        for line in self._lines.values():
            await line.close()


class AsyncKernel:
    """A handle on the kernel for asyncio code; the same calls as `Kernel`, as coroutines."""

    def __init__(self, key: Key | None = None, *, where: Places | None = None) -> None:
        self._link = _AsyncLink(where or places(), key)
        self.pid = 0

    async def call(
        self, call: Call[R], *, timeout: float | None = None, key: str | None = None, urgent: bool = False, retry: bool = True
    ) -> R:
        """Make a system call and wait for its reply; see `Kernel.call`. Cancelling the task cancels the call."""
        attempts = Attempts(call, self.pid, stream=False, timeout=timeout, key=key, retry=retry)
        while True:
            try:
                return cast(R, await self._attempt(attempts, urgent))
            except LOST as error:
                await asyncio.sleep(attempts.again(error))

    async def _attempt(self, attempts: Attempts, urgent: bool) -> Any:
        line = await self._link.line(urgent=urgent, until=attempts.connect_until)
        request = attempts.request(self._link.numbers.take())
        await line.send(request)
        try:
            return outcome(request.row, await line.last(request))
        except asyncio.CancelledError:
            line.forget(request)
            await self._cancel_quietly(request.id)
            raise

    def stream(
        self, call: StreamingCall[E, R], *, timeout: float | None = None, key: str | None = None, retry: bool = True
    ) -> "AsyncStream[E, R]":
        """Make a system call and iterate over its events; the reply is awaited with `result()`. See `Kernel.stream`."""
        return AsyncStream(self, Attempts(call, self.pid, stream=True, timeout=timeout, key=key, retry=retry))

    async def cancel(self, call_id: int) -> None:
        """End one of the principal's calls in flight; its caller gets `CancelledError`. A kernel that died has ended it already."""
        with suppress(KernelRestartedError, UnreachableError):
            await self.call(Cancel(id=call_id), urgent=True, retry=False)

    async def spawn(
        self, name: str, *, user: str | None = None, priority: Priority = "normal", rights: list[Right] | None = None
    ) -> "AsyncKernel":
        """Make an agent, on behalf of `user` where one is named, and return the handle that calls as this agent.

        By an agent's handle this makes a child of it; `rights` limit it further than its app, its user and its parent are: see `Spawn`.
        """
        return self.act_as((await self.call(Spawn(name=name, user=user, priority=priority, rights=rights))).pid)

    def act_as(self, pid: int) -> "AsyncKernel":
        """A handle on the same connection that calls as another agent of this principal."""
        other = object.__new__(type(self))
        other._link, other.pid = self._link, pid
        return other

    async def exit(self, code: int = 0, reason: str = "") -> None:
        """End this handle's agent in good order."""
        # For the principal, not as the agent: made again it would be refused to an agent that has ended.
        await self.act_as(0).call(Exit(pid=self.pid, code=code, reason=reason))

    @property
    def principal(self) -> str:
        """Whose key this connection uses."""
        return self._link.key.principal

    async def close(self) -> None:
        """Close the connection, for every handle on it."""
        await self._link.close()

    async def _cancel_quietly(self, call_id: int) -> None:
        # The task is being cancelled: an error of the cancelling call would hide that.
        with suppress(KernosError):
            await self.cancel(call_id)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()


class AsyncStream(Generic[E, R]):
    """The events of a call as they come, then its `result()`. Left early, as a context manager or by `close`, it cancels the call."""

    def __init__(self, kernel: AsyncKernel, attempts: Attempts) -> None:
        self._kernel = kernel
        self._attempts = attempts
        self._line: _AsyncLine | None = None
        self._begun = False
        self._last: Answer | None = None
        self._request = attempts.request(kernel._link.numbers.take())

    @property
    def id(self) -> int:
        """The call's number, by which it can be cancelled."""
        return self._request.id

    @property
    def key(self) -> str | None:
        """Its idempotency key: see `Stream.key`."""
        return self._attempts.key

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E:
        while self._last is None:
            line = self._line or await self._send()
            try:
                answer = await line.next(self._request)
            except asyncio.CancelledError:
                await self.close()
                raise
            if is_last(answer):
                self._last = answer
                await self._end()
            elif (event := event_of(self._request.row, answer)) is not None:
                self._begun = True
                return cast(E, event)
        raise StopAsyncIteration

    async def _send(self) -> _AsyncLine:
        line = self._line = await self._kernel._link.line(urgent=False, until=self._attempts.connect_until)
        await line.send(self._request)
        return line

    async def _end(self) -> None:
        """Take the last word: an error ends the iteration as itself, or begins it anew where nothing was given yet."""
        assert self._last is not None  # noqa: S101
        try:
            outcome(self._request.row, self._last)
        except LOST as error:
            if self._begun:
                raise
            await asyncio.sleep(self._attempts.again(error))
            self._request = self._attempts.request(self._kernel._link.numbers.take())
            self._line = self._last = None

    async def result(self) -> R:
        """The reply; waits for it, leaving out the events not yet taken."""
        async for _ in self:
            pass
        assert self._last is not None  # noqa: S101  (the loop ends with the last answer or an error)
        return cast(R, outcome(self._request.row, self._last))

    async def close(self) -> None:
        """Cancel the call unless it has ended."""
        if self._line is not None and self._last is None:
            self._line.forget(self._request)
            await self._kernel._cancel_quietly(self.id)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()
