"""Thin objects over the calls: `Context` and `Store` read like what they stand for. For `Kernel`; async code makes the calls itself."""

from collections.abc import Iterator

from .client import Kernel
from .context import AppendContext, DeleteContext, OpenContext, ReadContext
from .model import Message
from .store import DeleteFile, File, GetFile, ListFiles, PutFile

_PAGE = 100


class Context:
    """A conversation kept by the kernel under a name; made when it is first opened."""

    def __init__(self, kernel: Kernel, name: str) -> None:
        self._kernel = kernel
        self.id = kernel.call(OpenContext(name=name)).context

    def append(self, *messages: Message) -> None:
        """Put messages at the end, all or none."""
        self._kernel.call(AppendContext(context=self.id, messages=list(messages)))

    def __iter__(self) -> Iterator[Message]:
        start, total = 0, 1
        while start < total:
            part = self._kernel.call(ReadContext(context=self.id, start=start, limit=_PAGE))
            yield from part.messages
            start, total = start + _PAGE, part.total

    def __len__(self) -> int:
        return self._kernel.call(ReadContext(context=self.id, limit=1)).total

    def delete(self) -> None:
        """Remove the context and its messages for good."""
        self._kernel.call(DeleteContext(context=self.id))


class Store:
    """The owner's files, as a mapping from paths to bytes would read them."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def put(self, path: str, data: bytes, *, expect: int | None = None) -> File:
        """Write a file whole; with `expect`, only over that version (0: only if new), else `ConflictError`."""
        return self._kernel.call(PutFile(path=path, data=data, expect=expect))

    def get(self, path: str) -> bytes:
        """The bytes of a file; `NotFoundError` if there is none."""
        return self._kernel.call(GetFile(path=path)).data

    def list(self, prefix: str = "") -> list[File]:
        """Files whose path begins with `prefix`."""
        return self._kernel.call(ListFiles(prefix=prefix)).files

    def delete(self, path: str) -> None:
        """Remove a file."""
        self._kernel.call(DeleteFile(path=path))
