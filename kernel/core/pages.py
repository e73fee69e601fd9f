"""KV pages: who holds which, what is in them, in which tier they lie, and which may go. Pure.

A page holds the keys and values of `page` consecutive tokens and lies in one slot of one tier: `device`, `host` or `disk`. A **table** is
the list of pages of a turn that is off the device, or of a conversation between two turns. A page may stand in many tables and is never
written again (copy-on-write by construction: what a turn adds goes to pages of its own). A running turn holds no pages: it computes in
a row of its own, a copy. Full pages are entered in a **prefix index** under their names (`prefixes.py`) and found by whoever begins alike.

Pages in no table are **idle**: kept while there is room, least recently used gone first. When the device pool is full, idle pages go down
to the host first, then those of the tables that are **due** last; from the host those due last go to disk ahead of need (`sink`), and come
back (`fetch`) before their turn does. What finds no place anywhere is dropped and computed again: that costs time and no correctness.

The methods change the books at once and return the `Move`s that make it true; a device carries out moves between device and host in the
order given. Moves from and to disk take their time: until `moved` or `failed` says how one ended, its pages have a `target` and stay where
they are.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..devices.messages import Tier
from .prefixes import PageHash

Due = tuple[int, int, int]
"""When a table will be needed; the smallest comes first."""


@dataclass(eq=False, slots=True)
class Page:
    """A page, wherever it lies."""

    tier: Tier
    slot: int
    hash: PageHash | None = None
    """Its entry in the prefix index."""
    holders: "list[Table]" = field(default_factory=list)
    target: tuple[Tier, int] | None = None
    """Where a move beside the steps is taking it: it is `moving`."""


@dataclass(eq=False, slots=True)
class Table:
    """Pages in order; `tokens` of them are filled."""

    pages: list[Page] = field(default_factory=list)
    tokens: int = 0
    due: Due | None = None
    """None: it is being used just now, and its pages stay where they are."""


@dataclass(frozen=True, slots=True)
class Move:
    """An order to copy pages, each from a slot to a slot."""

    source: Tier
    target: Tier
    pages: tuple[Page, ...]
    pairs: tuple[tuple[int, int], ...]

    @property
    def beside(self) -> bool:
        """Whether it takes its time beside the steps: from or to disk."""
        return "disk" in (self.source, self.target)


class PagePool:
    """The pages of one lane; `sizes` gives the slots of each tier."""

    def __init__(self, sizes: Mapping[Tier, int], page: int) -> None:
        self.sizes = sizes
        self.page = page
        self.pages: dict[Page, None] = {}
        self.index: dict[PageHash, Page] = {}
        self.idle: dict[Tier, OrderedDict[Page, None]] = {tier: OrderedDict() for tier in sizes}
        """Pages in no table, least recently used first."""
        self.free: dict[Tier, list[int]] = {tier: list(range(size - 1, -1, -1)) for tier, size in sizes.items()}
        self.tables: dict[Table, None] = {}
        """All that hold a page."""

    def held(self, tier: Tier) -> int:
        """Pages of a tier that stand in a table or are being moved there or away."""
        return self.sizes[tier] - self.room(tier)

    def room(self, tier: Tier) -> int:
        """Slots of a tier that are free or could be at once."""
        return len(self.free[tier]) + len(self.idle[tier])

    # --- tables -------------------------------------------------------------------------------------------------------------------

    def match(self, hashes: Iterable[PageHash]) -> Table:
        """A table of the pages known by these names, as far as they go without a gap."""
        table = Table()
        for hash_ in hashes:
            page = self.index.get(hash_)
            if page is None:
                break
            self._hold(page, table)
        table.tokens = len(table.pages) * self.page
        return table

    def unknown(self, hashes: Iterable[PageHash]) -> PageHash | None:
        """The first name that is not in the index; None if all are."""
        return next((hash_ for hash_ in hashes if hash_ not in self.index), None)

    def extend(self, table: Table, tokens: int) -> tuple[list[int], list[Move]] | None:
        """Give a table fresh device pages, for all of its first `tokens` tokens: their slots, and the moves that make room for them.

        None, and nothing is done, if there is no room. Pre: its pages so far are full.
        """
        needed = -(-tokens // self.page) - len(table.pages)
        moves = self._make_room(needed, table)
        if moves is None:
            return None
        fresh = [Page("device", self.free["device"].pop()) for _ in range(needed)]
        for page in fresh:
            self.pages[page] = None
            self._hold(page, table)
        table.tokens = tokens
        return [page.slot for page in fresh], moves

    def publish(self, table: Table, hashes: Sequence[PageHash]) -> None:
        """Enter the pages of a table in the index under their names; their content is there."""
        for page, hash_ in zip(table.pages, hashes, strict=False):
            if hash_ not in self.index and page.hash is None:
                self.index[hash_] = page
                page.hash = hash_

    def truncate(self, table: Table, count: int) -> None:
        """Let a table hold its first `count` pages only."""
        table.tokens = min(table.tokens, count * self.page)
        for page in reversed(table.pages[count:]):  # of two pages of one prefix the earlier is worth more, so the later is to go first
            page.holders.remove(table)
            if not page.holders and page.target is None:
                self._settle(page)
        del table.pages[count:]
        if not table.pages:
            self.tables.pop(table, None)

    def release(self, table: Table) -> None:
        """A table is needed no more. Its indexed pages stay as long as there is room."""
        self.truncate(table, 0)

    def discard(self, pages: Iterable[Page]) -> None:
        """These pages do not hold what they should: nobody shall find them, and who holds them does without."""
        for page in pages:
            self._unname(page)
            for holder in list(page.holders):
                self.truncate(holder, holder.pages.index(page))
            if page.target is None and page in self.pages:
                self._drop(page)

    # --- up and down --------------------------------------------------------------------------------------------------------------

    def away(self, table: Table) -> list[Page]:
        """The pages of a table that must be waited for: they lie on disk, or are on their way."""
        return [page for page in table.pages if page.tier == "disk" or page.target is not None]

    def lift(self, table: Table) -> list[Move]:
        """Bring a table to the device, as far as there is room; what follows is dropped. Pre: nothing of it is `away`."""
        below = [page for page in table.pages if page.tier == "host"]
        moves = self._make_room(len(below), table)
        while moves is None:
            self.truncate(table, table.pages.index(below.pop()))
            moves = self._make_room(len(below), table)
        return moves + self._shift(below, "device")

    def fetch(self, table: Table, *, must: bool) -> list[Move]:
        """Begin to read the pages of a table from disk, into what room the host has; with `must`, others that are due later make room."""
        wanted = [page for page in table.pages if page.tier == "disk" and page.target is None]
        spare = self._victims("host", len(wanted) - len(self.free["host"]), [table]) if must else list(self.idle["host"])
        self.discard(spare[: max(0, len(wanted) - len(self.free["host"]))])
        return self._send(wanted[: len(self.free["host"])], "host")

    def sink(self, low: int, spared: Collection[Table] = ()) -> list[Move]:
        """Begin to write pages from the host to disk, those due last, so that `low` slots there become free or idle.

        Not those of `spared`, the next to come: what is fetched shall not be written again at once.
        """
        short = low - self.room("host")
        if short <= 0 or not self.free["disk"]:
            return []
        short -= sum(page.tier == "host" and page.target is not None for page in self.pages)  # they are leaving already
        victims = [page for page in self._victims("host", short + len(self.idle["host"]), spared) if page.holders]
        return self._send(victims[: max(0, min(short, len(self.free["disk"])))], "disk")

    def moved(self, move: Move) -> None:
        """A move from or to disk is done."""
        for page in move.pages:
            self.free[page.tier].append(page.slot)
            assert page.target is not None
            (page.tier, page.slot), page.target = page.target, None
            if not page.holders:
                self._settle(page)

    def failed(self, move: Move) -> None:
        """A move was not done. What could not be written stays where it is; what could not be read is lost."""
        if not move.beside:
            self.discard(move.pages)
            return
        for page in move.pages:
            assert page.target is not None
            self.free[page.target[0]].append(page.target[1])
            page.target = None
            if not page.holders:
                self._settle(page)
        if move.source == "disk":
            self.discard(move.pages)

    def _make_room(self, count: int, spared: Table) -> list[Move] | None:
        """Free slots of the device, by moving pages down; None, and nothing is done, if there are too few that can go."""
        short = count - len(self.free["device"])
        victims = self._victims("device", short, [spared])
        return self._demote(victims) if len(victims) >= short else None

    def _victims(self, tier: Tier, count: int, spared: Collection[Table]) -> list[Page]:
        """Up to `count` pages that may leave a tier: idle ones, then those of the tables that are due last, from their ends."""
        found = dict.fromkeys(list(self.idle[tier])[: max(0, count)])
        if len(found) < count:
            parked = [(table.due, table) for table in self.tables if table.due is not None and table not in spared]
            for _, table in sorted(parked, key=lambda entry: entry[0], reverse=True):
                for page in reversed(table.pages):
                    if page.tier == tier and page.target is None and not any(h.due is None or h in spared for h in page.holders):
                        found[page] = None
                if len(found) >= count:
                    break
        return list(found)[: max(0, count)]

    def _demote(self, victims: list[Page]) -> list[Move]:
        """Move pages from the device to the host. If room is short there, idle pages of it are dropped, then the first of `victims`."""
        short = len(victims) - len(self.free["host"])
        self.discard(list(self.idle["host"])[: max(0, short)])
        self.discard(victims[: max(0, len(victims) - len(self.free["host"]))])
        return self._shift([page for page in victims if page in self.pages], "host")

    def _shift(self, pages: list[Page], target: Tier) -> list[Move]:
        """Move pages between device and host, at once."""
        if not pages:
            return []
        source = pages[0].tier
        pairs = [(page.slot, self.free[target].pop()) for page in pages]
        for page, (old, new) in zip(pages, pairs, strict=True):
            self.free[source].append(old)
            idle = page in self.idle[source]
            self.idle[source].pop(page, None)
            page.tier, page.slot = target, new
            if idle:
                self.idle[target][page] = None
        return [Move(source, target, tuple(pages), tuple(pairs))]

    def _send(self, pages: list[Page], target: Tier) -> list[Move]:
        """Begin to move pages from or to disk."""
        if not pages:
            return []
        for page in pages:
            page.target = (target, self.free[target].pop())
        return [Move(pages[0].tier, target, tuple(pages), tuple((page.slot, page.target[1]) for page in pages if page.target))]

    # --- pages --------------------------------------------------------------------------------------------------------------------

    def _hold(self, page: Page, table: Table) -> None:
        page.holders.append(table)
        table.pages.append(page)
        self.tables[table] = None
        self.idle[page.tier].pop(page, None)

    def _settle(self, page: Page) -> None:
        """A page stands in no table any more: it is idle if somebody could find it. The disk is for those who will come back."""
        if page.hash is not None and page.tier != "disk":
            self.idle[page.tier][page] = None
        else:
            self._drop(page)

    def _drop(self, page: Page) -> None:
        del self.pages[page]
        self.idle[page.tier].pop(page, None)
        self.free[page.tier].append(page.slot)
        self._unname(page)

    def _unname(self, page: Page) -> None:
        if page.hash is not None:
            del self.index[page.hash]
            page.hash = None

    # --- for tests ----------------------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Assert what must hold after every step; tests call it."""
        for tier, size in self.sizes.items():
            used = [page.slot for page in self.pages if page.tier == tier]
            used += [page.target[1] for page in self.pages if page.target and page.target[0] == tier]
            assert sorted(self.free[tier] + used) == list(range(size)), f"a slot of {tier} is lost or counted twice"
            resting = {page for page in self.pages if page.tier == tier and not page.holders and page.target is None}
            assert set(self.idle[tier]) == resting, f"idle pages of {tier} and holders differ"
            assert all(page.hash is not None for page in resting), "an idle page nobody can find"
        assert not self.idle["disk"], "an idle page on disk"
        assert all(page.hash == hash_ and page in self.pages for hash_, page in self.index.items()), "the index points at another page"
        assert all(table in page.holders for table in self.tables for page in table.pages), "a table holds a page that does not know"
        assert all(page.holders.count(table) == table.pages.count(page) for page in self.pages for table in page.holders)
        assert all(holder in self.tables for page in self.pages for holder in page.holders), "a table is not in the books"
        for table in self.tables:
            assert table.pages and table.tokens <= len(table.pages) * self.page, "a table claims more than its pages hold"
