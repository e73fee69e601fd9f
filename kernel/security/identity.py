"""Principals and their public keys: one small file per principal, so that enrolling one never rewrites the others.

Device servers are principals too, with a key made at each start and forgotten with the process.
"""

from pathlib import Path

from kernos.syscalls.errors import ConflictError, LimitError

PRINCIPALS = 100_000
"""Enrolled principals; each is a file of 40 bytes and a row of a dict."""


class Identities:
    """Which key belongs to whom. A principal has one key; giving it another replaces the first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._by_key: dict[str, str] = {}
        self._by_principal: dict[str, str] = {}
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for file in folder.glob("*.pub"):
            self.add(file.stem.replace("-", ":", 1), file.read_text("ascii").strip())

    def principal(self, public_key: str) -> str | None:
        """Whose key this is."""
        return self._by_key.get(public_key)

    def knows(self, principal: str) -> bool:
        """Whether this principal has a key."""
        return principal in self._by_principal

    def add(self, principal: str, public_key: str) -> None:
        """Know a principal by this key, for as long as the kernel lives; raises as `check` does."""
        self.check(principal, public_key)
        self.remove(principal)
        self._by_key[public_key] = principal
        self._by_principal[principal] = public_key

    def check(self, principal: str, public_key: str) -> None:
        """Raise unless the principal can have this key."""
        if self._by_key.get(public_key, principal) != principal:
            raise ConflictError(f"This key is that of {self._by_key[public_key]}. Make a key for each principal.")
        if principal not in self._by_principal and len(self._by_key) >= PRINCIPALS:
            raise LimitError(f"There are {PRINCIPALS} principals already.")

    def remove(self, principal: str) -> None:
        """Know a principal no more."""
        self._by_key.pop(self._by_principal.pop(principal, ""), None)

    def keep(self, principal: str, public_key: str) -> None:
        """Write a principal's key down, whole or not at all."""
        path = self.folder / f"{principal.replace(':', '-', 1)}.pub"
        part = path.with_suffix(".part")
        part.write_text(public_key, "ascii")
        part.replace(path)
