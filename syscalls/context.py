"""`context.*`: conversations kept by the kernel, each with one owner: the user an agent acts for, else the app.

A context is a durable list of messages. Its window is what a model sees of it: the messages from `resident` on, and pinned ones before
that; the others have left the window and are kept as pages. Messages are counted from 0; ranges include `start` and not `stop`.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from .bounds import Id, LabelNames, Name, Principal, ShortText, Text
from .call import Call, Done
from .model import Message, Messages, Role

Count = Annotated[int, Meta(ge=0, le=1 << 53)]
Numbers = Annotated[list[int], Meta(max_length=1 << 24)]
Access = Literal["read", "append"]


class ContextInfo(msgspec.Struct, frozen=True):
    """A context without its messages. Times are in seconds since the Unix epoch, `tokens` as its model counts them."""

    context: Id
    name: Name
    owner: Principal
    messages: int
    tokens: int = 0
    bytes: int = 0
    resident: int = 0
    """The first message that has not left the window."""
    model: Annotated[str, Meta(max_length=64)] = ""
    """The model that is attached; empty: none."""
    labels: LabelNames = []
    closed: bool = False
    created: float = 0.0
    updated: float = 0.0


class ContextList(msgspec.Struct, frozen=True):
    """Contexts by name."""

    contexts: Annotated[list[ContextInfo], Meta(max_length=100_000)]
    labels: LabelNames = []


class MessageState(msgspec.Struct, frozen=True):
    """What the kernel knows of a message besides what was said."""

    time: float
    tokens: int
    state: Literal["resident", "pinned", "paged"]
    embedded: bool
    """It is found by meaning; a page that is not yet embedded is found by its words."""


class ContextPart(msgspec.Struct, frozen=True):
    """Messages `start`, `start + 1`, … of a context of `total` messages, and the state of each."""

    messages: Messages
    start: int
    total: int
    states: Annotated[list[MessageState], Meta(max_length=1_024)] = []
    labels: LabelNames = []
    """Of the context."""


class Snapshot(msgspec.Struct, frozen=True):
    """A point of a context that can be gone back to."""

    name: Name
    messages: int
    time: float


class Operation(msgspec.Struct, frozen=True):
    """Something that was done to a context, which was `before` messages long and `after` that.

    `start` to `stop` are the messages it was about: those appended, left behind, paged out or summarized. `detail` is the snapshot's name,
    or the id of the context that was forked. `actor` is empty for appending.
    """

    kind: Literal["append", "fork", "rollback", "restore", "snapshot", "page_out", "summarize"]
    time: float
    actor: Annotated[str, Meta(max_length=80)]
    before: int
    after: int
    start: int
    stop: int
    detail: ShortText = ""


class ContextHistory(msgspec.Struct, frozen=True):
    """The newest of all that was done to a context, the oldest first; `total` counts all of it."""

    operations: Annotated[list[Operation], Meta(max_length=1_024)]
    total: int
    labels: LabelNames = []


class Grant(msgspec.Struct, frozen=True):
    """Somebody a context is shared with."""

    principal: Principal
    access: Access


class Points(msgspec.Struct, frozen=True):
    """Why a page was recalled. `score` is the sum.

    `meaning` is in standard deviations above what is usual in its context, `words` are for the terms of the question that it holds,
    `author` if it is by somebody the question names.
    """

    score: float
    meaning: float
    words: float
    author: float


class Source(msgspec.Struct, frozen=True):
    """What a summary is about: messages `start` to `stop`."""

    start: Count
    stop: Count


class Recalled(msgspec.Struct, frozen=True):
    """A page of message `message` of a context: one that has left the window, or a part of it if it is long; or one of a summary.

    For a summary, `message` is the first that it is about, and `time` is that of the newest.
    """

    context: Id
    message: int
    role: Role
    text: Text
    time: float
    tokens: int
    points: Points
    source: Source | None = None
    """Given for a summary, and for nothing else."""


class RecalledPages(msgspec.Struct, frozen=True):
    """Pages, best first."""

    pages: Annotated[list[Recalled], Meta(max_length=1_024)]
    by_meaning: bool
    """Whether meaning counted; without an encoder at hand, words alone do."""
    labels: LabelNames = []
    """Of all contexts that the pages are of."""


class PromptPart(msgspec.Struct, frozen=True):
    """A part of a prompt, and why it is there.

    `message` is its number in the context, for a summary that of the first it is about; new ones have none yet.
    """

    why: Literal["resident", "pinned", "recalled", "new"]
    role: Role
    text: Annotated[str, Meta(max_length=1 << 20)]
    tokens: int
    message: int | None = None
    points: Points | None = None
    whole: bool = True
    """`false`: the message is larger than the window, and parts of it are left out."""
    source: Source | None = None
    """Given for a summary that was recalled, and for nothing else."""


class Notice(msgspec.Struct, frozen=True):
    """Messages `start` to `stop` are about to leave the window of a context, but for those that are pinned.

    `messages` are these in order, at most the first 1,024; where there are more, read the others. After `deadline`, in seconds since the
    Unix epoch, no turn waits any more for what the agent does about them.
    """

    context: Id
    start: Count
    stop: Count
    messages: Messages
    deadline: float
    labels: LabelNames = []


class Prompt(msgspec.Struct, frozen=True):
    """What a model is shown: parts in order, tokens of them all with the chat template, and the model's window."""

    model: Name
    tokens: int
    window: int
    parts: Annotated[list[PromptPart], Meta(max_length=1 << 20)]
    paged_out: int
    """Messages that leave the window before this prompt."""
    seen: bool
    """The model has seen it; else it is what it would see."""
    labels: LabelNames = []


