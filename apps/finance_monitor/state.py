"""What the monitor knows from one item to the next: series of counts, tests in progress, stories told. It is kept in the system's store.

Written whole after every batch: a monitor that is killed goes on from the last one and takes the items of the next again.
"""

import hashlib
import zlib
from typing import Final, Self

import msgspec

from kernos.agents import Agent
from kernos.syscalls.store import DeleteFile, GetFile, ListFiles, PutFile

from .alerts import Alert
from .items import Item, Reading
from .shock import Shock

FOLDER: Final = "finance_monitor/state/"

VERSIONS: Final = 64
"""Of a file, before the next is begun: at most 32 MiB."""

DAYS_KEPT: Final = 60
"""Of counts; a report shows so many."""

SERIES_KEPT: Final = 300
"""Series; those without news for longest go first."""

SEEN_KEPT: Final = 10_000
"""Items known by their hash, so that a file that is read again counts once. With all else the state stays below 512 KiB, packed."""

RECENT_KEPT: Final = 200
"""Readings for the report."""

EVIDENCE_KEPT: Final = 6


class Day(msgspec.Struct, array_like=True):
    """Counts of a day."""

    items: int = 0
    bad: int = 0
    told: bool = False
    """Whether the volume of this day was alerted."""


class Series(msgspec.Struct):
    """A topic, a company, or all."""

    shock: Shock = msgspec.field(default_factory=Shock)
    days: dict[str, Day] = {}
    evidence: list[Item] = []
    """The latest bad news."""
    latest: list[bool] = []
    """Which of the latest items were bad, for the share that an alert tells."""

    @property
    def total(self) -> tuple[int, int]:
        """All items on the days that are kept, and the bad ones."""
        return sum(day.items for day in self.days.values()), sum(day.bad for day in self.days.values())


class State(msgspec.Struct):
    """All of it."""

    series: dict[str, Series] = {}
    stories: list[str] = []
    seen: list[int] = []
    recent: list[Reading] = []
    alerts: list[Alert] = []
    today: str = ""
    first: str = ""

    def largest(self, most: int) -> list[str]:
        """The series with the most items, the largest first."""
        return sorted(self.series, key=lambda name: self.series[name].total, reverse=True)[:most]


def hash_of(item: Item) -> int:
    """A number for an item: two of 10,000 have the same with a chance of one in 10^11."""
    text = f"{item.title}\n{item.time.isoformat()}\n{item.source}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


class Keeper:
    """Writes states into files of the store, one after the other.

    The store keeps every version of a file, and they count; so after `VERSIONS` the next file is begun and this one deleted.
    """

    def __init__(self, agent: Agent, path: str | None) -> None:
        self._agent = agent
        self._path = path

    @classmethod
    async def open(cls, agent: Agent) -> "tuple[Self, State]":
        """A keeper and what was kept last, or a state that knows nothing."""
        files = (await agent.call(ListFiles(prefix=FOLDER))).files
        if not files:
            return cls(agent, None), State()
        path = files[-1].path  # of two, the later one: the other could not be deleted any more
        data = (await agent.call(GetFile(path=path))).data
        return cls(agent, path), msgspec.msgpack.decode(zlib.decompress(data), type=State)

    async def keep(self, state: State) -> None:
        """Keep a state, labelled as text of others."""
        path = self._path or _path(1)
        data = zlib.compress(msgspec.msgpack.encode(state))
        file = await self._agent.call(PutFile(path=path, data=data, labels=["untrusted"]))
        self._path = path
        if file.version >= VERSIONS:
            self._path = _path(int(path.rpartition("/")[2]) + 1)
            await self._agent.call(PutFile(path=self._path, data=data, labels=["untrusted"]))
            await self._agent.call(DeleteFile(path=path))


def _path(number: int) -> str:
    return f"{FOLDER}{number:012}"  # in the order in which the store lists them
