"""What bringing pages back costs, as measured on the way: reading them, or computing their tokens again. Pure."""

from dataclasses import dataclass
from typing import Final

_NEW: Final = 0.2
"""Weight of the newest measurement: some ten of them tell of the last seconds, and a single odd one changes little."""


@dataclass(slots=True)
class Costs:
    """Moving means of one lane, in seconds; they begin with what was measured on a small machine."""

    read_s: float = 0.005
    """Per page, from disk to host."""
    compute_s: float = 0.001
    """Per token of a prompt."""

    def read(self, pages: int, seconds: float) -> None:
        """Pages have been read."""
        self.read_s += _NEW * (seconds / pages - self.read_s)

    def computed(self, tokens: int, seconds: float) -> None:
        """Prompt tokens have been computed in a step that did little else."""
        self.compute_s += _NEW * (seconds / tokens - self.compute_s)

    def reading_pays(self, pages: int, tokens: int) -> bool:
        """Whether to wait for `pages` to be read, themselves and those before them, rather than to compute `tokens`."""
        return pages * self.read_s < tokens * self.compute_s
