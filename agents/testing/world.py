"""What a fake kernel holds in memory, and what its calls do to it: a handler per call."""

import asyncio
import math
import re
import zlib
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import singledispatchmethod
from itertools import count
from typing import Any, Final, NamedTuple

import msgspec

from kernos.syscalls import ROWS, Call, Done
from kernos.syscalls import context as contexts
from kernos.syscalls import message as mail
from kernos.syscalls import model as models
from kernos.syscalls import process as processes
from kernos.syscalls import store as files
from kernos.syscalls import tool as tools
from kernos.syscalls.errors import ConflictError, KernosError, NotFoundError, ToolError, UnknownCallError

Answers = Iterable[str | KernosError] | Callable[[models.Generate], str | KernosError]

_DIM: Final = 256


class Caller(NamedTuple):
    """Who makes a call."""

    principal: str
    pid: int
    user: str | None

    @property
    def owner(self) -> str:
        """Who owns what the caller makes: the user it acts for, else the app."""
        return self.user or self.principal


class World:
    """The state, shared by all handles of a fake kernel."""

    def __init__(self, answers: Answers) -> None:
        script = iter(()) if callable(answers) else iter(answers)
        self.answer = answers if callable(answers) else lambda _: next(script, NotFoundError("FakeKernel has no answer left."))
        self.numbers = count(1)
        self.agents: dict[int, str | None] = {}
        self.contexts: dict[str, tuple[str, str, list[models.Message]]] = {}
        self.notices: dict[str, asyncio.Queue[tuple[int, int]]] = defaultdict(asyncio.Queue)
        """By context, messages that are about to leave its window: put some here for `context.notice`."""
        self.summaries: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
        self.mail: dict[str, asyncio.Queue[mail.Mail]] = defaultdict(asyncio.Queue)
        self.tools: dict[str, tuple[tools.Tool, asyncio.Queue[tools.Invocation]]] = {}
        self.invocations: dict[str, tuple[str, asyncio.Future[str]]] = {}
        self.files: dict[tuple[str, str], files.FileData] = {}


