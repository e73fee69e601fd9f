"""The whole interface of Kernos on one screen: a row per system call.

The typed decoder, the gate, the reference page `docs/syscalls.md`, the policy tools and the tests all read this table.

`needs` says what the policy must allow, as pairs of an object and an action. A `{field}` of an object is taken from the request, and
`{whose}` is `own` where the process, context or principal that the request names is the caller's, `shared` where it is a context that
its owner shares with the caller's, else its owner. `{raised}` is the same, but only where the call makes a process more urgent. A need
whose field the request leaves out does not apply; a call without needs is open to every known principal.
"""

from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from string import Formatter
from typing import Any, get_args

import msgspec

from . import audit, context, message, model, policy, process, store, system, tool
from .call import Call, StreamingCall

Need = tuple[str, str]


class Cost(Enum):
    """What a call may take of the machine; the gate charges by it."""

    LIGHT = "answered at once"
    DISK = "waits for the disk"
    WAITS = "waits for somebody else, or for a thread"
    DEVICE = "runs on a device"


@dataclass(frozen=True)
class Row:
    """A system call as the table states it."""

    call: type[Call[Any]]
    needs: tuple[Need, ...]
    cost: Cost
    mutates: bool
    """Carries an idempotency key and is applied once."""
    control: bool
    """Also taken on the control socket, which never queues behind work."""
    agent: bool
    """Must name an agent: pid 0 is not enough."""
    reads: bool
    """Its reply has labels, and the agent that gets it carries them from then on."""
    outside: bool
    """Its effect is not the kernel's to keep: whether it was carried out by a kernel that died, the next one cannot know."""

    @cached_property
    def name(self) -> str:
        """As on the wire: `family.verb`."""
        return str(self.call.__struct_config__.tag)

    @cached_property
    def types(self) -> tuple[Any, ...]:
        """The type arguments of the call: `(reply,)`, or `(event, reply)` if it streams."""
        bases = getattr(self.call, "__orig_bases__", ())
        return next(get_args(base) for base in bases if get_args(base))

    @cached_property
    def reply(self) -> Any:
        """The type of the reply."""
        return self.types[-1]

    @cached_property
    def event(self) -> Any | None:
        """The type of an event, for calls that stream."""
        return self.types[0] if issubclass(self.call, StreamingCall) else None

    @cached_property
    def reply_decoder(self) -> "msgspec.msgpack.Decoder[Any]":
        """Kept for life: making a decoder costs more than using it a thousand times."""
        return msgspec.msgpack.Decoder(self.reply)

    @cached_property
    def event_decoder(self) -> "msgspec.msgpack.Decoder[Any]":
        """As `reply_decoder`; for calls that stream."""
        return msgspec.msgpack.Decoder(self.event)


def row(call: type[Call[Any]], *needs: str, cost: Cost = Cost.LIGHT, flags: str = "") -> Row:
    """A row; each need is written `object:action`, the flags are those of the heading below."""
    pairs = tuple((need.rpartition(":")[0], need.rpartition(":")[2]) for need in needs)
    return Row(call, pairs, cost, mutates="m" in flags, control="c" in flags, agent="a" in flags, reads="r" in flags, outside="o" in flags)


