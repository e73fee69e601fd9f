"""KV pages of turns: what a turn's device sequence begins with, what is kept of it when it leaves its slot, and in which tier.

The page tables (`core/pages.py`) are the kernel's; the bytes lie in the device server, which obeys `Save`, `Copy` between device and host
and `Begin` in the order they are sent: a turn may begin with its own pages as soon as they are ordered, but others find them only when the
device has said that they are there. A turn whose pages lie on disk gets them read ahead when its turn comes near; if it is there first,
its slot waits for them, unless computing is quicker. A device that dies takes its pages with it; its turns are then computed again.
"""

import itertools
import logging
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kernos.syscalls.system import PageUse

from .beginnings import Beginnings
from .core.costs import Costs
from .core.pages import Move, PagePool, Table
from .devices.messages import PAGE, Copied, Copy, Save
from .keeping import Keeping
from .limits import SAVE_AHEAD

if TYPE_CHECKING:
    from .system import System
    from .turns import Answer

log = logging.getLogger(__name__)


@dataclass
class PagedLane:
    """A loaded decoder that takes pages."""

    pool: PagePool
    costs: Costs = field(default_factory=Costs)
    swapping: int = 0
    """Pages on their way from or to disk."""


@dataclass
class Saving:
    """An order to save on its way: pages of `table` from `first` on."""

    answer: "Answer"
    table: Table
    first: int
    shared: bool
    """The table serves no other purpose than that others may find what it begins with."""


