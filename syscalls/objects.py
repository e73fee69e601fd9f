"""Thin objects over the calls: `Context` and `Store` read like what they stand for. For `Kernel`; async code makes the calls itself."""

import hashlib
from collections.abc import Iterator
from typing import Literal

from .client import Kernel
from .context import (
    Access,
    AppendContext,
    AwaitNotice,
    CloseContext,
    ContextStat,
    DeleteContext,
    DropSnapshot,
    ExplainContext,
    ForkContext,
    GrantContext,
    LabelContext,
    Notice,
    OpenContext,
    Operation,
    PageOut,
    PinMessages,
    Prompt,
    ReadContext,
    ReadHistory,
    Recall,
    Recalled,
    RestoreContext,
    RollbackContext,
    SnapshotContext,
    StatContext,
    SummarizeContext,
    UnpinMessages,
)
from .model import Message
from .store import (
    CHUNK,
    BeginUpload,
    DeleteFile,
    File,
    FinishUpload,
    FoundPassage,
    GetFile,
    ListFiles,
    ListVersions,
    MoveFile,
    PutFile,
    RollbackFile,
    SearchFiles,
    ShareFiles,
    UploadPart,
)

_PAGE = 100


class Context:
    """A conversation kept by the kernel under a name; made when it is first opened. `model` is attached to it, if given."""

    def __init__(self, kernel: Kernel, name: str, model: str | None = None) -> None:
        self._kernel = kernel
        self.id = kernel.call(OpenContext(name=name, model=model)).context

    def append(self, *messages: Message) -> None:
        """Put messages at the end, all or none."""
        self._kernel.call(AppendContext(context=self.id, messages=list(messages)))

    def __iter__(self) -> Iterator[Message]:
        start, total = 0, 1
        while start < total:
            part = self._kernel.call(ReadContext(context=self.id, start=start, limit=_PAGE))
            yield from part.messages
            start, total = start + _PAGE, part.total

    def stat(self) -> ContextStat:
        """All about it but its messages."""
        return self._kernel.call(StatContext(context=self.id))

    def __len__(self) -> int:
        return self._kernel.call(ReadContext(context=self.id, limit=1)).total

    def fork(self, name: str) -> "Context":
        """A new context of one's own that begins as this one is now."""
        self._kernel.call(ForkContext(context=self.id, name=name))
        return Context(self._kernel, name)

    def snapshot(self, name: str) -> None:
        """Give the present state a name."""
        self._kernel.call(SnapshotContext(context=self.id, name=name))

    def restore(self, name: str) -> None:
        """Go back, or forward again, to a snapshot."""
        self._kernel.call(RestoreContext(context=self.id, name=name))

    def drop(self, name: str) -> None:
        """Forget a snapshot, and what it alone kept."""
        self._kernel.call(DropSnapshot(context=self.id, name=name))

    def rollback(self, messages: int) -> None:
        """Go back to the first `messages` messages."""
        self._kernel.call(RollbackContext(context=self.id, messages=messages))

    def history(self, limit: int = 100) -> list[Operation]:
        """The newest of all that was done to it, the oldest first."""
        return self._kernel.call(ReadHistory(context=self.id, limit=limit)).operations

    def pin(self, start: int, stop: int) -> None:
        """Keep messages in the window."""
        self._kernel.call(PinMessages(context=self.id, start=start, stop=stop))

    def unpin(self, start: int, stop: int) -> None:
        """Let messages leave the window."""
        self._kernel.call(UnpinMessages(context=self.id, start=start, stop=stop))

    def page_out(self, until: int) -> None:
        """Let the messages before `until` leave the window; they can still be read."""
        self._kernel.call(PageOut(context=self.id, until=until))

    def notice(self, grace: float = 30.0) -> Notice:
        """Wait until messages are about to leave the window; they stay for at most `grace` seconds, to be summarized."""
        return self._kernel.call(AwaitNotice(context=self.id, grace=grace))

    def summarize(self, start: int, stop: int, text: str) -> None:
        """Keep a summary of some messages, to be recalled beside them."""
        self._kernel.call(SummarizeContext(context=self.id, start=start, stop=stop, text=text))

    def recall(self, query: str, limit: int = 10) -> list[Recalled]:
        """What has left the window and has to do with a question, best first."""
        return self._kernel.call(Recall(context=self.id, query=query, limit=limit)).pages

    def explain(self, model: str, *messages: Message) -> Prompt:
        """The prompt that a turn with these messages would have; without any, the one that the model saw last."""
        return self._kernel.call(ExplainContext(context=self.id, model=model, messages=list(messages)))

    def label(self, *labels: str) -> None:
        """Set its labels."""
        self._kernel.call(LabelContext(context=self.id, labels=list(labels)))

    def grant(self, principal: str, access: Access | None) -> None:
        """Share it with a principal, or with `None` no more."""
        self._kernel.call(GrantContext(context=self.id, principal=principal, access=access))

    def close(self) -> None:
        """Let nothing be appended until it is opened again."""
        self._kernel.call(CloseContext(context=self.id))

    def delete(self) -> None:
        """Remove the context and its messages for good."""
        self._kernel.call(DeleteContext(context=self.id))


class Store:
    """The owner's files, as a mapping from paths to bytes would read them."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def put(self, path: str, data: bytes, *, expect: int | None = None) -> File:
        """Write a file, in parts if it is large; with `expect`, only over that version (0: only if new), else `ConflictError`."""
        if len(data) <= CHUNK:
            return self._kernel.call(PutFile(path=path, data=data, expect=expect))
        upload = self._kernel.call(BeginUpload(path=path)).upload
        for number, start in enumerate(range(0, len(data), CHUNK)):
            self._kernel.call(UploadPart(upload=upload, number=number, data=data[start : start + CHUNK]))
        return self._kernel.call(FinishUpload(upload=upload, digest=hashlib.sha256(data).digest(), expect=expect))

    def get(self, path: str, version: int | None = None) -> bytes:
        """The bytes of a file, in its newest version unless one is named; `NotFoundError` if there is none."""
        part = self._kernel.call(GetFile(path=path, version=version))
        data = bytearray(part.data)
        while len(data) < part.file.size:  # of the version that was begun with
            data += self._kernel.call(GetFile(path=path, version=part.file.version, start=len(data))).data
        return bytes(data)

    def history(self, path: str) -> list[File]:
        """All versions of a file, the oldest first."""
        return self._kernel.call(ListVersions(path=path)).files

    def rollback(self, path: str, version: int) -> File:
        """Make an old version the newest one again."""
        return self._kernel.call(RollbackFile(path=path, version=version))

    def move(self, path: str, to: str) -> File:
        """Give a file another path, where there is none."""
        return self._kernel.call(MoveFile(path=path, to=to))

    def share(self, path: str, principal: str, access: Literal["read", "write"] | None) -> None:
        """Share a file or a folder with a principal, or with `None` no more."""
        self._kernel.call(ShareFiles(path=path, principal=principal, access=access))

    def search(self, query: str, prefix: str = "", limit: int = 10) -> list[FoundPassage]:
        """What files below `prefix` say that has to do with a query, best first."""
        return self._kernel.call(SearchFiles(query=query, prefix=prefix, limit=limit)).passages

    def list(self, prefix: str = "") -> list[File]:
        """Files whose path begins with `prefix`."""
        return self._kernel.call(ListFiles(prefix=prefix)).files

    def delete(self, path: str) -> None:
        """Remove a file."""
        self._kernel.call(DeleteFile(path=path))
