"""What the kernel and a device server say to each other.

One frame per message: a msgpack struct of one of the two unions below. The kernel speaks token ids only; text, chat templates and
limits are its own affair. Commands are applied between two steps of the device, so a `Stop` acts at the next token.

A **lease** is the number of tokens a sequence may still produce. The kernel extends it before it runs out or lets it run out; a
sequence without a lease keeps its KV cache and takes no part in the step.
"""

from typing import Literal

import msgspec

Dtype = Literal["bfloat16", "float32"]
Kind = Literal["decoder", "encoder"]
Finish = Literal["", "stop", "length"]


class Sampling(msgspec.Struct, frozen=True):
    """How the next token is chosen. Temperature 0 is greedy.

    A sampled token depends only on the logits, the seed and its position, so a sequence that is carried on after a crash draws the
    same tokens again.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    ignore_eos: bool = False


class Command(msgspec.Struct, frozen=True, tag_field="do"):
    """Kernel to device."""


class Load(Command, frozen=True, tag="load"):
    """Bring the model under `path` into memory. Answered by `Loaded` or `LoadFailed`."""

    model: str
    path: str
    kind: Kind
    dtype: Dtype
    slots: int
    """Sequences that may run at once (decoders)."""


class Unload(Command, frozen=True, tag="unload"):
    """Free a model. Its sequences, if any, end without another word."""

    model: str


class Begin(Command, frozen=True, tag="begin"):
    """Start a sequence: prefill `prompt`, then produce until the turn has `max_tokens`, within the lease.

    Refused by `Failed`, with nothing begun: a prompt that leaves no room in the window, token ids outside the vocabulary, a schema that
    is none, no free slot.
    """

    seq: int
    model: str
    prompt: list[int]
    max_tokens: int
    """Of the whole turn: the `resumed` ones count. A turn that has this many already is not begun again."""
    lease: int
    sampling: Sampling
    resumed: int = 0
    """How many tokens at the end of `prompt` this same turn produced before it moved here."""
    schema: str | None = None
    """A JSON schema (as JSON text) that the produced text must follow."""


class Extend(Command, frozen=True, tag="extend"):
    """Add tokens to the lease of a sequence; for an unknown sequence (it just ended) this does nothing."""

    seq: int
    tokens: int


class Stop(Command, frozen=True, tag="stop"):
    """End a sequence at the next token and free its KV cache; for an unknown sequence this does nothing."""

    seq: int


class Embed(Command, frozen=True, tag="embed"):
    """Embed token id lists. Answered by `Embedded` or `Failed`."""

    batch: int
    model: str
    inputs: list[list[int]]


class Shutdown(Command, frozen=True, tag="shutdown"):
    """Leave; nothing more is sent."""


class Report(msgspec.Struct, frozen=True, tag_field="is"):
    """Device to kernel."""


class Hello(Report, frozen=True, tag="hello"):
    """The first message of a device server: it is up and has no model yet."""

    device: str
    pid: int
    accelerator: str
    threads: int


class Loaded(Report, frozen=True, tag="loaded"):
    """A model is ready."""

    model: str
    kind: Kind
    seconds: float
    bytes: int
    window: int
    """Longest sequence in tokens."""
    dim: int
    """Size of an embedding (encoders) or of the hidden state (decoders)."""


class LoadFailed(Report, frozen=True, tag="load_failed"):
    """A model could not be loaded; `reason` says why in words for an administrator."""

    model: str
    reason: str


class Output(msgspec.Struct, frozen=True, array_like=True):
    """What one step did for one sequence."""

    seq: int
    tokens: list[int]
    """New tokens in order; the end-of-sequence token is not among them."""
    prefilled: int
    """Prompt tokens computed in this step."""
    finish: Finish
    """Empty while the sequence lives; `stop`: end of sequence or a complete schema; `length`: `max_tokens` reached."""


class Stepped(Report, frozen=True, tag="stepped"):
    """One step of the device."""

    outputs: list[Output]
    seconds: float
    rows: int
    """Sequences decoded in this step."""


class Embedded(Report, frozen=True, tag="embedded"):
    """Vectors of a batch, row by row, float32 little-endian, each of length one."""

    batch: int
    dim: int
    data: bytes


class Failed(Report, frozen=True, tag="failed"):
    """A sequence or a batch could not be served, and is gone; the device itself goes on.

    With neither `seq` nor `batch`: a frame was no command and was skipped.
    """

    reason: str
    seq: int | None = None
    batch: int | None = None


AnyCommand = Load | Unload | Begin | Extend | Stop | Embed | Shutdown
AnyReport = Hello | Loaded | LoadFailed | Stepped | Embedded | Failed
