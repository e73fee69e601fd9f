"""`AsyncKernel`: system calls from asyncio code, many at once on one connection.

async with AsyncKernel() as kernel:
    agent = await kernel.spawn("greeter")
    async for chunk in agent.stream(Generate(model="smollm2-135m", messages=[Message("user", "Good morning!")])):
        print(chunk.text, end="")
"""

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Generic, Self, TypeVar, cast

import zmq
import zmq.asyncio

from .call import Call, StreamingCall
from .errors import DeadlineError, KernosError
from .keys import Key, own_key
from .places import Places, places, read_connection
from .process import Exit, Priority, Right, Spawn
from .requests import Answer, Numbers, Request, event_of, gone_answer, is_last, lost_answer, make_request, outcome, read_answer
from .system import Cancel
from .transport import HANDSHAKE_S, Dealer
from .wire import Kind

R = TypeVar("R")
E = TypeVar("E")


class _AsyncLine:
    """A connection whose reader sorts answers into a queue per call in flight."""

    def __init__(self, endpoint: str, server_key: str, key: Key) -> None:
        self.dealer = Dealer(endpoint, server_key, key)
        self.socket = zmq.asyncio.Socket.shadow(self.dealer.socket.underlying)
        self.boxes: dict[int, asyncio.Queue[Answer]] = {}
        self.monitor = zmq.asyncio.Socket.shadow(self.dealer.monitor.underlying)
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._watch())]

    async def send(self, request: Request) -> None:
        self.boxes[request.id] = asyncio.Queue()
        await self.socket.send_multipart(request.frames)

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
        self.dealer.close()

    async def _read(self) -> None:
        while True:
            answer = read_answer(await self.socket.recv_multipart())
            if answer.kind == Kind.CUT_OFF:
                self._end_all(answer)
            elif (box := self.boxes.get(answer.id)) is not None:
                box.put_nowait(answer)

    async def _watch(self) -> None:
        # Events, not looks now and then: answers of a kernel that came back at once would hide that calls were lost with the one before.
        while True:
            try:
                async with asyncio.timeout(None if self.dealer.down_since is None else HANDSHAKE_S):
                    broken = self.dealer.note(await self.monitor.recv_multipart())
            except TimeoutError:
                self._end_all(gone_answer())
            else:
                if broken:
                    self._end_all(lost_answer())

    def _end_all(self, answer: Answer) -> None:
        for box in self.boxes.values():
            box.put_nowait(answer)


class _AsyncLink:
    """The two lines of a process to the kernel, connected when first needed."""

    def __init__(self, where: Places, key: Key | None) -> None:
        self.connection = read_connection(where)
        self.key = key or own_key(where)
        self.numbers = Numbers()
        self._lines: dict[str, _AsyncLine] = {}

    def line(self, urgent: bool) -> _AsyncLine:
        endpoint = self.connection.control if urgent else self.connection.calls
        if endpoint not in self._lines:
            self._lines[endpoint] = _AsyncLine(endpoint, self.connection.public_key, self.key)
        return self._lines[endpoint]

    async def close(self) -> None:
        for line in self._lines.values():
            await line.close()


class AsyncKernel:
    """A handle on the kernel for asyncio code; the same calls as `Kernel`, as coroutines."""

    def __init__(self, key: Key | None = None, *, where: Places | None = None) -> None:
        self._link = _AsyncLink(where or places(), key)
        self.pid = 0

    async def call(self, call: Call[R], *, timeout: float | None = None, key: str | None = None, urgent: bool = False) -> R:
        """Make a system call and wait for its reply; see `Kernel.call`. Cancelling the task cancels the call."""
        line = self._link.line(urgent)
        request = make_request(call, self._link.numbers.take(), self.pid, False, timeout, key)
        await line.send(request)
        try:
            return cast(R, outcome(request.row, await line.last(request)))
        except asyncio.CancelledError:
            line.forget(request)
            await self._cancel_quietly(request.id)
            raise

    def stream(self, call: StreamingCall[E, R], *, timeout: float | None = None, key: str | None = None) -> "AsyncStream[E, R]":
        """Make a system call and iterate over its events; the reply is awaited with `result()`."""
        return AsyncStream(self, make_request(call, self._link.numbers.take(), self.pid, True, timeout, key))

    async def cancel(self, call_id: int) -> None:
        """End one of the principal's calls in flight; its caller gets `CancelledError`."""
        await self.call(Cancel(id=call_id), urgent=True)

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
        await self.call(Exit(pid=self.pid, code=code, reason=reason))

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

    def __init__(self, kernel: AsyncKernel, request: Request) -> None:
        self.id = request.id
        self._kernel = kernel
        self._request = request
        self._line = kernel._link.line(urgent=False)
        self._sent = False
        self._last: Answer | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E:
        await self._send()
        while self._last is None:
            try:
                answer = await self._line.next(self._request)
            except asyncio.CancelledError:
                await self.close()
                raise
            if is_last(answer):
                self._last = answer
                outcome(self._request.row, answer)  # an error ends the iteration as itself
            elif (event := event_of(self._request.row, answer)) is not None:
                return cast(E, event)
        raise StopAsyncIteration

    async def result(self) -> R:
        """The reply; waits for it, leaving out the events not yet taken."""
        async for _ in self:
            pass
        assert self._last is not None  # noqa: S101  (the loop ends with the last answer or an error)
        return cast(R, outcome(self._request.row, self._last))

    async def close(self) -> None:
        """Cancel the call unless it has ended."""
        if self._sent and self._last is None:
            self._line.forget(self._request)
            await self._kernel._cancel_quietly(self.id)

    async def _send(self) -> None:
        if not self._sent:
            self._sent = True
            await self._line.send(self._request)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()
