"""A policy as it is written: the files of a folder, by their paths in it, as bytes.

This is what `policy.check`, `policy.apply` and `policy.diff` carry, what an administrator edits, and what a generation keeps. Which files
belong to a policy is decided here alone; what they say is the kernel's business.
"""

import hashlib
import re
from pathlib import Path as Folder
from typing import Annotated, Final

from msgspec import Meta

from .errors import BadRequestError

MODEL: Final = "model.conf"
LIMITS: Final = "limits.toml"
FLOWS: Final = "flows.csv"
RULES: Final = "policy.d"
ROLES: Final = "roles.d"
TESTS: Final = "tests"

_SINGLE: Final = (MODEL, LIMITS, FLOWS)
_FOLDERS: Final = {RULES: ".csv", ROLES: ".csv", TESTS: ".toml"}

FilePath = Annotated[str, Meta(max_length=128, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)?\Z")]
"""A file of a policy, such as `policy.d/20-shop.csv`."""

Files = Annotated[dict[FilePath, Annotated[bytes, Meta(max_length=1 << 20)]], Meta(max_length=256)]
"""A policy: its files by path. All of it fits into one message."""

_PATH: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)?\Z")


def read_files(folder: Folder) -> Files:
    """The policy in a folder; `BadRequestError` for a folder that cannot be read, or a file in it that nobody would ever read.

    A rule in `policy.d/30-shop.cvs` would silently not count, so that such a name is an error. Hidden files and the backups of editors
    (`name~`) are left alone.
    """
    try:
        found = {name: (folder / name).read_bytes() for name in _SINGLE if (folder / name).is_file()}
        for name, suffix in _FOLDERS.items():
            for file in sorted((folder / name).iterdir()) if (folder / name).is_dir() else ():
                if not file.name.startswith(".") and not file.name.endswith("~"):
                    found[_belonging(name, suffix, file)] = file.read_bytes()
    except OSError as error:
        raise BadRequestError(f"The policy in {folder} cannot be read: {error}. Name a folder that you can read.") from None
    if not found:
        raise BadRequestError(f"{folder} holds no policy: no {RULES}, no {LIMITS}. Name the folder in which they are.")
    return found


def hash_files(files: Files) -> str:
    """16 hexadecimal digits over names and contents."""
    digest = hashlib.sha256()
    for name, data in sorted(files.items()):
        digest.update(name.encode() + b"\0" + len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()[:16]


def _belonging(folder: str, suffix: str, file: Folder) -> str:
    path = f"{folder}/{file.name}"
    if not file.is_file() or file.suffix != suffix or not _PATH.match(path):
        raise BadRequestError(
            f"{file} would never be read: what is in {folder} is called NAME{suffix}, of letters, digits, `.`, `_` and `-`. "
            "Rename it, or put it elsewhere."
        )
    return path
