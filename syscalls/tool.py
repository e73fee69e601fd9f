"""`tool.*`: functions that agents offer and call. The kernel routes, checks, times and counts every call.

A tool is served by a call that stays open: `tool.serve` streams an `Invocation` for each call, and `tool.answer` sends the result
back. When the serving call ends, for whatever reason, the tool is gone and its open invocations fail.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from .bounds import Id, Json, LabelNames, Path, Pid, Principal, ShortText
from .call import Call, Done, StreamingCall


class Invocation(msgspec.Struct, frozen=True):
    """A call of one's tool; `caller`, `pid` and `user` are stamped by the kernel. `arguments` is a JSON object."""

    invocation: Id
    caller: Principal
    pid: Pid
    user: Principal | None
    arguments: Json
    labels: LabelNames = []
    """Those of the caller, which the serving agent carries from then on unless the tool is `stateless`."""


class Tool(msgspec.Struct, frozen=True):
    """A tool as callers see it; `schema` is the JSON schema of its arguments."""

    tool: Path
    description: ShortText
    schema: Json
    server: Principal
    privileged: bool = False
    labels: LabelNames = []
    """That its results carry."""


class Tools(msgspec.Struct, frozen=True):
    """Tools by name."""

    tools: Annotated[list[Tool], Meta(max_length=10_000)]
    labels: LabelNames = []
    """Of their descriptions: what the agents that offered them carried then."""


class ToolResult(msgspec.Struct, frozen=True):
    """What a tool answered, as JSON text."""

    result: Json
    seconds: float
    labels: LabelNames = []


class ServeTool(StreamingCall[Invocation, Done], tag="tool.serve", frozen=True):
    """Offer a tool named `app/function` for as long as this call is open.

    `privileged`: it does something that cannot be undone, or acts for somebody; the policy can ask for approval of its calls. `labels` are
    what its results carry, such as `untrusted` where they bring text from the outside. `stateless`: nothing of one call finds its way into
    another, so that the serving agent does not carry what its callers do, and each result carries what its own caller does.
    """

    tool: Path
    description: ShortText
    schema: Json
    privileged: bool = False
    labels: LabelNames = []
    stateless: bool = False


class AnswerTool(Call[Done], tag="tool.answer", frozen=True):
    """The result of an invocation as JSON text, or the reason why it failed."""

    invocation: Id
    result: Json = "null"
    error: ShortText | None = None


class CallTool(Call[ToolResult], tag="tool.call", frozen=True):
    """Call a tool with a JSON object of arguments and wait for its result, at most until the call's deadline."""

    tool: Path
    arguments: Json = "{}"


class ListTools(Call[Tools], tag="tool.list", frozen=True):
    """The tools being served whose name begins with `prefix`."""

    prefix: Annotated[str, Meta(max_length=200)] = ""
