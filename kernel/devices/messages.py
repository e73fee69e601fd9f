"""What the kernel and a device server say to each other.

One frame per message: a msgpack struct of one of the two unions below. The kernel speaks token ids only; text, chat templates and
limits are its own affair. Commands are applied between two steps of the device, so a `Stop` acts at the next token.

A **lease** is the number of tokens a sequence may still produce. The kernel extends it before it runs out or lets it run out; a
sequence without a lease keeps its KV cache and takes no part in the step.

**Pages.** A page holds the keys and values of `PAGE` tokens in all layers; page i of a sequence begins at its token i * PAGE, the last may
be filled in part. The kernel owns page tables, reference counts and placement; the device owns three pools of slots per model (tiers
`device`, `host`, `disk`) and obeys orders. A sequence computes in a row of its own, a copy, so only `Save` and `Copy` write slots:

* Commands are applied in the order they are sent. `Begin`, `Save` and a `Copy` between device and host act at once: what is sent after
  them sees what they did, without waiting for a report, and may use their slots anew. A `Copy` from or to disk runs beside the steps,
  after those sent before it: until its report its slots belong to it, and a command that names one of them is refused.
* A row holds the KV of its prompt as far as it is computed, and of all tokens produced but the last, whose KV the next step computes:
  `cached` + the `prefilled` so far, and after the first token len(prompt) + tokens produced here - 1. `Output.held` says it.
* No slot is read for more tokens than were put there, and the target slots of a failed order hold nothing. So a `Begin` that was sent in
  trust of a `Save` or `Copy` which then failed is refused; it never computes with what lay there before.
"""

from typing import Literal

import msgspec

Dtype = Literal["bfloat16", "float32"]
Arithmetic = Literal["auto", "bfloat16", "float32", "int8", "int4"]
"""`auto`: whichever the device is faster in; `int8`, `int4`: float32 with weights rounded to 8 or 4 bits, where the passes are compiled."""
Kind = Literal["decoder", "encoder"]
Finish = Literal["", "stop", "length"]
Tier = Literal["device", "host", "disk"]

PAGE = 64
"""Tokens of a page. Rows grow by as many, so that pages and rows align. With 135M parameters a bf16 page is 1.5 MB: large enough to copy
and to encrypt at full speed. Fewer tokens would make longer page tables, more would let agents share less."""


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
    dtype: Arithmetic
    slots: int
    """Sequences that may run at once (decoders)."""
    pages: int = 0
    """Slots of the device pool; `shape.page_bytes` gives their size. Except on a GPU, slots take memory once they have been used."""
    host_pages: int = 0
    disk_pages: int = 0
    swap: str = ""
    """Where the swap file is made. It has this name for an instant only, and is encrypted with a key that dies with the process."""


class Unload(Command, frozen=True, tag="unload"):
    """Free a model and its pools. Its sequences, if any, end without another word; copies under way still report."""

    model: str


class Begin(Command, frozen=True, tag="begin"):
    """Start a sequence: prefill `prompt`, then produce until the turn has `max_tokens`, within the lease.

    Refused by `Failed`, with nothing begun: a prompt that leaves no room in the window, token ids outside the vocabulary, a schema that
    is none, no free slot, pages that do not hold what they should.
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
    pages: list[int] = []
    """Slots of the device pool with the KV of the first `cached` tokens of `prompt`: page 0, 1, …, ceil(cached / PAGE) of them."""
    cached: int = 0
    """At most len(prompt) - 1: the last token must be computed to know what follows it."""
    keep: bool = False
    """Keep the row of the finished sequence until `Stop`, so that it can be saved; it takes up its slot as long."""
    rank: int = 0
    """Prompts of a lower rank are computed first; among equals first come first served."""


class Extend(Command, frozen=True, tag="extend"):
    """Add tokens to the lease of a sequence; for an unknown sequence (it just ended) this does nothing."""

    seq: int
    tokens: int


class Stop(Command, frozen=True, tag="stop"):
    """End a sequence at the next token and free its KV cache; for an unknown sequence this does nothing."""

    seq: int


class Save(Command, frozen=True, tag="save"):
    """Copy pages of an open sequence, from `first` on, into slots of the device pool. Answered by `Saved` or `Failed` (`save`).

    The last page may be partial. Pages past what the row holds are no error, and their slots then hold nothing: who orders this while a
    step is under way does not know how far the row will be, and `Saved.held` says it. Refused when the row has not even got the page
    `first`, or is gone (finished without `keep`).
    """

    seq: int
    model: str
    first: int
    slots: list[int]


class Copy(Command, frozen=True, tag="copy"):
    """Copy pages between neighbouring tiers, each (source slot, target slot), all or none. Answered by `Copied` or `Failed` (`copy`).

    Between device and disk a page goes by way of the host, by two orders; on its way up the second waits for the report of the first.
    """

    id: int
    model: str
    source: Tier
    target: Tier
    pairs: list[tuple[int, int]]


class Embed(Command, frozen=True, tag="embed"):
    """Embed token id lists, all at once. Answered by `Embedded` or `Failed`."""

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
    dtype: Dtype = "float32"
    mode: str = ""
    """How it computes, as people read it: `eager`, `compiled`, `compiled int8`, `transformers`."""
    page_bytes: int = 0
    """0: this model cannot take pages, and what is preempted must be computed again."""


class Optimized(Report, frozen=True, tag="optimized"):
    """A model computes in another mode from now on; its pools are as they were."""

    model: str
    mode: str
    bytes: int


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
    held: int = 0
    """Tokens whose KV the row holds after this step. Once finished it can be saved only if it was begun with `keep`."""


class Stepped(Report, frozen=True, tag="stepped"):
    """One step of the device."""

    outputs: list[Output]
    seconds: float
    rows: int
    """Sequences decoded in this step."""


class Saved(Report, frozen=True, tag="saved"):
    """The pages of one `Save` are in their slots. Reports of saves come in the order of the commands."""

    seq: int
    first: int
    held: int
    """Tokens the row held: what of the last page is filled. All of them were reported before."""
    seconds: float


class Copied(Report, frozen=True, tag="copied"):
    """All pages of one `Copy` are in their slots. `seconds` leaves out the time spent behind other copies."""

    id: int
    seconds: float
    bytes: int


class Embedded(Report, frozen=True, tag="embedded"):
    """Vectors of a batch, row by row, float32 little-endian, each of length one."""

    batch: int
    dim: int
    data: bytes
    seconds: float = 0.0


class Failed(Report, frozen=True, tag="failed"):
    """A sequence or a batch could not be served, and is gone; or a `Save` (of sequence `save`, which goes on) or a `Copy` was not done.

    With none of the four ids: a frame was no command and was skipped.
    """

    reason: str
    seq: int | None = None
    batch: int | None = None
    copy: int | None = None
    save: int | None = None


AnyCommand = Load | Unload | Begin | Extend | Stop | Save | Copy | Embed | Shutdown
AnyReport = Hello | Loaded | Optimized | LoadFailed | Stepped | Saved | Copied | Embedded | Failed
