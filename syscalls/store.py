"""`store.*`: named files, in a name space per owner (the user an agent acts for, else the app)."""

from typing import Annotated

import msgspec
from msgspec import Meta

from .bounds import Path
from .call import Call, Done

Prefix = Annotated[str, Meta(max_length=200, pattern=r"^[A-Za-z0-9_./-]*\Z")]


class File(msgspec.Struct, frozen=True):
    """A file without its bytes; `version` counts its writes from 1."""

    path: Path
    size: int
    version: int


class FileData(msgspec.Struct, frozen=True):
    """A file with its bytes."""

    file: File
    data: Annotated[bytes, Meta(max_length=512 << 10)]


class Files(msgspec.Struct, frozen=True):
    """Files by path."""

    files: Annotated[list[File], Meta(max_length=100_000)]


class PutFile(Call[File], tag="store.put", frozen=True):
    """Write a file whole. With `expect`, only if its version is still that one (0: only if it does not exist)."""

    path: Path
    data: Annotated[bytes, Meta(max_length=512 << 10)]
    expect: Annotated[int, Meta(ge=0, le=1 << 53)] | None = None


class GetFile(Call[FileData], tag="store.get", frozen=True):
    """Read a file whole."""

    path: Path


class ListFiles(Call[Files], tag="store.list", frozen=True):
    """Files whose path begins with `prefix`."""

    prefix: Prefix = ""


class DeleteFile(Call[Done], tag="store.delete", frozen=True):
    """Remove a file."""

    path: Path
