"""The account of an agent: what it was served, and the virtual counter by which agents are compared (Sheng et al. 2024).

Service is counted in tokens, a prompt token weighs `PREFILL_WEIGHT` of a produced one, and the virtual counter is service by weight. Agents
are compared by their **position**: the counter as it will be when all that is leased to their turns is produced. Else an agent with many
turns that is next would be next with all of them at once. A lease that is given back lowers the position only while no turn of the agent
waits, as the keys of those that do must not fall (`queues.py`); else the next lease costs less by so much.
"""

from dataclasses import dataclass, field

from ..limits import LEASE_LAST, PREFILL_WEIGHT, QUANTUM_LEAST, QUANTUM_TOKENS


def quantum_of(weight: float, tokens: int = QUANTUM_TOKENS) -> int:
    """Tokens that a turn of an agent of this weight runs before it gives way: alike in weighted service, so a round is fair to all."""
    return max(QUANTUM_LEAST, round(tokens * weight))


@dataclass(slots=True)
class Account:
    """What an agent has been served, over all its turns."""

    weight: float = 1.0
    service: float = 0.0
    """Weighted tokens since it came to be."""
    virtual: float = 0.0
    """Service divided by weight, and lifted to the present when the agent comes back from idleness: nobody saves up."""
    leased: int = 0
    """Tokens that its running turns may still produce."""
    ahead: int = 0
    """Tokens by which its position is ahead of `virtual`: at least what is leased, but for a last token reported late."""
    turns: set[int] = field(default_factory=set)

    @property
    def position(self) -> float:
        """The smallest is next."""
        return self.virtual + self.ahead / self.weight

    def grant(self, tokens: int) -> None:
        """A turn got a lease."""
        self.leased += tokens
        self.ahead = max(self.ahead, self.leased)

    def give_back(self, tokens: int, *, waiting: bool) -> None:
        """A turn left its slot with so much of its lease, of which a token may be under way; `waiting`: others of the agent wait."""
        self.leased -= tokens
        if not waiting:
            self.ahead = self.leased + min(tokens, LEASE_LAST)

    def charge(self, tokens: int, prompt: int, *, leased: bool) -> None:
        """Tokens were produced and computed; not `leased`: the report was on its way when the turn left its slot."""
        cost = tokens + PREFILL_WEIGHT * prompt
        self.service += cost
        self.virtual += cost / self.weight
        self.ahead -= tokens
        if leased:
            self.leased -= tokens

    def come_back(self, present: float) -> None:
        """From idleness, to where those are who had work meanwhile."""
        self.virtual, self.ahead = max(self.virtual, present), 0
