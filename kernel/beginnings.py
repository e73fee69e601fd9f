"""Common beginnings: what several prompts begin with is computed by the first, and the others wait for it instead of computing the same."""

from typing import TYPE_CHECKING

from .core.pages import PagePool
from .core.prefixes import PageHash

if TYPE_CHECKING:
    from .system import System
    from .turns import Answer

Claim = tuple[str, PageHash]
"""A page of a model that is being computed."""


class Beginnings:
    """Who computes which page first, and who waits for it."""

    def __init__(self, system: "System") -> None:
        self.system = system
        self.computing: dict[Claim, Answer] = {}
        """Pages that running turns are about to compute and others will find."""
        self.expecting: dict[Claim, list[Answer]] = {}

    def expects(self, answer: "Answer") -> bool:
        """Whether a running turn is just computing what this new one would compute first; it is then submitted when that is done."""
        lane = self.system.paging.lanes.get(answer.model.name)
        claim = _claim(answer, lane.pool) if lane is not None else None
        if claim is None or claim not in self.computing:
            return False
        self.expecting.setdefault(claim, []).append(answer)
        return True

    def claim(self, answer: "Answer", pool: PagePool) -> None:
        """A turn that gets a slot is going to compute the first page of its prompt that nobody knows."""
        claim = _claim(answer, pool)
        if claim is not None:
            self.computing.setdefault(claim, answer)

    def settle(self, answer: "Answer") -> None:
        """What a turn was about to compute is there, or will not be: let those that expect it go on."""
        for claim in [claim for claim, computing in self.computing.items() if computing is answer]:
            del self.computing[claim]
            for expecting in self.expecting.pop(claim, []):
                self.system.turns.submit(expecting)


def _claim(answer: "Answer", pool: PagePool) -> Claim | None:
    page = pool.unknown(answer.names(len(answer.prompt) - 1))
    return None if page is None else (answer.model.name, page)
