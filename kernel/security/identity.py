"""Principals and their keys: who may connect, with which key, and from which process.

An enrolled key is a small file, so that enrolling one never rewrites the others. A key can also be *lent* to one process, as `kernos run`
does: it counts for that process alone and as long as it lives, also across a restart of the kernel. Device servers have a lent key too,
which is written nowhere. A key that was revoked or replaced never counts again.

Each key that counts has a *badge*, a text that libzmq stamps on every message of a connection made with it. A badge is never given twice,
so that taking it away ends what connections of that key may do, and no others.
"""

import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from kernos.syscalls.errors import ConflictError, LimitError

from ..memory.commits import sync_folder
from .liveness import start_time

PRINCIPALS = 100_000
"""Enrolled principals; each is a file of 40 bytes and a row of a dict."""

_REVOKED: Final = "revoked"
"""The file of keys that never count again, one a line."""


@dataclass(frozen=True)
class Holder:
    """Whom a key stands for. `os_pid` is the process it was lent to; 0: it may be used by any."""

    principal: str
    badge: str
    os_pid: int = 0


class Loan(msgspec.Struct, frozen=True):
    """A lent key as it is written down; the start time tells its process from a later one of the same pid."""

    principal: str
    public_key: str
    os_pid: int
    start_time: int


class Identities:
    """Which key belongs to whom. A principal has one enrolled key; giving it another replaces the first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._by_key: dict[str, Holder] = {}
        self._by_badge: dict[str, Holder] = {}
        self._enrolled: dict[str, str] = {}
        self._loans: dict[int, list[str]] = {}
        self._numbers = itertools.count(1)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        revoked = folder / _REVOKED
        self._revoked = set(revoked.read_text("ascii").split()) if revoked.exists() else set[str]()
        for file in folder.glob("*.pub"):
            self.add(file.stem.replace("-", ":", 1), file.read_text("ascii").strip())
        for file in folder.glob("*.loan"):
            self._take_up(file)

    # --- questions ----------------------------------------------------------------------------------------------------------------

    def holder(self, public_key: str) -> Holder | None:
        """Whose key this is."""
        return self._by_key.get(public_key)

    def principal(self, public_key: str) -> str | None:
        """As `holder`: the principal alone."""
        holder = self._by_key.get(public_key)
        return holder.principal if holder else None

    def stands(self, badge: str) -> bool:
        """Whether the key of a badge still counts; asked for every message."""
        return badge in self._by_badge

    def knows(self, principal: str) -> bool:
        """Whether this principal has a key, enrolled or lent."""
        return any(holder.principal == principal for holder in self._by_key.values())

    def revoked(self, public_key: str) -> bool:
        """Whether this key was revoked or replaced."""
        return public_key in self._revoked

    @property
    def enrolled(self) -> dict[str, str]:
        """The principals and their public keys."""
        return dict(self._enrolled)

    def check(self, principal: str, public_key: str) -> None:
        """Raise unless the principal can have this key."""
        holder = self._by_key.get(public_key)
        if public_key in self._revoked:
            raise ConflictError("This key was revoked or replaced, and never counts again. Make a new one: `kernos principal rotate`.")
        if holder is not None and (holder.principal != principal or holder.os_pid):
            raise ConflictError(f"This key is that of {holder.principal}. Make a key for each principal.")
        if principal not in self._enrolled and len(self._by_key) >= PRINCIPALS:
            raise LimitError(f"There are {PRINCIPALS} principals already.")

    # --- enrolled keys ------------------------------------------------------------------------------------------------------------

    def add(self, principal: str, public_key: str) -> None:
        """Know a principal by this key, for as long as the kernel lives; raises as `check` does."""
        self.check(principal, public_key)
        if self._enrolled.get(principal) != public_key:
            self._forget(self._enrolled.pop(principal, ""))
            self._know(public_key, principal, 0)
            self._enrolled[principal] = public_key

    def remove(self, principal: str) -> None:
        """Know a principal no more, by none of its keys."""
        self._forget(self._enrolled.pop(principal, ""))
        for os_pid in [pid for pid, keys in self._loans.items() if any(self.principal(key) == principal for key in keys)]:
            self.end_loans(os_pid)

    def keep(self, principal: str, public_key: str) -> None:
        """Write a principal's key down, whole or not at all, in the place of the one before, which never counts again."""
        path = self._file(principal)
        if path.exists() and (old := path.read_text("ascii").strip()) != public_key:
            self._strike(old)
        _write(path, public_key.encode("ascii"))

    def discard(self, principal: str) -> None:
        """Remove what is written down of a principal; its keys never count again."""
        path = self._file(principal)
        if path.exists():
            self._strike(path.read_text("ascii").strip())
            path.unlink()
        for file in self.folder.glob("*.loan"):
            loan = _read_loan(file)
            if loan is not None and loan.principal == principal:
                self._strike(loan.public_key)
                file.unlink()
        sync_folder(self.folder)

    # --- lent keys ----------------------------------------------------------------------------------------------------------------

    def lend(self, principal: str, public_key: str, os_pid: int) -> None:
        """Know a principal also by this key, of this process alone and until `end_loans`; raises `ConflictError` if the key is taken."""
        if public_key in self._by_key or public_key in self._revoked:
            raise ConflictError("This key is in use. Make a new one for each process.")
        self._know(public_key, principal, os_pid)
        self._loans.setdefault(os_pid, []).append(public_key)

    def keep_loan(self, loan: Loan) -> None:
        """Write a lent key down, so that its process is known also to the next kernel."""
        _write(self.folder / f"{loan.os_pid}.loan", msgspec.json.encode(loan))

    def end_loans(self, os_pid: int) -> None:
        """The process has ended, or shall have no key any more."""
        for key in self._loans.pop(os_pid, []):
            self._forget(key)

    def discard_loan(self, os_pid: int) -> None:
        """Remove what is written down of a lent key."""
        (self.folder / f"{os_pid}.loan").unlink(missing_ok=True)

    def _take_up(self, file: Path) -> None:
        loan = _read_loan(file)
        if loan is None or not loan.start_time or start_time(loan.os_pid) != loan.start_time:
            file.unlink()
        else:
            self.lend(loan.principal, loan.public_key, loan.os_pid)

    # --- the books ----------------------------------------------------------------------------------------------------------------

    def _know(self, public_key: str, principal: str, os_pid: int) -> None:
        holder = Holder(principal, f"{principal}#{next(self._numbers)}", os_pid)
        self._by_key[public_key] = self._by_badge[holder.badge] = holder

    def _forget(self, public_key: str) -> None:
        holder = self._by_key.pop(public_key, None)
        if holder is not None:
            del self._by_badge[holder.badge]

    def _strike(self, public_key: str) -> None:
        with (self.folder / _REVOKED).open("a", encoding="ascii") as file:
            file.write(public_key + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._revoked.add(public_key)

    def _file(self, principal: str) -> Path:
        return self.folder / f"{principal.replace(':', '-', 1)}.pub"


def principal_of(badge: str) -> str:
    """Whom a badge was given to."""
    return badge.partition("#")[0]


def _read_loan(file: Path) -> Loan | None:
    """`None` if it is not whole, or gone: its process gets another key when it is started again."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Loan)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def _write(path: Path, data: bytes) -> None:
    part = path.with_suffix(".part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    sync_folder(path.parent)