TABLE: tuple[Row, ...] = (
    # flags: m mutates, c control, a agent, r reads, o outside
    row(process.Spawn, "process/{name}:spawn", "principal/{user}:represent", "priority/{priority}:use", cost=Cost.DISK, flags="m"),
    row(process.ListProcesses, "process/{scope}:list", flags="c"),
    row(process.Wait, "process/{whose}:wait", cost=Cost.WAITS, flags="r"),
    row(process.Exit, "process/{whose}:exit", flags="mc"),
    row(process.SendSignal, "process/{whose}:signal", flags="mc"),
    row(process.Kill, "process/{whose}:kill", flags="mc"),
    row(process.Nice, "process/{whose}:nice", "process/{raised}:raise", "priority/{priority}:use", flags="mc"),
    row(process.GetUsage, "quota/{whose}:read", flags="c"),
    row(process.SetLimits, "quota/{principal}:set", flags="mc"),
    row(process.Declassify, "process/{whose}:declassify", "label/{label}:declassify", flags="m"),
    row(process.ListApprovals, "approval/{principal}:list", flags="r"),
    row(process.Approve, "approval/{principal}:decide", flags="m"),
    row(process.Launch, "app/{app}:run", flags="m"),
    row(process.LendKey, "app/{app}:run", cost=Cost.WAITS, flags="m"),
    row(process.ReportCrash, "app/{app}:run", flags="m"),
    row(model.Generate, "model/{model}:generate", "context/{whose}:read", "context/{whose}:append", cost=Cost.DEVICE, flags="mar"),
    row(model.Embed, "model/{model}:embed", cost=Cost.DEVICE, flags="a"),
    row(model.CountTokens, "model/{model}:count", cost=Cost.WAITS),
    row(model.ListModels, "model:list"),
    row(model.LoadModel, "model/{model}:load", cost=Cost.WAITS, flags="m"),
    row(model.UnloadModel, "model/{model}:unload", flags="m"),
    row(context.OpenContext, "context/own:open", cost=Cost.DISK, flags="ma"),
    row(context.AppendContext, "context/{whose}:append", cost=Cost.DISK, flags="ma"),
    row(context.ReadContext, "context/{whose}:read", cost=Cost.DISK, flags="ar"),
    row(context.ListContexts, "context/own:list", cost=Cost.DISK, flags="ar"),
    row(context.StatContext, "context/{whose}:read", cost=Cost.DISK, flags="ar"),
    row(context.ForkContext, "context/{whose}:read", "context/own:open", cost=Cost.DISK, flags="ma"),
    row(context.SnapshotContext, "context/{whose}:snapshot", cost=Cost.DISK, flags="ma"),
    row(context.RestoreContext, "context/{whose}:rollback", cost=Cost.DISK, flags="ma"),
    row(context.DropSnapshot, "context/{whose}:snapshot", cost=Cost.DISK, flags="ma"),
    row(context.RollbackContext, "context/{whose}:rollback", cost=Cost.DISK, flags="ma"),
    row(context.Recall, "context/{whose}:read", cost=Cost.DEVICE, flags="ar"),
    row(context.SearchContexts, "context/own:search", cost=Cost.DEVICE, flags="ar"),
    row(context.ExplainContext, "context/{whose}:explain", cost=Cost.DEVICE, flags="ar"),
    row(context.ReadHistory, "context/{whose}:read", cost=Cost.DISK, flags="ar"),
    row(context.PinMessages, "context/{whose}:pin", cost=Cost.DISK, flags="ma"),
    row(context.UnpinMessages, "context/{whose}:pin", cost=Cost.DISK, flags="ma"),
    row(context.PageOut, "context/{whose}:append", cost=Cost.DISK, flags="ma"),
    row(context.AwaitNotice, "context/{whose}:read", "context/{whose}:notice", cost=Cost.WAITS, flags="ar"),
    row(context.SummarizeContext, "context/{whose}:summarize", cost=Cost.DISK, flags="ma"),
    row(context.LabelContext, "context/{whose}:label", cost=Cost.DISK, flags="ma"),
    row(context.GrantContext, "context/{whose}:grant", cost=Cost.DISK, flags="ma"),
    row(context.CloseContext, "context/{whose}:close", cost=Cost.DISK, flags="ma"),
    row(context.DeleteContext, "context/{whose}:delete", cost=Cost.DISK, flags="ma"),
    row(store.PutFile, "store/{path}:write", cost=Cost.DISK, flags="ma"),
    row(store.GetFile, "store/{path}:read", cost=Cost.DISK, flags="ar"),
    row(store.ListFiles, "store:list", cost=Cost.DISK, flags="ar"),
    row(store.DeleteFile, "store/{path}:delete", cost=Cost.DISK, flags="ma"),
    row(store.MoveFile, "store/{path}:write", "store/{to}:write", cost=Cost.DISK, flags="ma"),
    row(store.ListVersions, "store/{path}:read", cost=Cost.DISK, flags="ar"),
    row(store.RollbackFile, "store/{path}:write", cost=Cost.DISK, flags="ma"),
    row(store.SearchFiles, "store:search", cost=Cost.DEVICE, flags="ar"),
    row(store.ShareFiles, "store/{path}:share", cost=Cost.DISK, flags="ma"),
    row(store.BeginUpload, "store/{path}:write", cost=Cost.DISK, flags="ma"),
    row(store.UploadPart, "store:upload", cost=Cost.DISK, flags="ma"),
    row(store.FinishUpload, "store:upload", cost=Cost.DISK, flags="ma"),
    row(message.Send, "message/{to}:send", cost=Cost.DISK, flags="ma"),
    row(message.Reply, "message/{sender}:send", cost=Cost.DISK, flags="ma"),
    row(message.Receive, "message/{mailbox}:receive", cost=Cost.WAITS, flags="mar"),
    row(message.Subscribe, "message/{topic}:subscribe", "message/{queue}:receive", cost=Cost.DISK, flags="ma"),
    row(message.Unsubscribe, "message/{topic}:subscribe", "message/{queue}:receive", cost=Cost.DISK, flags="ma"),
    row(tool.ServeTool, "tool/{tool}:serve", cost=Cost.WAITS, flags="a"),
    row(tool.AnswerTool, "tool:answer", flags="ma"),
    row(tool.CallTool, "tool/{tool}:call", cost=Cost.WAITS, flags="maro"),
    row(tool.ListTools, "tool:list", flags="r"),
    row(policy.GetPolicy, "policy:read"),
    row(policy.ExplainDecision, "policy:ask"),
    row(policy.ListRights, "policy:ask"),
    row(policy.ListHolders, "policy:ask"),
    row(policy.ScorePolicy, "policy:ask", cost=Cost.WAITS),
    row(policy.SuggestPolicy, "policy:ask"),
    row(policy.CheckPolicy, "policy:check", cost=Cost.WAITS),
    row(policy.ComparePolicies, "policy:check", cost=Cost.WAITS),
    row(policy.ApplyPolicy, "policy:apply", cost=Cost.WAITS, flags="m"),
    row(policy.RollBackPolicy, "policy:apply", cost=Cost.WAITS, flags="m"),
    row(policy.ListGenerations, "policy:fetch", cost=Cost.WAITS),
    row(policy.FetchPolicy, "policy:fetch", cost=Cost.WAITS),
    row(policy.ShadowPolicy, "policy:shadow", cost=Cost.WAITS, flags="m"),
    row(policy.ReadShadow, "policy:shadow"),
    row(policy.Enroll, "principal/{principal}:enroll", cost=Cost.WAITS, flags="m"),
    row(policy.Revoke, "principal/{principal}:revoke", cost=Cost.WAITS, flags="m"),
    row(policy.ListPrincipals, "principal:list"),
    row(audit.ReadAudit, "audit:read", cost=Cost.DISK),
    row(audit.ExportAudit, "audit:read", cost=Cost.DISK),
    row(audit.VerifyAudit, "audit:verify", cost=Cost.WAITS),
    row(system.Ping, "system:ping", flags="c"),
    row(system.GetStatus, "system:status", flags="c"),
    row(system.Cancel, flags="c"),
    row(system.BackUp, "system:backup", cost=Cost.DISK),
    row(system.StopKernel, "system:stop", flags="mco"),
)

ROWS: dict[type[Call[Any]], Row] = {entry.call: entry for entry in TABLE}
NAMES: dict[str, Row] = {entry.name: entry for entry in TABLE}


def fields_of(template: str) -> tuple[str, ...]:
    """The `{field}`s of an object's template."""
    return tuple(field for _, field, _, _ in Formatter().parse(template) if field)


def request_decoder() -> "msgspec.msgpack.Decoder[Call[Any]]":
    """A decoder of every request of the table, as a union tagged by the call's name."""
    return msgspec.msgpack.Decoder(_union())


def _union() -> Any:
    # Built at run time from the table, so the table stays the only place that lists the calls.
    from typing import Union

    return Union[tuple(entry.call for entry in TABLE)]  # noqa: UP007
