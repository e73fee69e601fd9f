"""KV pages of turns: what a turn's device sequence begins with, and what is kept of it when it leaves its slot.

The page tables (`core/pages.py`) are the kernel's; the bytes lie in the device server, which obeys `Save` and `Begin` in the order they
are sent: a turn may begin with its own pages as soon as they are ordered, but others find them only when the device has said that they
are there. A device that dies takes its pages with it; its turns are then computed again, as are those whose pages made room.
"""

from typing import TYPE_CHECKING

from .core.pages import PageHash, PagePool, Table
from .devices.messages import PAGE, Save

if TYPE_CHECKING:
    from .system import System
    from .turns import Answer


Claim = tuple[str, PageHash]
"""A page of a model that is being computed."""


class Paging:
    """A page pool per loaded decoder that can take pages."""

    def __init__(self, system: "System") -> None:
        self.system = system
        self.pools: dict[str, PagePool] = {}
        self.saving: dict[tuple[int, int], tuple[Answer, Table]] = {}
        """Orders to save on their way, by sequence and first page, and the table as it will be."""
        self.computing: dict[Claim, Answer] = {}
        """Pages that running turns are about to compute and others will find."""
        self.expecting: dict[Claim, list[Answer]] = {}
        """Turns that come after them instead of computing the same."""

    def up(self, model: str, page_bytes: int) -> None:
        """A model is ready, with an empty pool."""
        self.pools.pop(model, None)
        if page_bytes:
            self.pools[model] = PagePool(self.system.config.kv_pages, PAGE)

    def down(self, model: str) -> None:
        """A model's device is gone, and what was in its pool."""
        self.pools.pop(model, None)
        self.saving = {key: order for key, order in self.saving.items() if order[0].model.name != model}

    def expects(self, answer: "Answer") -> bool:
        """Whether a running turn is just computing what this new one would compute first; it is then submitted when that is done."""
        claim = self._claim(answer)
        if claim is None or claim not in self.computing:
            return False
        self.expecting.setdefault(claim, []).append(answer)
        return True

    def find(self, answer: "Answer") -> None:
        """Give a turn that has no pages those of the longest beginning that somebody has computed already."""
        pool = self.pools.get(answer.model.name)
        if pool is not None and not answer.table.tokens:
            answer.table = pool.match(_scope(answer), answer.context)
            claim = self._claim(answer)
            if claim is not None:
                self.computing.setdefault(claim, answer)

    def settle(self, answer: "Answer") -> None:
        """What a turn was about to compute is there, or will not be: let those that expect it go on."""
        for claim in [claim for claim, computing in self.computing.items() if computing is answer]:
            del self.computing[claim]
            for expecting in self.expecting.pop(claim, []):
                self.system.turns.submit(expecting)

    def settle_unless_saving(self, answer: "Answer") -> None:
        """As `settle`, unless its pages are on their way: then their arrival settles it."""
        if not any(order[0] is answer for order in self.saving.values()):
            self.settle(answer)

    def _claim(self, answer: "Answer") -> "Claim | None":
        pool = self.pools.get(answer.model.name)
        page = pool.unknown(_scope(answer), answer.prompt) if pool is not None else None
        return None if page is None else (answer.model.name, page)

    def keep(self, answer: "Answer", tokens: int) -> None:
        """Order the first `tokens` tokens of a running turn to be saved, as far as its table lacks them; without room nothing is."""
        pool = self.pools.get(answer.model.name)
        if pool is None or tokens <= answer.table.tokens:
            return
        first = answer.table.tokens // PAGE
        fresh = pool.extend(answer.table, tokens)
        if fresh is not None:
            self.saving[(answer.seq, first)] = (answer, answer.table)
            self.system.host.command(answer.model.server, Save(answer.seq, answer.model.name, first, fresh))

    def saved(self, seq: int, first: int) -> None:
        """The device has saved pages: now others may find them, if the turn still holds them."""
        answer, table = self.saving.pop((seq, first), (None, None))
        if answer is not None and answer.table is table and table is not None:
            self.pools[answer.model.name].publish(_scope(answer), table, answer.context)
        if answer is not None:
            self.settle(answer)

    def not_saved(self, seq: int) -> None:
        """The device has not saved pages, as the sequence had ended before the order came."""
        for key in [key for key in self.saving if key[0] == seq]:
            answer, table = self.saving.pop(key)
            if answer.table is table:
                self.drop(answer)
            self.settle(answer)

    def drop(self, answer: "Answer") -> None:
        """A turn has ended, or its pages are not to be trusted."""
        pool = self.pools.get(answer.model.name)
        if pool is not None:
            pool.release(answer.table)
        answer.table = Table()
        self.settle(answer)


def _scope(answer: "Answer") -> str:
    """Who may share pages: the agents of one app. It sees all their texts anyway, so how fast an answer comes tells it nothing new."""
    return answer.ticket.principal
