"""`store.*`: named files with all their versions, in a name space per owner (the user an agent acts for, else the app).

`owner` names whose files are meant, if not one's own: those that he shares. A file of more than `CHUNK` bytes comes in parts: begin an
upload, send its parts in order, all of `CHUNK` bytes but the last, and finish it with the SHA-256 of the whole.
"""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from .bounds import LabelNames, Path, Principal, Text
from .call import Call, Done
from .context import Points

CHUNK: Final = 256 << 10
"""Bytes of a part."""

Prefix = Annotated[str, Meta(max_length=200, pattern=r"^[A-Za-z0-9_./-]*\Z")]
Version = Annotated[int, Meta(ge=1, le=1 << 53)]
Expected = Annotated[int, Meta(ge=0, le=1 << 53)]
Digest = Annotated[bytes, Meta(min_length=32, max_length=32)]
UploadId = Annotated[int, Meta(ge=0, le=1 << 53)]


class File(msgspec.Struct, frozen=True):
    """A version of a file without its bytes; `version` counts its writes from 1, `digest` is the SHA-256 in hexadecimal."""

    path: Path
    size: int
    version: int
    owner: Annotated[str, Meta(max_length=80)] = ""
    author: Annotated[str, Meta(max_length=80)] = ""
    time: float = 0.0
    digest: Annotated[str, Meta(max_length=64)] = ""
    labels: LabelNames = []


class FileData(msgspec.Struct, frozen=True):
    """A file, and its bytes from `start` on."""

    file: File
    data: Annotated[bytes, Meta(max_length=512 << 10)]
    start: int = 0
    labels: LabelNames = []
    """As in `file`."""


class Files(msgspec.Struct, frozen=True):
    """Files by path, or the versions of one, the oldest first."""

    files: Annotated[list[File], Meta(max_length=100_000)]
    labels: LabelNames = []
    """Of all of them."""


class Upload(msgspec.Struct, frozen=True):
    """A file that comes in parts, and how many bytes are there."""

    upload: UploadId
    size: int


class FoundPassage(msgspec.Struct, frozen=True):
    """A page of a file that has to do with a query: where it begins, in characters, what it says, and why it was found."""

    file: File
    start: int
    text: Text
    tokens: int
    points: Points


class FoundPassages(msgspec.Struct, frozen=True):
    """Passages, best first."""

    passages: Annotated[list[FoundPassage], Meta(max_length=1_024)]
    by_meaning: bool
    """Whether meaning counted; without an encoder at hand, words alone do."""
    labels: LabelNames = []
    """Of all files that the passages are of."""


class PutFile(Call[File], tag="store.put", frozen=True):
    """Write a file whole. With `expect`, only if its version is still that one (0: only if it does not exist).

    The version has these labels and those that the caller carries.
    """

    path: Path
    data: Annotated[bytes, Meta(max_length=512 << 10)]
    expect: Expected | None = None
    owner: Principal | None = None
    labels: LabelNames = []


class GetFile(Call[FileData], tag="store.get", frozen=True):
    """Read a file: its newest version unless one is named, from `start` on and at most `limit` bytes; `file.size` tells if that is all."""

    path: Path
    version: Version | None = None
    start: Annotated[int, Meta(ge=0, le=1 << 53)] = 0
    limit: Annotated[int, Meta(ge=1, le=512 << 10)] = 512 << 10
    owner: Principal | None = None


class ListFiles(Call[Files], tag="store.list", frozen=True):
    """Files whose path begins with `prefix`."""

    prefix: Prefix = ""
    owner: Principal | None = None


class DeleteFile(Call[Done], tag="store.delete", frozen=True):
    """Remove a file with all its versions."""

    path: Path
    owner: Principal | None = None


class MoveFile(Call[File], tag="store.move", frozen=True):
    """Give a file another path, where there is none; its versions go with it."""

    path: Path
    to: Path
    expect: Expected | None = None
    owner: Principal | None = None


class ListVersions(Call[Files], tag="store.history", frozen=True):
    """All versions of a file, the oldest first."""

    path: Path
    owner: Principal | None = None


class RollbackFile(Call[File], tag="store.rollback", frozen=True):
    """Make an old version the newest one again; those between stay in the history."""

    path: Path
    version: Version
    owner: Principal | None = None


class SearchFiles(Call[FoundPassages], tag="store.search", frozen=True):
    """What files say that has to do with a query, at most `budget` tokens together: of those below `prefix` that the caller may read.

    The newest versions are searched, of files that are text (UTF-8), and of large ones the first 256 KiB. What was written just now is
    found by its words at once, and by meaning soon.
    """

    query: Text
    prefix: Prefix = ""
    limit: Annotated[int, Meta(ge=1, le=1_024)] = 10
    budget: Annotated[int, Meta(ge=1, le=1 << 20)] = 1 << 20
    owner: Principal | None = None


class ShareFiles(Call[Done], tag="store.share", frozen=True):
    """Share the file or the folder of this path with a principal, who may then read or also write; without `access` no more.

    It is the path that is shared: also a file that is put there later, until this is taken back.
    """

    path: Path
    principal: Principal
    access: Literal["read", "write"] | None = None


class BeginUpload(Call[Upload], tag="store.begin", frozen=True):
    """Begin to write a file in parts; it is thrown away if it is not finished within an hour."""

    path: Path
    owner: Principal | None = None


class UploadPart(Call[Upload], tag="store.part", frozen=True):
    """Part `number`, counted from 0. One that is sent again is taken for what it is."""

    upload: UploadId
    number: Annotated[int, Meta(ge=0, le=1 << 20)]
    data: Annotated[bytes, Meta(min_length=1, max_length=CHUNK)]


class FinishUpload(Call[File], tag="store.finish", frozen=True):
    """Make what came the newest version, if its SHA-256 is this."""

    upload: UploadId
    digest: Digest
    expect: Expected | None = None
    labels: LabelNames = []
    """As in `store.put`."""