class ContextStat(msgspec.Struct, frozen=True):
    """All about a context but its messages."""

    info: ContextInfo
    pinned: Numbers
    pages: int
    embedded: int
    """Pages that are found by meaning already."""
    snapshots: Annotated[list[Snapshot], Meta(max_length=1 << 20)]
    grants: Annotated[list[Grant], Meta(max_length=1 << 20)]
    labels: LabelNames = []
    """As in `info`."""


class OpenContext(Call[ContextInfo], tag="context.open", frozen=True):
    """The owner's context of this name, open again if it was closed; made if there is none. `model` is attached to it, if given."""

    name: Name
    model: Name | None = None


class AppendContext(Call[ContextInfo], tag="context.append", frozen=True):
    """Put messages at the end, all or none."""

    context: Id
    messages: Annotated[list[Message], Meta(min_length=1, max_length=1_024)]


class ReadContext(Call[ContextPart], tag="context.read", frozen=True):
    """Messages in order."""

    context: Id
    start: Count = 0
    limit: Annotated[int, Meta(ge=1, le=1_024)] = 100


class ListContexts(Call[ContextList], tag="context.list", frozen=True):
    """The owner's contexts, or with `shared` those that others share with the owner."""

    shared: bool = False


class StatContext(Call[ContextStat], tag="context.stat", frozen=True):
    """All about a context but its messages."""

    context: Id


class ForkContext(Call[ContextInfo], tag="context.fork", frozen=True):
    """A new context of the caller's own that begins as the other one is now. Messages are shared, not copied, and each goes its way."""

    context: Id
    name: Name


class SnapshotContext(Call[Snapshot], tag="context.snapshot", frozen=True):
    """Give the present state a name; one of the same name is replaced."""

    context: Id
    name: Name


class RestoreContext(Call[ContextInfo], tag="context.restore", frozen=True):
    """Go back, or forward again, to a snapshot."""

    context: Id
    name: Name


class DropSnapshot(Call[Done], tag="context.drop", frozen=True):
    """Forget a snapshot, and remove for good what it alone kept of the history."""

    context: Id
    name: Name


class RollbackContext(Call[ContextInfo], tag="context.rollback", frozen=True):
    """Go back to the first `messages` messages; what is left behind stays in the history."""

    context: Id
    messages: Count


