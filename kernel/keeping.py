"""Conversations between two turns: the KV of an agent that waits for a tool, a message or a person is kept for a learned time.

While it is kept it moves down the tiers under pressure but is not dropped; afterwards it is cached like any beginning, as long as there is
room. One conversation per agent, its last.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .core.gaps import Gaps
from .core.pages import Table
from .core.processes import Process
from .host import Timer

if TYPE_CHECKING:
    from .system import System


@dataclass(frozen=True)
class Kept:
    """The pages of a conversation."""

    model: str
    table: Table
    timer: Timer


class Keeping:
    """Kept conversations by agent, and what was learned of each app."""

    def __init__(self, system: "System") -> None:
        self.system = system
        self.kept: dict[int, Kept] = {}
        self.left: dict[int, float] = {}
        """When each agent's last turn ended."""
        self.gaps: dict[str, Gaps] = {}

    def put(self, agent: Process, model: str, table: Table) -> None:
        """A turn of an agent has ended."""
        self._release(agent.pid)
        now = self.system.host.now
        self.left[agent.pid] = now
        until = now + self.gaps.setdefault(agent.principal, Gaps()).time_to_live
        self.kept[agent.pid] = Kept(model, table, self.system.host.at(until, lambda: self._release(agent.pid)))

    def came_back(self, agent: Process) -> None:
        """An agent's next turn holds the pages it needs of the last."""
        if agent.pid in self.left:
            self.gaps[agent.principal].came_back(self.system.host.now - self.left.pop(agent.pid))
        self._release(agent.pid)

    def ended(self, agent: Process) -> None:
        """An agent is no more."""
        if self.left.pop(agent.pid, None) is not None:
            self.gaps[agent.principal].stayed_away()
        self._release(agent.pid)

    def down(self, model: str) -> None:
        """The pages of a model are gone."""
        for pid in [pid for pid, kept in self.kept.items() if kept.model == model]:
            self.kept.pop(pid).timer.cancel()

    def _release(self, pid: int) -> None:
        kept = self.kept.pop(pid, None)
        if kept is not None:
            kept.timer.cancel()
            self.system.paging.release(kept.model, kept.table)
