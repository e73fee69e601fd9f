"""Calls with an idempotency key that this kernel was asked for: what became of each, or who waits for it. Pure.

A call that is made again gets what the first one got. What kernels before this one have carried out is in the database
(`kernel/memory/records.py`).
"""

from collections import OrderedDict
from typing import Generic, TypeVar

from ..limits import IDEMPOTENCY_RECORDS, IDEMPOTENCY_S

W = TypeVar("W")


class Record(Generic[W]):
    """One such call; `digest` tells its body from others."""

    __slots__ = ("answer", "digest", "since", "waiting")

    def __init__(self, digest: bytes, since: float) -> None:
        self.digest = digest
        self.since = since
        self.answer: bytes | None = None
        """Its encoded reply; None: it is under way."""
        self.waiting: list[W] = []
        """Who made it again meanwhile."""


class Repeats(Generic[W]):
    """Records by principal and key, the oldest first."""

    def __init__(self) -> None:
        self.records: dict[str, OrderedDict[str, Record[W]]] = {}

    def begin(self, principal: str, key: str, digest: bytes, now: float) -> Record[W] | None:
        """The record of the call that had this key before; None: there was none, or it is too old, and this call has one from now on."""
        own = self.records.setdefault(principal, OrderedDict())
        record = own.get(key)
        if record is not None and (record.answer is None or now - record.since <= IDEMPOTENCY_S):
            return record
        own.pop(key, None)  # so that the new one stands at the end
        own[key] = Record(digest, now)
        if len(own) > IDEMPOTENCY_RECORDS:
            # Not those of calls in flight: somebody may wait for them, and they are few.
            del own[next(name for name, kept in own.items() if kept.answer is not None or name == key)]
        return None

    def settle(self, principal: str, key: str, answer: bytes) -> list[W]:
        """A call has got its reply; who waited for it."""
        own = self.records.get(principal)
        record = own.get(key) if own else None
        if record is None:
            return []
        record.answer = answer
        waiting, record.waiting = record.waiting, []
        return waiting

    def free(self, principal: str, key: str) -> list[W]:
        """A call has failed: nothing was applied, and its key is free again; who waited for it."""
        own = self.records.get(principal)
        if own is None:
            return []
        record = own.pop(key, None)
        if not own:
            del self.records[principal]
        return record.waiting if record else []