class ReadHistory(Call[ContextHistory], tag="context.history", frozen=True):
    """What was done to a context: the newest `limit` operations."""

    context: Id
    limit: Annotated[int, Meta(ge=1, le=1_024)] = 100


class PinMessages(Call[Done], tag="context.pin", frozen=True):
    """Keep messages in the window, and bring back those that have left."""

    context: Id
    start: Count
    stop: Count


class UnpinMessages(Call[Done], tag="context.unpin", frozen=True):
    """Let messages leave the window; those before its beginning are out of it at once."""

    context: Id
    start: Count
    stop: Count


class PageOut(Call[ContextInfo], tag="context.page_out", frozen=True):
    """Let the messages before `until` leave the window, but for pinned ones. Nothing is lost: they can be read and recalled."""

    context: Id
    until: Count


class AwaitNotice(Call[Notice], tag="context.notice", frozen=True):
    """Wait until messages are about to leave the window, as an agent of the context's owner; each is told of once.

    Notice comes when the window is getting full, so that a summary can be written before any turn needs the room. A turn that needs it
    earlier waits until the agent has called `context.summarize` up to the last of the messages or `context.notice` again, has ended, or
    `grace` seconds have passed since the notice, and at most 30 s; then they leave. What `context.page_out` and `context.unpin` take out
    leaves without notice.
    """

    context: Id
    grace: Annotated[float, Meta(gt=0, le=3_600)] = 30.0


class SummarizeContext(Call[Done], tag="context.summarize", frozen=True):
    """Keep a summary of messages `start` to `stop`, at any time. It is recalled beside them once all of them have left the window.

    It takes nothing's place: the messages are kept, read and recalled as before, and a summary is marked as one wherever it comes up. It
    has their labels and goes with any of them; a fork or a snapshot has those that there were of what it holds.
    """

    context: Id
    start: Count
    stop: Count
    text: Annotated[str, Meta(min_length=1, max_length=262_144)]


class Recall(Call[RecalledPages], tag="context.recall", frozen=True):
    """What has left the window and has to do with a question, at most `budget` tokens together. What was said twice comes once.

    It can be asked for some `roles`, for messages with all of `labels`, and for a time: `since` and `until`, in seconds since the Unix
    epoch.
    """

    context: Id
    query: Text
    limit: Annotated[int, Meta(ge=1, le=1_024)] = 10
    budget: Annotated[int, Meta(ge=1, le=1 << 20)] = 1 << 20
    roles: Annotated[list[Role], Meta(max_length=4)] = []
    labels: Annotated[list[Name], Meta(max_length=16)] = []
    since: float | None = None
    until: float | None = None


class SearchContexts(Call[RecalledPages], tag="context.search", frozen=True):
    """The same over all contexts of the owner, and also in what has not left their windows."""

    query: Text
    limit: Annotated[int, Meta(ge=1, le=1_024)] = 10
    budget: Annotated[int, Meta(ge=1, le=1 << 20)] = 1 << 20
    roles: Annotated[list[Role], Meta(max_length=4)] = []
    labels: Annotated[list[Name], Meta(max_length=16)] = []
    since: float | None = None
    until: float | None = None


class ExplainContext(Call[Prompt], tag="context.explain", frozen=True):
    """The prompt that a turn with these messages would have, and why; without messages, the one that the model saw last."""

    context: Id
    model: Name
    messages: Messages = []


class LabelContext(Call[Done], tag="context.label", frozen=True):
    """Set the labels of a context. To take one away needs the right to `declassify` it; those that the caller carries are added."""

    context: Id
    labels: LabelNames


class GrantContext(Call[Done], tag="context.grant", frozen=True):
    """Share a context with a principal, who may then read it, or also append; without `access` no more. A fork made meanwhile stays."""

    context: Id
    principal: Principal
    access: Access | None = None


class CloseContext(Call[Done], tag="context.close", frozen=True):
    """Let nothing be appended until it is opened again."""

    context: Id


class DeleteContext(Call[Done], tag="context.delete", frozen=True):
    """Remove a context and its messages for good, but for what forks of it still show."""

    context: Id
