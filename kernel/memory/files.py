"""Files: named bytes in a name space per owner. Held in the kernel's memory; they end with it (see CAVEATS.md)."""

from dataclasses import dataclass, field

from kernos.syscalls.errors import ConflictError, LimitError, NotFoundError

from ..limits import FILES_PER_OWNER, STORE_BYTES_PER_OWNER


@dataclass(frozen=True)
class StoredFile:
    """A file; `version` counts its writes from 1."""

    path: str
    data: bytes
    version: int


@dataclass
class Files:
    """All files, by owner and path."""

    by_owner: dict[str, dict[str, StoredFile]] = field(default_factory=dict)

    def put(self, owner: str, path: str, data: bytes, expect: int | None) -> StoredFile:
        """Write a file whole; with `expect`, only over that version (0: only if it does not exist)."""
        own = self.by_owner.setdefault(owner, {})
        before = own.get(path)
        version = before.version if before else 0
        if expect is not None and expect != version:
            raise ConflictError(f"{path} is at version {version}, not {expect}. Read it again and decide anew.", version=str(version))
        held = sum(len(file.data) for file in own.values()) - (len(before.data) if before else 0)
        if held + len(data) > STORE_BYTES_PER_OWNER or (before is None and len(own) >= FILES_PER_OWNER):
            raise LimitError(f"{owner} may keep {FILES_PER_OWNER} files of {STORE_BYTES_PER_OWNER} bytes in all. Delete something.")
        own[path] = StoredFile(path, data, version + 1)
        return own[path]

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
        self.get(owner, path)
        del self.by_owner[owner][path]
