"""KV pages: who holds which slots of a lane's page pool, what is in them, and which may be taken. Pure.

A page holds the keys and values of `PAGE` consecutive tokens. A **table** is the list of pages of one turn; a page may stand in many
tables, and is written only before it is in a second one (copy-on-write by construction: what a turn adds goes to pages of its own).
Full pages are entered in a **prefix index** under a hash chained on the page before, so that a turn that begins with the same tokens
finds them; the chain begins with a scope, and turns of different scopes never meet.

A page in no table keeps its content while nobody needs the slot: such pages are taken least recently used first. What was taken is
computed again, which costs time and no correctness.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

PageHash = bytes


@dataclass(slots=True)
class Page:
    """A slot in use."""

    slot: int
    tables: int = 0
    """In how many tables it stands."""
    hash: PageHash | None = None
    """Its entry in the prefix index, once it is full."""


@dataclass(slots=True)
class Table:
    """The pages of a turn, in order; `tokens` of them are filled."""

    slots: list[int] = field(default_factory=list)
    tokens: int = 0


class PagePool:
    """The page pool of one lane: `size` slots of `page` tokens each."""

    def __init__(self, size: int, page: int) -> None:
        self.size = size
        self.page = page
        self.pages: dict[int, Page] = {}
        self.index: dict[PageHash, int] = {}
        self.idle: OrderedDict[int, None] = OrderedDict()
        """Slots in no table that keep their content, least recently used first."""
        self.free = list(range(size - 1, -1, -1))

    @property
    def held(self) -> int:
        """Pages that stand in a table."""
        return len(self.pages) - len(self.idle)

    def match(self, scope: str, tokens: Sequence[int]) -> Table:
        """A table of the longest known beginning of `tokens`, in full pages; the last token is never among them, as it must be computed."""
        table = Table()
        for hash_ in self._chain(scope, tokens[: max(0, len(tokens) - 1)]):
            slot = self.index.get(hash_)
            if slot is None:
                break
            self._hold(slot)
            table.slots.append(slot)
        table.tokens = len(table.slots) * self.page
        return table

    def unknown(self, scope: str, tokens: Sequence[int]) -> PageHash | None:
        """The first full page of `tokens` that is not in the index; None if there is none."""
        chain = self._chain(scope, tokens[: max(0, len(tokens) - 1)])
        return next((hash_ for hash_ in chain if hash_ not in self.index), None)

    def extend(self, table: Table, tokens: int) -> list[int] | None:
        """Give a table fresh pages for all of its first `tokens` tokens; the new slots, or None (and nothing is done) if there are too few.

        A last page that is not full is replaced by a fresh one: it may be on its way to somebody else.
        """
        full = table.tokens // self.page
        needed = -(-tokens // self.page) - full
        if needed > len(self.free) + len(self.idle):
            return None
        self._drop(table.slots[full:])
        fresh = [self._take() for _ in range(needed)]
        table.slots[full:] = fresh
        table.tokens = tokens
        return fresh

    def publish(self, scope: str, table: Table, tokens: Sequence[int]) -> None:
        """Enter the full pages of a table in the index; `tokens` are those it holds, and their content has been ordered to be there."""
        for slot, hash_ in zip(table.slots, self._chain(scope, tokens[: table.tokens]), strict=False):
            if hash_ not in self.index and self.pages[slot].hash is None:
                self.index[hash_] = slot
                self.pages[slot].hash = hash_

    def release(self, table: Table) -> None:
        """A turn needs its table no more. Its indexed pages stay as long as there is room."""
        self._drop(table.slots)
        table.slots, table.tokens = [], 0

    def check(self) -> None:
        """Assert what must hold after every step; tests call it."""
        assert sorted([*self.free, *self.pages]) == list(range(self.size)), "a slot is lost or counted twice"
        assert all((page.tables == 0) == (slot in self.idle) for slot, page in self.pages.items()), "idle pages and counts differ"
        assert all(self.pages[slot].hash == hash_ for hash_, slot in self.index.items()), "the index points at another page"
        assert all(page.hash is not None for page in self.pages.values() if not page.tables), "an idle page nobody can find"

    def _chain(self, scope: str, tokens: Sequence[int]) -> list[PageHash]:
        """The hash of each full page, chained on the one before."""
        chain, before = [], scope.encode()
        for start in range(0, len(tokens) - self.page + 1, self.page):
            content = b",".join(b"%d" % token for token in tokens[start : start + self.page])
            before = hashlib.blake2b(content, digest_size=16, key=hashlib.blake2b(before, digest_size=32).digest()).digest()
            chain.append(before)
        return chain

    def _hold(self, slot: int) -> None:
        self.pages[slot].tables += 1
        self.idle.pop(slot, None)

    def _drop(self, slots: list[int]) -> None:
        # From the end: of two pages of one prefix the earlier is worth more, so the later is taken first.
        for slot in reversed(slots):
            page = self.pages[slot]
            page.tables -= 1
            if page.tables == 0 and page.hash is not None:
                self.idle[slot] = None
            elif page.tables == 0:
                del self.pages[slot]
                self.free.append(slot)

    def _take(self) -> int:
        if not self.free:
            slot, _ = self.idle.popitem(last=False)
            hash_ = self.pages.pop(slot).hash
            assert hash_ is not None
            del self.index[hash_]
            self.free.append(slot)
        slot = self.free.pop()
        self.pages[slot] = Page(slot, tables=1)
        return slot
