"""What each subject was seen to ask of the law, and was allowed or denied: the ground for suggesting rules. Bounded, and on the disk.

It is kept by the minute and not by the call. A subject that asks about ever new objects pushes out what it asked for longest ago, and
nobody else's.
"""

from collections import OrderedDict
from typing import Final

import msgspec

from ..memory.connection import Connection

PER_SUBJECT: Final = 512
"""Distinct uses remembered of one subject, about 100 bytes each."""

SUBJECTS: Final = 2_000
"""Subjects of which uses are remembered; who was not seen for longest is forgotten."""

_KIND: Final = "use"
_HORIZON: Final = ("", "since")

Key = tuple[str, str]
"""An object and an action."""


class Use(msgspec.Struct, frozen=True, array_like=True):
    """What became of it, and when it was last seen, in seconds since the Unix epoch."""

    allowed: bool
    last: float


class Uses:
    """The record."""

    def __init__(self) -> None:
        self.since = 0.0
        """From when on everything is remembered, in seconds since the Unix epoch."""
        self._of: OrderedDict[str, OrderedDict[Key, Use]] = OrderedDict()
        self._changed: dict[tuple[str, str], bytes | None] = {}

    def note(self, subject: str, object_: str, action: str, allowed: bool, now: float) -> None:
        """Something was asked for."""
        own = self._of.setdefault(subject, OrderedDict())
        self._of.move_to_end(subject)
        own[object_, action] = use = Use(allowed, now)
        own.move_to_end((object_, action))
        self._changed[subject, f"{action} {object_}"] = msgspec.msgpack.encode(use)
        if len(own) > PER_SUBJECT:
            self._forget(subject, own.popitem(last=False)[0])
        if len(self._of) > SUBJECTS:
            gone, keys = self._of.popitem(last=False)
            for key in keys:
                self._forget(gone, key)

    def of(self, subject: str, since: float) -> dict[Key, Use]:
        """What a subject was seen to ask for since then. `user:*` is every user, and so on."""
        kind = subject.removesuffix("*") if subject.endswith(":*") else None
        found: dict[Key, Use] = {}
        for name, own in self._of.items():
            if name == subject or (kind and name.startswith(kind)):
                found |= {key: use for key, use in own.items() if use.last >= since}
        return found

    def _forget(self, subject: str, key: Key) -> None:
        self._changed[subject, f"{key[1]} {key[0]}"] = None

    # --- on the disk --------------------------------------------------------------------------------------------------------------

    def load(self, connection: Connection, now: float) -> None:
        """Take over what the last kernel kept; the first one begins now."""
        rows = connection.execute("SELECT principal, name, value FROM facts WHERE kind = ?", (_KIND,)).fetchall()
        self.since = next((msgspec.msgpack.decode(value, type=float) for *key, value in rows if tuple(key) == _HORIZON), 0.0)
        if not self.since:
            self.since = now
            self._changed[_HORIZON] = msgspec.msgpack.encode(now)
        found = [(msgspec.msgpack.decode(value, type=Use), subject, name) for subject, name, value in rows if (subject, name) != _HORIZON]
        for use, subject, name in sorted(found, key=lambda row: row[0].last):
            action, _, object_ = name.partition(" ")
            self._of.setdefault(subject, OrderedDict())[object_, action] = use

    def changes(self) -> dict[tuple[str, str], bytes | None]:
        """What has changed since this was last asked, to be kept by `keep`; None: it is forgotten."""
        changed, self._changed = self._changed, {}
        return changed


def keep(connection: Connection, changed: dict[tuple[str, str], bytes | None]) -> None:
    """Write changes down, in a transaction of the writer."""
    gone = [(_KIND, *key) for key, value in changed.items() if value is None]
    connection.executemany("DELETE FROM facts WHERE kind = ? AND principal = ? AND name = ?", gone)
    rows = [(_KIND, *key, value) for key, value in changed.items() if value is not None]
    connection.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?)", rows)
