"""Files: named bytes in a name space per owner. Held in the kernel's memory; they end with it (see CAVEATS.md).

A file is charged to those on whose behalf it was last written: its owner and an app.
"""

from dataclasses import dataclass, field

from kernos.syscalls.errors import ConflictError, LimitError, NotFoundError

from ..core.quotas import Limits, Payers, Quotas


@dataclass(frozen=True)
class StoredFile:
    """A file; `version` counts its writes from 1."""

    path: str
    data: bytes
    version: int
    payers: Payers


@dataclass
class Files:
    """All files, by owner and path."""

    quotas: Quotas
    by_owner: dict[str, dict[str, StoredFile]] = field(default_factory=dict)

    def put(self, owner: str, path: str, data: bytes, expect: int | None, payers: Payers, now: float) -> StoredFile:
        """Write a file whole; with `expect`, only over that version (0: only if it does not exist)."""
        own = self.by_owner.setdefault(owner, {})
        before = own.get(path)
        version = before.version if before else 0
        if expect is not None and expect != version:
            raise ConflictError(f"{path} is at version {version}, not {expect}. Read it again and decide anew.", version=str(version))
        self._charge(before, payers, len(data), now)
        own[path] = StoredFile(path, data, version + 1, payers)
        return own[path]

    def _charge(self, before: StoredFile | None, payers: Payers, size: int, now: float) -> None:
        """Charge a file in the place of another; what it replaces does not count."""
        if before is None:
            self.quotas.take(payers, {"files": 1, "bytes": size}, now)
        elif before.payers == payers:
            self.quotas.take(payers, {"bytes": size - len(before.data)}, now)
        else:
            old: Limits = {"files": 1, "bytes": len(before.data)}
            self.quotas.give(before.payers, old)
            try:
                self.quotas.take(payers, {"files": 1, "bytes": size}, now)
            except LimitError:
                self.quotas.hold(before.payers, old, now)
                raise

    def get(self, owner: str, path: str) -> StoredFile:
        """A file of an owner."""
        try:
            return self.by_owner[owner][path]
        except KeyError:
            raise NotFoundError(f"{owner} has no file {path}. `store.list` shows what there is.") from None

    def list(self, owner: str, prefix: str) -> list[StoredFile]:
        """Files whose path begins with `prefix`, by path."""
        own = self.by_owner.get(owner, {})
        return [own[path] for path in sorted(own) if path.startswith(prefix)]

    def delete(self, owner: str, path: str) -> None:
        """Remove a file."""
        file = self.get(owner, path)
        del self.by_owner[owner][path]
        self.quotas.give(file.payers, {"files": 1, "bytes": len(file.data)})
