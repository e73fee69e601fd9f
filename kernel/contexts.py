"""What the kernel knows of contexts without asking the disk: whose they are, with whom they are shared and who pays for them.

The law is asked before anything is carried out, and the loop never waits for the disk; so this little of every context is held in memory.
It is loaded when the kernel starts and follows what was committed. What a context holds is in the database alone.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from .core.processes import Process
from .core.quotas import Payers
from .memory import transcripts
from .memory.connection import Connection
from .memory.transcripts import ContextRow

if TYPE_CHECKING:
    from .system import System


class Known(NamedTuple):
    """A context as the law sees it."""

    owner: str
    payers: Payers
    model: str
    """The model that is attached to it; empty: none."""
    readers: frozenset[str]
    """Whom its owner lets see it."""
    labels: frozenset[str] = frozenset()
    """Of all that is in it, or is just being written."""


@dataclass
class Contexts:
    """All contexts by id."""

    system: "System"
    by_id: dict[str, Known] = field(default_factory=dict)

    def load(self, connection: Connection) -> None:
        """Take over what the database holds, and charge it."""
        now = self.system.host.now
        for payers, count, size in transcripts.charges(connection):
            self.system.quotas.hold(payers, {"contexts": count, "bytes": size}, now)
        for id_, owner, payers, model, readers, labels in transcripts.directory(connection):
            self.by_id[id_] = Known(owner, payers, model, readers, labels)

    def see(self, row: ContextRow) -> None:
        """A context was made, or opened with another model."""
        known = self.by_id.get(row.id)
        labels = frozenset(row.labels) | (known.labels if known else frozenset())
        self.by_id[row.id] = Known(row.owner, row.payers, row.model, known.readers if known else frozenset(), labels)

    def mark(self, id_: str, labels: Iterable[str], gone: frozenset[str] = frozenset()) -> None:
        """Something with these labels is about to be written into a context; it is read with them from now on."""
        if known := self.by_id.get(id_):
            self.by_id[id_] = known._replace(labels=(known.labels - gone).union(labels))

    def labels(self, ids: Iterable[str]) -> list[str]:
        """The labels of contexts, together."""
        return sorted({label for id_ in ids if id_ in self.by_id for label in self.by_id[id_].labels})

    def share(self, id_: str, principal: str, shared: bool) -> None:
        """A context was shared with somebody, or is no more."""
        if known := self.by_id.get(id_):
            readers = known.readers | {principal} if shared else known.readers - {principal}
            self.by_id[id_] = known._replace(readers=readers)

    def delete(self, row: ContextRow) -> None:
        """A context was deleted."""
        if self.by_id.pop(row.id, None) is not None:
            self.system.quotas.give(row.payers, {"contexts": 1, "bytes": row.charged})
            self.system.conversations.forget(row.id)
            self.system.notices.delete(row.id)
            self.system.storage.tell(lambda: self.system.embedder.memory.forget(row.branch))

    def whose(self, id_: str, process: Process | None) -> str:
        """What the law calls a context: `own`, `shared` or its owner's; what does not exist counts as one's own."""
        known = self.by_id.get(id_)
        caller = process.owner if process is not None else ""
        if known is None or known.owner == caller:
            return "own"
        return "shared" if caller in known.readers else known.owner

    def actor(self, id_: str, process: Process) -> str:
        """In whose name the database is asked. Whom the law lets use somebody else's context, unshared, acts as its owner."""
        return self.by_id[id_].owner if self.whose(id_, process) not in ("own", "shared") else process.owner

    def payers(self, id_: str) -> Payers:
        """Who is charged for what is put into a context."""
        return self.by_id[id_].payers if id_ in self.by_id else ()

    def model(self, id_: str) -> str:
        """The model whose tokens a context is counted in: the attached one, else the kernel's default; empty: there is none."""
        attached = self.by_id[id_].model if id_ in self.by_id else ""
        registry = self.system.registry
        return attached if attached in registry.entries else registry.default("decoder")
