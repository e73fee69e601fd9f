"""KV pages of turns: what a turn's device sequence begins with, and what is kept of it when it leaves its slot.

The page tables (`core/pages.py`) are the kernel's; the bytes lie in the device server, which obeys `Save` and `Begin` in the order they
are sent: a turn may begin with its own pages as soon as they are ordered, but others find them only when the device has said that they
are there. A device that dies takes its pages with it; its turns are then computed again, as are those whose pages made room.
"""

from typing import TYPE_CHECKING

from .core.pages import PagePool, Table
from .devices.messages import PAGE, Save

if TYPE_CHECKING:
    from .system import System
    from .turns import Answer


class Paging:
    """A page pool per loaded decoder that can take pages."""

    def __init__(self, system: "System") -> None:
        self.system = system
        self.pools: dict[str, PagePool] = {}
        self.saving: dict[tuple[int, int], tuple[Answer, Table]] = {}
        """Orders to save on their way, by sequence and first page, and the table as it will be."""

    def up(self, model: str, page_bytes: int) -> None:
        """A model is ready, with an empty pool."""
        self.pools.pop(model, None)
        if page_bytes:
            self.pools[model] = PagePool(self.system.config.kv_pages, PAGE)

    def down(self, model: str) -> None:
        """A model's device is gone, and what was in its pool."""
        self.pools.pop(model, None)
        self.saving = {key: order for key, order in self.saving.items() if order[0].model.name != model}

    def find(self, answer: "Answer") -> None:
        """Give a turn that has no pages those of the longest beginning that somebody has computed already."""
        pool = self.pools.get(answer.model.name)
        if pool is not None and not answer.table.tokens:
            answer.table = pool.match(_scope(answer), answer.context)

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

    def not_saved(self, seq: int) -> None:
        """The device has not saved pages, as the sequence had ended before the order came."""
        for key in [key for key in self.saving if key[0] == seq]:
            answer, table = self.saving.pop(key)
            if answer.table is table:
                self.drop(answer)

    def drop(self, answer: "Answer") -> None:
        """A turn has ended, or its pages are not to be trusted."""
        pool = self.pools.get(answer.model.name)
        if pool is not None:
            pool.release(answer.table)
        answer.table = Table()


def _scope(answer: "Answer") -> str:
    """Who may share pages: the agents of one app. It sees all their texts anyway, so how fast an answer comes tells it nothing new."""
    return answer.ticket.principal
