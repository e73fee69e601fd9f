"""`context.*`: conversations kept by the kernel, each with one owner: the user an agent acts for, else the app."""

from typing import Annotated

import msgspec
from msgspec import Meta

from .bounds import Id, Name, Principal
from .call import Call, Done
from .model import Message, Messages


class ContextInfo(msgspec.Struct, frozen=True):
    """A context without its messages."""

    context: Id
    name: Name
    owner: Principal
    messages: int


class ContextList(msgspec.Struct, frozen=True):
    """Contexts by name."""

    contexts: Annotated[list[ContextInfo], Meta(max_length=100_000)]


class ContextPart(msgspec.Struct, frozen=True):
    """Messages `start`, `start + 1`, … of a context of `total` messages."""

    messages: Messages
    start: int
    total: int


class OpenContext(Call[ContextInfo], tag="context.open", frozen=True):
    """The owner's context of this name; made if there is none."""

    name: Name


class AppendContext(Call[ContextInfo], tag="context.append", frozen=True):
    """Put messages at the end, all or none."""

    context: Id
    messages: Annotated[list[Message], Meta(min_length=1, max_length=1_024)]


class ReadContext(Call[ContextPart], tag="context.read", frozen=True):
    """Messages in order."""

    context: Id
    start: Annotated[int, Meta(ge=0, le=1 << 53)] = 0
    limit: Annotated[int, Meta(ge=1, le=1_024)] = 100


class ListContexts(Call[ContextList], tag="context.list", frozen=True):
    """The owner's contexts."""


class DeleteContext(Call[Done], tag="context.delete", frozen=True):
    """Remove a context and its messages for good."""

    context: Id
