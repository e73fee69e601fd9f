"""The two interfaces of this folder.

`Driver` is what the server process (and the kernel's simulator) sees of a device: it takes the commands of `messages` and gives the
reports. `LanguageModel` is what a decoder must offer to be run by `engine`. A new kind of hardware or model implements one of them.
"""

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, NamedTuple, Protocol

from .messages import (
    Begin,
    Copied,
    Copy,
    Embed,
    Embedded,
    Extend,
    Failed,
    Load,
    Loaded,
    LoadFailed,
    Optimized,
    Save,
    Saved,
    Stepped,
    Stop,
    Unload,
)

if TYPE_CHECKING:
    from torch import Tensor


class RefusedError(Exception):
    """A command cannot be served; the text is the reason that goes to the kernel."""


class GivenUpError(Exception):
    """A forward pass was given up for somebody more urgent. Nothing has changed: the same pass can be made later."""


Newcomer = Callable[[], float]
"""Asked while a pass is computed: the rank of the most urgent sequence that has arrived and waits to begin; infinity if there is none."""


def nobody() -> float:
    """A `Newcomer` that never comes."""
    return inf


class Driver(Protocol):
    """One device. Not thread-safe; no method waits for anything but the computation itself."""

    @property
    def busy(self) -> bool:
        """Whether `step` would compute something: some sequence holds a lease."""
        ...

    @property
    def improvable(self) -> bool:
        """Whether `improve` would be of use."""
        ...

    def improve(self) -> list[Optimized]:
        """Use a moment in which there is nothing to do for making models faster. May take as long as to load one; called every second."""
        ...

    def load(self, command: Load) -> Loaded | LoadFailed:
        """Bring a model into memory. After `LoadFailed` nothing of it remains."""
        ...

    def unload(self, command: Unload) -> None:
        """Free a model and its sequences. Unknown: nothing happens."""
        ...

    def begin(self, command: Begin) -> Failed | None:
        """Admit a sequence, or say why not. After `Failed` the sequence does not exist; the others notice nothing."""
        ...

    def extend(self, command: Extend) -> None:
        """Add to a lease. Unknown: nothing happens."""
        ...

    def stop(self, command: Stop) -> None:
        """End a sequence and free its row; no report mentions it again. Unknown: nothing happens."""
        ...

    def save(self, command: Save) -> Saved | Failed:
        """Copy pages of a sequence into the device pool at once."""
        ...

    def copy(self, command: Copy) -> Copied | Failed | None:
        """Copy pages between tiers; None: under way, and `collect` will give the report."""
        ...

    def prepare(self) -> bool:
        """Use a moment without work, some milliseconds, for what will be needed soon; False: there is nothing (more) to do."""
        ...

    def collect(self) -> list[Copied | Failed]:
        """The reports of copies that ran beside the steps and are done."""
        ...

    def fileno(self) -> int:
        """A file descriptor that is readable when `collect` has something to give."""
        ...

    def embed(self, command: Embed) -> Embedded | Failed:
        """Embed a batch at once."""
        ...

    def step(self, newcomer: Newcomer = nobody) -> list[Stepped | Failed]:
        """Advance every sequence that holds a lease, most often by a token; none if the step is given up for a more urgent newcomer.

        A sequence is gone after the report that carries its `finish` or its `Failed`. Empty when not `busy`.
        """
        ...


class Work(NamedTuple):
    """What one sequence takes to a forward pass."""

    seq: int
    tokens: list[int]
    """To append to its cache; at least one."""
    wanted: int
    """Of how many of the last of them to compute the logits of what follows."""


class LanguageModel(Protocol):
    """A decoder with the KV caches of its open sequences. Positions and caches are its affair, choosing tokens is not."""

    @property
    def size(self) -> int:
        """Bytes of weights in memory."""
        ...

    @property
    def mode(self) -> str:
        """How it computes, as people read it."""
        ...

    @property
    def page_shape(self) -> tuple[int, ...]:
        """Sizes of a page, [.., PAGE, dim]; empty for a model that cannot give its caches away."""
        ...

    def open(self, seq: int, tokens: int) -> None:
        """Make an empty KV cache for a new sequence, with room for that many tokens; raises RuntimeError when memory is short."""
        ...

    def close(self, seq: int) -> None:
        """Free the KV cache of an open sequence."""
        ...

    def row(self, seq: int) -> "Tensor":
        """The cache of an open sequence as it lies in memory, [.., tokens, dim], valid until the next call. Pre: `page_shape`."""
        ...

    def adopt(self, seq: int, tokens: int) -> "Tensor":
        """Make an empty cache one of that many tokens, and give its `row`, for the caller to fill. Pre: room for them, `page_shape`."""
        ...

    def cut(self, seq: int, tokens: int) -> None:
        """Forget what the cache of an open sequence holds past so many tokens. Pre: `page_shape`."""
        ...

    def forward(self, work: list[Work], unwanted: Callable[[], bool] = lambda: False) -> "list[Tensor | RuntimeError | None]":
        """Append tokens to open sequences, all different, in one pass; GivenUpError once it is `unwanted`, where a model can still go back.

        Gives for each, in order, its float32 logits [wanted, vocab], or None where none are wanted. RuntimeError: there was no memory for
        this one, which is of no use any more and must be closed; the others are as if it had not been there.
        """
        ...
