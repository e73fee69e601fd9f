"""The policies that were installed, as numbered folders that never change, and which of them is in force.

    policies/                     the working copy, for editing; nothing in it counts until it is applied
    policies/generations/0007/    what was applied, with `manifest.toml`: by whom, when, why, and a SHA-256 of every file
    policies/active               a link to the generation in force, replaced as a whole

A generation is written beside its place, flushed to the disk, and then renamed; the link likewise. So whatever ends the kernel, it comes
up with the old generation or with the new one.
"""

import hashlib
import json
import os
import shutil
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from kernos.syscalls.errors import NotFoundError, StorageError
from kernos.syscalls.policy import Generation
from kernos.syscalls.sources import FilePath, Files, hash_files

MANIFEST: Final = "manifest.toml"

KEPT: Final = 200
"""Generations that are kept: a change a day for more than half a year."""

_PART: Final = ".part"


class _Manifest(msgspec.Struct, frozen=True):
    """What a generation says about itself."""

    generation: int
    hash: str
    author: str
    time: float
    reason: str
    files: dict[FilePath, Annotated[str, Meta(min_length=64, max_length=64)]]


@dataclass(frozen=True)
class Installation:
    """A generation that was read and found to be whole."""

    generation: Generation
    files: Files


class Generations:
    """Those under a folder of policies. One process, the kernel, writes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._all = folder / "generations"
        self._active = folder / "active"

    @property
    def active(self) -> int:
        """The number of the one in force; 0 if none is."""
        try:
            return int(self._active.readlink().name)
        except (OSError, ValueError):
            return 0

    def read(self, number: int) -> Installation:
        """A generation, or that in force for 0; `NotFoundError` if there is none, `StorageError` if it is not what was installed."""
        number = number or self.active
        if not number:
            raise NotFoundError(f"{self._active} does not say which policy generation is in force: it is missing, or no link to one.")
        folder = self._all / f"{number:04}"
        try:
            manifest = _read_manifest(folder)
            files = {name: (folder / name).read_bytes() for name in manifest.files}
        except FileNotFoundError as error:
            if not folder.is_dir():
                raise NotFoundError(f"There is no generation {number}. `kernos policy history` lists those that are kept.") from None
            raise _damaged(folder, f"{error.filename} is missing") from None
        wrong = [name for name, digest in manifest.files.items() if hashlib.sha256(files[name]).hexdigest() != digest]
        if wrong or manifest.generation != number or hash_files(files) != manifest.hash:
            raise _damaged(folder, f"not as it was installed: {', '.join(wrong) or MANIFEST}")
        info = Generation(number, manifest.hash, manifest.author, manifest.time, manifest.reason, number == self.active)
        return Installation(info, files)

    def history(self) -> list[Generation]:
        """All that are kept and whole, newest first."""
        found = []
        for number in sorted(self._numbers(), reverse=True):
            with suppress(StorageError, NotFoundError):
                found.append(self.read(number).generation)
        return found

    def install(self, files: Files, author: str, reason: str, time: float) -> Generation:
        """Make a generation and put it in force; when this returns it is on the disk."""
        number = max(self._numbers(), default=0) + 1
        self._all.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in self._all.glob(f"*{_PART}"):
            shutil.rmtree(old)
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}
        manifest = _Manifest(number, hash_files(files), author, time, reason, digests)
        part, place = self._all / f"{number:04}{_PART}", self._all / f"{number:04}"
        _write_whole(part, {**files, MANIFEST: _write_manifest(manifest)})
        part.rename(place)
        _flush(self._all)
        self._point_to(place)
        self._prune(number)
        return Generation(number, manifest.hash, author, time, reason, True)

    def _point_to(self, place: Path) -> None:
        link = self.folder / f"active{_PART}"
        link.unlink(missing_ok=True)
        link.symlink_to(Path(self._all.name) / place.name)
        link.replace(self._active)
        _flush(self.folder)

    def _prune(self, newest: int) -> None:
        for number in self._numbers():
            if number <= newest - KEPT:
                shutil.rmtree(self._all / f"{number:04}", ignore_errors=True)

    def _numbers(self) -> Iterator[int]:
        with suppress(FileNotFoundError):
            yield from (int(entry.name) for entry in self._all.iterdir() if entry.name.isdecimal())


def _damaged(folder: Path, what: str) -> StorageError:
    return StorageError(f"The policy generation {folder} is damaged: {what}.")


def _read_manifest(folder: Path) -> _Manifest:
    text = (folder / MANIFEST).read_bytes()
    try:
        return msgspec.convert(tomllib.loads(text.decode("utf-8")), _Manifest)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise _damaged(folder, f"{MANIFEST}: {error}") from None


def _write_manifest(manifest: _Manifest) -> bytes:
    # A string of JSON is one of TOML, but for the character DEL.
    fields = {name: getattr(manifest, name) for name in ("generation", "hash", "author", "time", "reason")}
    lines = [f"{name} = {_toml(value)}" for name, value in fields.items()]
    lines += ["", "[files]", *(f"{_toml(name)} = {_toml(digest)}" for name, digest in manifest.files.items())]
    return ("\n".join(lines) + "\n").encode("utf-8")


def _toml(value: object) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _write_whole(folder: Path, files: Files) -> None:
    """A new folder with these files, all of it on the disk."""
    folder.mkdir(mode=0o700)
    for name, data in files.items():
        (folder / name).parent.mkdir(mode=0o700, exist_ok=True)
        with (folder / name).open("xb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), 0o400)
            os.fsync(file.fileno())
    for inner in {(folder / name).parent for name in files}:
        _flush(inner)


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