@dataclass(frozen=True)
class Work:
    """A call being carried out for its caller."""

    world: World
    caller: Caller

    @singledispatchmethod
    async def do(self, call: Call[Any]) -> Any:
        """Carry out a call."""
        raise UnknownCallError(f"FakeKernel does not know {ROWS[type(call)].name}. Test this against a real kernel.")

    @do.register
    async def _(self, call: processes.Spawn) -> processes.Spawned:
        pid = next(self.world.numbers)
        self.world.agents[pid] = call.user
        return processes.Spawned(pid)

    @do.register
    async def _(self, call: processes.Exit) -> Done:
        self.world.agents.pop(call.pid, None)
        return Done()

    @do.register
    async def _(self, _call: models.ListModels) -> models.Models:
        return models.Models([], decoder="fake-decoder", encoder="fake-encoder")

    @do.register
    async def _(self, call: models.Generate) -> models.Generation:
        answer = self.world.answer(call)
        if isinstance(answer, KernosError):
            raise answer
        if call.context is not None:
            self._messages(call.context).extend([*call.messages, models.Message("assistant", answer)])
        prompt = sum(len(message.text.split()) for message in call.messages)
        usage = models.Usage(prompt, len(answer.split()))
        return models.Generation(answer, "stop", usage, [zlib.crc32(word.encode()) for word in answer.split()], resumed=0)

    @do.register
    async def _(self, call: models.Embed) -> models.Embeddings:
        return models.Embeddings(_DIM, len(call.texts), b"".join(_vector(text).tobytes() for text in call.texts))

    @do.register
    async def _(self, call: contexts.OpenContext) -> contexts.ContextInfo:
        for id_, (owner, name, _) in self.world.contexts.items():
            if (owner, name) == (self.caller.owner, call.name):
                return self._info(id_)
        id_ = f"c{next(self.world.numbers)}"
        self.world.contexts[id_] = (self.caller.owner, call.name, [])
        return self._info(id_)

    @do.register
    async def _(self, call: contexts.AppendContext) -> contexts.ContextInfo:
        self._messages(call.context).extend(call.messages)
        return self._info(call.context)

    @do.register
    async def _(self, call: contexts.ReadContext) -> contexts.ContextPart:
        messages = self._messages(call.context)
        return contexts.ContextPart(messages[call.start : call.start + call.limit], call.start, len(messages))

    @do.register
    async def _(self, call: contexts.SearchContexts) -> contexts.RecalledPages:
        wanted, pages = set(_words(call.query)), []
        for id_, (owner, _, messages) in self.world.contexts.items():
            for number, message in enumerate(messages if owner == self.caller.owner else ()):
                if (shared := wanted & set(_words(message.text))) and (not call.roles or message.role in call.roles):
                    points = contexts.Points(len(shared), 0.0, len(shared), 0.0)
                    pages.append(contexts.Recalled(id_, number, message.role, message.text, 0.0, len(message.text.split()), points))
        return contexts.RecalledPages(sorted(pages, key=lambda page: -page.points.score)[: call.limit], by_meaning=False)

    @do.register
    async def _(self, call: contexts.AwaitNotice) -> contexts.Notice:
        self._messages(call.context)
        start, stop = await self.world.notices[call.context].get()
        return contexts.Notice(call.context, start, stop, self._messages(call.context)[start:stop], deadline=0.0)

    @do.register
    async def _(self, call: contexts.SummarizeContext) -> Done:
        if not call.start < call.stop <= len(self._messages(call.context)):
            raise ConflictError(f"The context {call.context} has no messages {call.start} to {call.stop}.")
        self.world.summaries[call.context].append((call.start, call.stop, call.text))
        return Done()

    @do.register
    async def _(self, call: mail.Send) -> mail.Sent:
        id_ = f"m{next(self.world.numbers)}"
        user = self.caller.user
        self.world.mail[call.to].put_nowait(mail.Mail(id_, self.caller.principal, self.caller.pid, user, call.to, call.text, 0.0, 0))
        return mail.Sent(id_)

    @do.register
    async def _(self, call: mail.Receive) -> mail.Mail:
        box = self.world.mail[call.mailbox]
        letter = await box.get()
        return msgspec.structs.replace(letter, waiting=box.qsize())

    @do.register
    async def _(self, call: tools.ListTools) -> tools.Tools:
        return tools.Tools([tool for name, (tool, _) in self.world.tools.items() if name.startswith(call.prefix)])

    @do.register
    async def _(self, call: tools.CallTool) -> tools.ToolResult:
        if call.tool not in self.world.tools:
            raise NotFoundError(f"Nobody serves the tool {call.tool}.")
        id_ = f"i{next(self.world.numbers)}"
        invocation = tools.Invocation(id_, self.caller.principal, self.caller.pid, self.caller.user, call.arguments)
        answered: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.world.invocations[id_] = (call.tool, answered)
        self.world.tools[call.tool][1].put_nowait(invocation)
        return tools.ToolResult(await answered, 0.0)

    @do.register
    async def _(self, call: tools.AnswerTool) -> Done:
        tool, answered = self.world.invocations.pop(call.invocation)
        if call.error is None:
            answered.set_result(call.result)
        else:
            answered.set_exception(ToolError(f"{tool} failed: {call.error}"))
        return Done()

    @do.register
    async def _(self, call: files.PutFile) -> files.File:
        old = self.world.files.get((self.caller.owner, call.path))
        version = old.file.version if old else 0
        if call.expect not in (None, version):
            raise ConflictError(f"{call.path} is at version {version}, not {call.expect}.")
        file = files.File(call.path, len(call.data), version + 1)
        self.world.files[self.caller.owner, call.path] = files.FileData(file, call.data)
        return file

    @do.register
    async def _(self, call: files.GetFile) -> files.FileData:
        if (self.caller.owner, call.path) not in self.world.files:
            raise NotFoundError(f"{self.caller.owner} has no file {call.path}.")
        return self.world.files[self.caller.owner, call.path]

    @do.register
    async def _(self, call: files.DeleteFile) -> Done:
        if self.world.files.pop((self.caller.owner, call.path), None) is None:
            raise NotFoundError(f"{self.caller.owner} has no file {call.path}.")
        return Done()

    @do.register
    async def _(self, call: files.ListFiles) -> files.Files:
        own = [data.file for (owner, path), data in self.world.files.items() if owner == self.caller.owner and path.startswith(call.prefix)]
        return files.Files(sorted(own, key=lambda file: file.path))

    def _messages(self, context: str) -> list[models.Message]:
        owner, _, messages = self.world.contexts.get(context, ("", "", []))
        if owner != self.caller.owner:
            raise NotFoundError(f"{self.caller.owner} has no context {context}.")
        return messages

    def _info(self, context: str) -> contexts.ContextInfo:
        owner, name, messages = self.world.contexts[context]
        return contexts.ContextInfo(context, name, owner, len(messages))


def _vector(text: str) -> "array[float]":
    counts = array("f", bytes(4 * _DIM))
    for word in _words(text):
        counts[zlib.crc32(word.encode()) % _DIM] += 1.0
    length = math.hypot(*counts) or 1.0
    return array("f", (value / length for value in counts))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