class Paging:
    """A page pool per loaded decoder that takes pages."""

    def __init__(self, system: "System") -> None:
        self.system = system
        self.lanes: dict[str, PagedLane] = {}
        self.saving: dict[int, deque[Saving]] = {}
        """By sequence, in the order in which the device will report them."""
        self.moves: dict[int, tuple[str, Move]] = {}
        """Orders to copy on their way, with their models."""
        self.reading: dict[int, Answer] = {}
        """Turns that have a slot and wait for their pages, by id."""
        self.beginnings = Beginnings(system)
        self.keeping = Keeping(system)
        self._numbers = itertools.count(1)

    def up(self, model: str, page_bytes: int) -> None:
        """A model is ready, with empty pools."""
        if page_bytes:
            config = self.system.config
            self.lanes[model] = PagedLane(PagePool({"device": config.kv_pages, "host": config.host_pages, "disk": config.disk_pages}, PAGE))

    def down(self, model: str) -> None:
        """A model's device is gone, and what was in its pools."""
        self.lanes.pop(model, None)
        lost = [seq for seq, orders in self.saving.items() if orders[0].answer.model.name == model]
        answers = [saving.answer for seq in lost for saving in self.saving.pop(seq)]
        self.moves = {id_: order for id_, order in self.moves.items() if order[0] != model}
        self.reading = {id_: answer for id_, answer in self.reading.items() if answer.model.name != model}
        self.keeping.down(model)
        for answer in answers:
            self.beginnings.settle(answer)

    def view(self) -> list[PageUse]:
        """As callers see it."""
        return [
            PageUse(name, tier, size, lane.pool.held(tier), len(lane.pool.idle[tier]))
            for name, lane in sorted(self.lanes.items())
            for tier, size in lane.pool.sizes.items()
        ]

    # --- a turn waits, gets its slot, leaves it, ends -----------------------------------------------------------------------------

    def arrived(self, answer: "Answer") -> None:
        """A turn joins the queue: it holds on to what is known of its beginning."""
        lane = self.lanes.get(answer.model.name)
        if lane is not None and not answer.table.pages:
            answer.table = lane.pool.match(answer.names(len(answer.context) - 1))
            answer.table.due = self._due(answer)
        self.keeping.came_back(answer.ticket.agent)

    def bring(self, answer: "Answer") -> bool:
        """Get the pages of a turn to the device; False: they are being read, and its slot waits until `Turns.begin` is called."""
        lane = self.lanes.get(answer.model.name)
        if lane is None:
            return True
        known = lane.pool.match(answer.names(len(answer.context) - 1))  # others may have computed more of it meanwhile
        answer.table, other = (known, answer.table) if known.tokens > answer.table.tokens else (answer.table, known)
        lane.pool.release(other)
        answer.table.due = None
        self.beginnings.claim(answer, lane.pool)
        if not self._is_there(answer, lane):
            self.reading[answer.id] = answer
            return False
        return True

    def began(self, answer: "Answer") -> None:
        """The sequence has been ordered to begin with its pages, and computes in a row of its own."""
        lane = self.lanes.get(answer.model.name)
        if lane is not None:
            answer.lent = tuple(answer.table.pages)
            lane.pool.release(answer.table)

    def refused(self, answer: "Answer") -> None:
        """The pages a sequence was to begin with are not what they should be."""
        lane = self.lanes.get(answer.model.name)
        if lane is not None:
            lane.pool.discard(answer.lent)

    def park(self, answer: "Answer") -> None:
        """A turn is about to leave its slot: order what its row holds to be saved. Without room it is computed again."""
        lane = self.lanes.get(answer.model.name)
        if lane is not None and self.reading.pop(answer.id, None) is None:
            # A step is under way, so the row will have one token more than was reported, or a further piece of the prompt.
            ahead = 1 if answer.held >= answer.begun - 1 else SAVE_AHEAD
            answer.table = self._save(answer, lane, answer.held, min(len(answer.context), answer.held + ahead))
        answer.table.due = self._due(answer)

    def share(self, answer: "Answer") -> bool:
        """A turn has computed its prompt: order it to be saved for those who begin like it; False: it is known, or there is no room."""
        lane, full = self.lanes.get(answer.model.name), len(answer.prompt) // PAGE * PAGE
        if lane is None or lane.pool.unknown(answer.names(full)) is None:
            return False
        table = self._save(answer, lane, full, full, shared=True)
        if table.tokens < full:
            lane.pool.release(table)
        return table.tokens == full

    def keep(self, answer: "Answer") -> None:
        """A turn has ended well: its conversation is kept for a while, in whole pages. Pre: its row, if it has one, is still there."""
        lane = self.lanes.get(answer.model.name)
        if lane is None:
            return
        if answer.running:
            full = answer.held // PAGE * PAGE
            answer.table = self._save(answer, lane, full, full)
        else:
            lane.pool.truncate(answer.table, answer.table.tokens // PAGE)
        table, answer.table = answer.table, Table()
        table.due = (1, 0, -next(self._numbers))
        self.keeping.put(answer.ticket.agent, answer.model.name, table)

    def drop(self, answer: "Answer") -> None:
        """A turn has ended, or lost what it had."""
        lane = self.lanes.get(answer.model.name)
        if lane is not None:
            lane.pool.release(answer.table)
        answer.table = Table()
        self.reading.pop(answer.id, None)
        if answer.seq not in self.saving:  # else what others expect is on its way
            self.beginnings.settle(answer)

    def release(self, model: str, table: Table) -> None:
        """A conversation is kept no longer; what is on its way to its pages is still worth finding."""
        saving = next((saving for orders in self.saving.values() for saving in orders if saving.table is table), None)
        if saving is not None:
            saving.shared = True
        elif model in self.lanes:
            self.lanes[model].pool.release(table)

    # --- reports ------------------------------------------------------------------------------------------------------------------

    def saved(self, seq: int, held: int) -> None:
        """The device has saved pages of a row of `held` tokens: now others may find them, if they are still needed."""
        saving = self._reported(seq)
        if saving is not None:
            pool, table = self.lanes[saving.answer.model.name].pool, saving.table
            table.tokens = min(held, len(table.pages) * PAGE)
            pool.truncate(table, -(-table.tokens // PAGE))
            pool.publish(table, saving.answer.names(min(table.tokens, len(saving.answer.context))))
            self._saving_ended(saving)

    def not_saved(self, seq: int) -> None:
        """The device has not saved pages: the sequence had ended before the order came, or its row has not got them."""
        saving = self._reported(seq)
        if saving is not None:
            self.lanes[saving.answer.model.name].pool.discard(saving.table.pages[saving.first :])
            self._saving_ended(saving)

    def _reported(self, seq: int) -> Saving | None:
        orders = self.saving.get(seq)
        saving = orders.popleft() if orders else None
        if not orders:
            self.saving.pop(seq, None)
        return saving

    def _saving_ended(self, saving: Saving) -> None:
        if saving.shared:
            self.lanes[saving.answer.model.name].pool.release(saving.table)
        self.beginnings.settle(saving.answer)

    def copied(self, report: Copied) -> None:
        """Pages are where they were ordered to be."""
        if report.id in self.moves:
            model, lane, move = self._arrived(report.id)
            if move.source == "disk":
                lane.costs.read(len(move.pages), report.seconds)
            if move.beside:
                lane.pool.moved(move)
                self._go_on(model, lane)

    def not_copied(self, id_: int, reason: str) -> None:
        """Pages could not be copied."""
        if id_ in self.moves:
            model, lane, move = self._arrived(id_)
            log.warning("%d KV pages of %s stay away from the %s: %s", len(move.pages), model, move.target, reason)
            lane.pool.failed(move)
            self._go_on(model, lane)

    def _arrived(self, id_: int) -> tuple[str, PagedLane, Move]:
        """Take an order to copy that the device has reported off the books."""
        model, move = self.moves.pop(id_)
        lane = self.lanes[model]
        if move.beside:
            lane.swapping -= len(move.pages)
        return model, lane, move

    def computed(self, model: str, tokens: int, seconds: float) -> None:
        """A step has computed tokens of prompts; few are not worth a measurement."""
        if tokens >= PAGE and model in self.lanes:
            self.lanes[model].costs.computed(tokens, seconds)

    def balance(self, model: str) -> None:
        """After turns have changed places: read ahead what the next ones need, and write what the last ones need if room gets short.

        Room is kept on the host for the turns that now have slots and for those that will displace them: neither can wait for a disk then.
        """
        lane, scheduler, answers = self.lanes.get(model), self.system.scheduler, self.system.turns.answers
        if lane is None:
            return
        running = [answers[id_] for id_ in scheduler.lanes[model].running]
        wanted = sum(len(answer.prompt) + len(answer.tokens) for answer in running) // PAGE + len(running)
        low = min(2 * wanted, lane.pool.sizes["host"])
        if not lane.pool.held("disk") and lane.pool.room("host") >= low:
            return  # nothing to read and nothing to write: as long as memory is not short, who is next need not be asked
        upcoming = [answers[id_].table for id_ in scheduler.upcoming(model, self.system.config.slots)]
        for table in upcoming:
            self._order(model, lane, lane.pool.fetch(table, must=False))
        self._order(model, lane, lane.pool.sink(low, upcoming))

    # --- orders -------------------------------------------------------------------------------------------------------------------

    def _save(self, answer: "Answer", lane: PagedLane, held: int, upto: int, *, shared: bool = False) -> Table:
        """Order what a row holds to be saved as far as others have not done so; the table of it all."""
        table = lane.pool.match(answer.names(held))
        extension = lane.pool.extend(table, upto)
        if extension is not None:
            slots, moves = extension
            self._order(answer.model.name, lane, moves)
            table.tokens = held
            if slots:
                first = len(table.pages) - len(slots)
                self.saving.setdefault(answer.seq, deque()).append(Saving(answer, table, first, shared))
                self.system.host.command(answer.model.server, Save(answer.seq, answer.model.name, first, slots))
        return table

    def _is_there(self, answer: "Answer", lane: PagedLane) -> bool:
        """Whether the pages of a turn could all be ordered to the device; those that are dearer to read than to compute are given up."""
        pool, table, model = lane.pool, answer.table, answer.model.name
        if away := pool.away(table):
            tokens = table.tokens - table.pages.index(away[0]) * PAGE
            if lane.costs.reading_pays(lane.swapping + len(away), tokens):
                self._order(model, lane, pool.fetch(table, must=True))
                if any(page.target is not None for page in away):
                    return False
            pool.truncate(table, table.pages.index(away[0]))
        self._order(model, lane, pool.lift(table))
        return True

    def _go_on(self, model: str, lane: PagedLane) -> None:
        """Pages have arrived, or will not: who waits for them may begin."""
        for answer in [answer for answer in self.reading.values() if answer.model.name == model]:
            if self._is_there(answer, lane):
                del self.reading[answer.id]
                self.system.turns.begin(answer)
        self.balance(model)

    def _order(self, model: str, lane: PagedLane, moves: list[Move]) -> None:
        for move in moves:
            id_ = next(self._numbers)
            self.moves[id_] = (model, move)
            if move.beside:
                lane.swapping += len(move.pages)
            server = self.system.registry.entries[model].server
            self.system.host.command(server, Copy(id_, model, move.source, move.target, list(move.pairs)))

    def _due(self, answer: "Answer") -> tuple[int, int, int]:
        """When a turn will want its pages: who left last goes on last; a stopped agent may never."""
        scheduler = self.system.scheduler
        if answer.ticket.agent.pid in scheduler.held:
            return (2, 0, -next(self._numbers))
        return (0, scheduler.turns[answer.id].rank if answer.id in scheduler.turns else 0, next(self._numbers))
