"""What computes the passes of a Llama-shaped model: the interface of `eager` and `compiled`."""

from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from torch import Tensor

from .kv import KVRows
from .shape import Shape

LOOK_UP: Final = 4
"""Every so many layers it is asked whether the pass is still wanted: a few milliseconds apart, and a few microseconds each."""


class Pass(NamedTuple):
    """Tokens that are appended to rows, each row's one after another; rows with one token come first."""

    tokens: list[int]
    rows: list[int]
    counts: list[int]
    """Tokens of each row."""
    ends: list[int]
    """The tokens, by place, of whose successors the logits are wanted."""
    unwanted: Callable[[], bool]


class Computation(Protocol):
    """The weights of a model, and passes through them."""

    @property
    def shape(self) -> Shape:
        """The numbers that define the model."""
        ...

    @property
    def mode(self) -> str:
        """As people read it."""
        ...

    @property
    def size(self) -> int:
        """Bytes of weights in memory; what is shared counts once."""
        ...

    @property
    def like(self) -> Tensor:
        """A tensor of the type and on the device that KV caches must have."""
        ...

    def logits(self, kv: KVRows, work: Pass) -> Tensor:
        """Write keys and values behind what the rows hold, and give float32 logits [ends, vocab]; raises GivenUpError. Pre: room."""
        ...
