"""What an encoder computes next: batches of texts, a piece at a time. Pure.

A piece takes about `PIECE_S` on any device, as the pace of those before it tells, so that whoever is more urgent waits hardly longer than
that, and neither does a decoder that shares the device. Classes are strict; within one the agent that was served the least tokens by its
weight is next (the virtual counter of `accounts.py`). A class that waits longer than `STARVE_S` gets a piece. All of this is forgotten
when nothing waits: then nobody is ahead of anybody.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from ..limits import PIECE_LEAST, PIECE_MOST, PIECE_S, STARVE_S

_DOWN, _UP = 0.3, 0.03
"""How fast the seconds of a token follow, as in `devices/pace.py`: what else runs on a machine only ever makes a piece longer."""

_WITH_REST: Final = 1.5
"""How much longer a piece may be when nothing of its batch is left then: a small rest would wait as long as a piece, for a step of the
decoder beside it. Calls of eight sentences took two steps each, and beside a flood of answers they queued for twice as long as alone."""


@dataclass(slots=True, eq=False)
class Job:
    """A batch that has pieces to come."""

    id: int
    """The higher, the later it arrived."""
    pid: int
    rank: int
    weight: float
    lengths: Sequence[int]
    """Tokens of each text."""
    left: deque[int] = field(init=False)
    """Texts to come by number, the shortest first: those of a piece are alike in length, so that little is padded."""

    def __post_init__(self) -> None:
        self.left = deque(sorted(range(len(self.lengths)), key=self.lengths.__getitem__))


class Pieces:
    """The batches that wait for one encoder."""

    def __init__(self) -> None:
        self.jobs: dict[int, Job] = {}
        self._virtual: dict[int, float] = {}
        """Tokens over weight that each agent was served."""
        self._floor: dict[int, float] = {}
        """Per class, where the agent served last was: who comes later begins there."""
        self._served: dict[int, float] = {}
        """When each class last got a piece, or began to wait."""
        self._token_s = 0.0
        """Seconds of a token; 0: not known."""

    @property
    def urgency(self) -> int | None:
        """The most urgent class that waits; None: nothing does."""
        return min((job.rank for job in self.jobs.values()), default=None)

    def add(self, job: Job, now: float) -> None:
        """Let a batch wait."""
        if all(other.rank != job.rank for other in self.jobs.values()):
            self._served[job.rank] = now
        if all(other.pid != job.pid for other in self.jobs.values()):
            self._virtual[job.pid] = max(self._virtual.get(job.pid, 0.0), self._floor.get(job.rank, 0.0))
        self.jobs[job.id] = job

    def remove(self, id_: int) -> None:
        """A batch is no longer wanted, or has come to its end."""
        self.jobs.pop(id_, None)
        if not self.jobs:
            self._virtual.clear()
            self._floor.clear()

    def take(self, now: float) -> tuple[int, list[int]] | None:
        """The next piece: its batch, and the numbers of its texts. O(n) in the batches that wait, a microsecond each."""
        if not self.jobs:
            return None
        rank = self._rank(now)
        job = min((job for job in self.jobs.values() if job.rank == rank), key=lambda job: (self._virtual[job.pid], job.id))
        piece = self._cut(job)
        self._served[rank] = now
        self._floor[rank] = self._virtual[job.pid]
        self._virtual[job.pid] += sum(job.lengths[number] for number in piece) / job.weight
        if not job.left:
            self.remove(job.id)
        return job.id, piece

    def learn(self, lengths: Sequence[int], seconds: float) -> None:
        """A piece of texts of these lengths took so long. One that is small says little: most of its time is not its tokens'."""
        tokens = len(lengths) * max(lengths)
        if 2 * tokens >= PIECE_LEAST:  # not all of it: short texts hardly ever fill a piece to the last token
            seen = seconds / tokens
            self._token_s += (seen - self._token_s) * ((_DOWN if seen < self._token_s else _UP) if self._token_s else 1.0)

    def _rank(self, now: float) -> int:
        """The most urgent class, or one that starves behind it."""
        first, *others = sorted({job.rank for job in self.jobs.values()})
        return next((rank for rank in others if now - self._served[rank] > STARVE_S), first)

    def _cut(self, job: Job) -> list[int]:
        """As many texts as take `PIECE_S` when padded to the longest of them, and one at the least; all if that is little more."""
        most = min(PIECE_MOST, max(PIECE_LEAST, PIECE_S / self._token_s)) if self._token_s else PIECE_LEAST
        left = job.left
        if len(left) * job.lengths[left[-1]] <= min(PIECE_MOST, _WITH_REST * most):
            piece = list(left)
            left.clear()
            return piece
        piece = [left.popleft()]
        while left and (len(piece) + 1) * job.lengths[left[0]] <= most:
            piece.append(left.popleft())
        return piece
