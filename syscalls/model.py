"""`model.*`: generate, embed, count, and which models are there."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from .bounds import Id, Json, LabelNames, Name, ShortText, Text, Time
from .call import Call, Done, StreamingCall

Role = Literal["system", "user", "assistant", "tool"]
Kind = Literal["decoder", "encoder"]


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message of a conversation. `calls` are the tool calls it makes, as JSON; `labels` stick to the context it is put into.

    `time` is when it was said, for what is put into a context later than that; without one it is when the kernel takes it. What is read
    from a context has it in its state.
    """

    role: Role
    text: Text
    labels: LabelNames = []
    calls: Annotated[str, Meta(max_length=65_536)] = ""
    time: Time | None = None


Messages = Annotated[list[Message], Meta(max_length=1_024)]


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one turn, counted by the model's own tokenizer."""

    prompt_tokens: int
    generated_tokens: int
    cached_tokens: int = 0
    """Prompt tokens that had been computed before, for this app, and did not have to be computed again."""


class Timing(msgspec.Struct, frozen=True):
    """What the time to the first token of a turn was made of, in seconds; both 0 if it produced none."""

    waiting: float = 0.0
    """In which nothing of its prompt was computed: for a slot, for pages, for others."""
    prefill: float = 0.0
    """In which its prompt was computed. Of a step that computed for others too, its part by tokens."""


class Chunk(msgspec.Struct, frozen=True):
    """The next piece of an answer; `tokens` counts the tokens it took."""

    text: Text
    tokens: int


class Generation(msgspec.Struct, frozen=True):
    """A whole answer."""

    text: Annotated[str, Meta(max_length=4 << 20)]
    finish: Literal["stop", "length"]
    """`stop`: the model ended, a stop text came up or the schema is complete; `length`: `max_tokens` or the window ended it."""
    usage: Usage
    tokens: Annotated[list[int], Meta(max_length=131_072)]
    """The token ids produced, without the end-of-sequence token."""
    resumed: int
    """How often the turn was carried on after its device had crashed."""
    labels: LabelNames = []
    """Of its context, its messages and its model."""
    timing: Timing = Timing()


class Embeddings(msgspec.Struct, frozen=True):
    """Vectors of length one, `count` rows of `dim` float32 values, little-endian, row by row."""

    dim: int
    count: int
    data: Annotated[bytes, Meta(max_length=16 << 20)]

    def rows(self) -> "list[memoryview[float]]":
        """A view of each row as floats, without a copy."""
        values: memoryview[float] = memoryview(self.data).cast("f")
        return [values[i * self.dim : (i + 1) * self.dim] for i in range(self.count)]


class TokenCount(msgspec.Struct, frozen=True):
    """Tokens in a text."""

    tokens: int


class Model(msgspec.Struct, frozen=True):
    """A model in the store and what became of it."""

    name: Name
    kind: Kind
    state: Literal["stored", "loading", "ready", "failed"]
    device: ShortText
    window: int
    bytes: int
    source: ShortText
    reason: ShortText = ""
    dtype: ShortText = ""
    """The arithmetic it runs in; empty: it was not loaded yet."""
    mode: ShortText = ""
    """How it is computed: `eager`, `compiled`, `compiled bfloat16`, `compiled int8`, or by `transformers`; empty: it was not loaded yet."""


class Models(msgspec.Struct, frozen=True):
    """The models by name, and which of them apps use when they name none (empty: there is none)."""

    models: Annotated[list[Model], Meta(max_length=1_024)]
    decoder: Annotated[str, Meta(max_length=64)]
    encoder: Annotated[str, Meta(max_length=64)]


class Generate(StreamingCall[Chunk, Generation], tag="model.generate", frozen=True):
    """Answer a conversation.

    The prompt is what the context holds (where one is named) followed by `messages`. With a context, `messages` and the answer are
    appended to it together when the answer is complete, or not at all. Greedy at temperature 0; a `seed` makes a sampled answer
    repeatable. With `schema` (a JSON schema as text) the answer is a JSON document that follows it.
    """

    model: Name
    messages: Messages = []
    context: Id | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=131_072)] = 256
    temperature: Annotated[float, Meta(ge=0.0, le=2.0)] = 0.0
    top_p: Annotated[float, Meta(gt=0.0, le=1.0)] = 1.0
    seed: Annotated[int, Meta(ge=0, le=(1 << 62))] | None = None
    stop: Annotated[list[Annotated[str, Meta(min_length=1, max_length=64)]], Meta(max_length=8)] = []
    schema: Json | None = None
    ignore_eos: bool = False
    """Go on past the end of the answer to `max_tokens`: for measurements."""


class Embed(Call[Embeddings], tag="model.embed", frozen=True):
    """A vector per text. A text longer than the model's window is cut at it."""

    model: Name
    texts: Annotated[list[Text], Meta(min_length=1, max_length=256)]


class CountTokens(Call[TokenCount], tag="model.count", frozen=True):
    """Count a text as the model's tokenizer does, without special tokens."""

    model: Name
    text: Text


class ListModels(Call[Models], tag="model.list", frozen=True):
    """The models of this machine."""


class LoadModel(Call[Model], tag="model.load", frozen=True):
    """Bring a stored model to its device and wait until it is ready."""

    model: Name


class UnloadModel(Call[Done], tag="model.unload", frozen=True):
    """Take a model off its device; refused while turns run on it."""

    model: Name
