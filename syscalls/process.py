"""`process.*`: agents as rows of the process table, and apps as supervised programs."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from .bounds import Id, LabelNames, Name, Pid, Principal, PublicKey, ShortText, Text, User
from .call import Call, Done

Priority = Literal["realtime", "interactive", "normal", "batch"]
"""Scheduling classes, most urgent first."""

State = Literal["idle", "queued", "running", "waiting", "stopped", "exited"]
"""What `ps` shows: `queued` waits for a device, `running` holds a lease, `waiting` waits for a tool, a message or a process."""

Signal = Literal["stop", "continue", "interrupt", "terminate"]
"""`stop` takes the agent off the devices and `continue` puts it back; `interrupt` ends its calls in flight; `terminate` ends it."""

LimitName = Literal["tokens_per_minute", "turns", "kv_pages", "calls", "processes", "contexts", "files", "bytes"]
"""What is limited per principal: tokens of prompts and answers, turns in flight and the KV pages they may fill, calls in flight, living
agents, what is kept and its bytes."""

Amount = Annotated[int, Meta(ge=0, le=1 << 53)]
"""So many of what a limit counts."""


Weight = Annotated[float, Meta(ge=0.25, le=16)]
"""The share of an agent in its class: one of weight 2 is served twice as much as one of weight 1 while both have work."""


class Process(msgspec.Struct, frozen=True):
    """An agent as others see it."""

    pid: Pid
    name: Name
    principal: Principal
    user: Principal | None
    parent: Pid
    priority: Priority
    state: State
    age_s: float
    calls: int
    prompt_tokens: int
    generated_tokens: int
    exit_code: int | None = None
    reason: ShortText = ""
    weight: float = 1.0
    service: float = 0.0
    """What devices did for it, in tokens; a prompt token that was computed weighs 0.2 of a produced one. 0 once it has ended."""
    labels: LabelNames = []
    """What it carries: the labels of all that it has read."""


class Processes(msgspec.Struct, frozen=True):
    """Rows in the order of their pids."""

    processes: Annotated[list[Process], Meta(max_length=100_000)]


class Spawned(msgspec.Struct, frozen=True):
    """A new agent; name its pid in the calls made for it."""

    pid: Pid


class Ended(msgspec.Struct, frozen=True):
    """How an agent ended: 0 by itself, -15 terminated, -9 killed; its row is gone after this."""

    pid: Pid
    code: int
    reason: ShortText
    labels: LabelNames = []
    """What it carried, and so does its reason."""


class Meter(msgspec.Struct, frozen=True):
    """One limit of a principal and how much of it is used; `used` can be above `allowed`, as an answer under way is not cut."""

    limit: LimitName
    used: Amount
    allowed: Amount
    window_s: float
    """Seconds in which all of it comes back by itself; 0: it is free again when something ends or is deleted."""


class Usage(msgspec.Struct, frozen=True):
    """All limits of a principal."""

    principal: Principal
    meters: Annotated[list[Meter], Meta(max_length=64)]


class Verdict(msgspec.Struct, frozen=True):
    """What the launcher of an app does after the app died: start it again after a pause, or give up."""

    restart: bool
    delay_s: float
    reason: ShortText


class Right(msgspec.Struct, frozen=True):
    """Something an agent may do: an action on all objects that a pattern matches, as in a policy (`model/*` and `generate`)."""

    object: Annotated[str, Meta(max_length=256, pattern=r"^(\*\*|[A-Za-z0-9_.:@*-]+(/[A-Za-z0-9_.:@*-]+)*)\Z")]
    action: Annotated[str, Meta(max_length=64, pattern=r"^([a-z_]+|\*)\Z")]


class Spawn(Call[Spawned], tag="process.spawn", frozen=True):
    """Make an agent, on behalf of `user` where one is named: its rights are then those of the app and of the user together.

    Spawned by an agent, it is a child of that, and may do no more than its parent, however the parent came by less than its app may. It
    carries the labels that its parent does.
    """

    name: Name
    user: User | None = None
    priority: Priority = "normal"
    rights: Annotated[list[Right], Meta(max_length=64)] | None = None
    """All that it may do, of what its app, its user and its parent may; it may always exit. None: no less than those."""


class ListProcesses(Call[Processes], tag="process.list", frozen=True):
    """The process table: the caller's own rows, or everybody's."""

    scope: Literal["own", "all"] = "own"


class Wait(Call[Ended], tag="process.wait", frozen=True):
    """Wait until an agent has ended, collect how, and remove its row."""

    pid: Pid


class Exit(Call[Done], tag="process.exit", frozen=True):
    """End an agent of one's own in good order; its calls in flight end as cancelled."""

    pid: Pid
    code: Annotated[int, Meta(ge=0, le=255)] = 0
    reason: ShortText = ""


class SendSignal(Call[Done], tag="process.signal", frozen=True):
    """Stop, continue, interrupt or terminate an agent."""

    pid: Pid
    signal: Signal


class Kill(Call[Done], tag="process.kill", frozen=True):
    """End an agent at once: its turns leave the device at the next token and its calls end with `AgentKilledError`."""

    pid: Pid


class Nice(Call[Done], tag="process.nice", frozen=True):
    """Move an agent to a scheduling class, from its next turn on, and weigh it in there; raising either needs a right of its own."""

    pid: Pid
    priority: Priority
    weight: Weight | None = None
    """None: as it is. Every agent begins with 1."""


class GetUsage(Call[Usage], tag="process.usage", frozen=True):
    """The limits of a principal and what is used of them: the caller's own, of the user its agent acts for, or of another."""

    principal: Principal | None = None


class SetLimits(Call[Usage], tag="process.set_limits", frozen=True):
    """Give a principal other limits until the kernel stops; those not named stay. None named: back to those of the policy."""

    principal: Principal
    limits: Annotated[dict[LimitName, Amount], Meta(max_length=64)]


class Declassify(Call[Done], tag="process.declassify", frozen=True):
    """Let an agent carry a label no more, and say why; the right to do so is given per label. What it wrote before keeps the label."""

    pid: Pid
    label: Name
    reason: Annotated[str, Meta(min_length=1, max_length=1_024)]


class Approval(msgspec.Struct, frozen=True):
    """A call that waits for somebody's consent. `text` is written by the kernel: what would be done, by whom, after reading what.

    What the agent itself chose is quoted in it, on lines that begin with `>`. Times are in seconds since the Unix epoch.
    """

    approval: Id
    principal: Principal
    pid: Pid
    user: Principal | None
    text: Text
    since: float
    until: float
    state: Literal["waiting", "approved", "refused"]
    labels: LabelNames = []
    """What its agent carries, and so does the text, which quotes it."""


class Approvals(msgspec.Struct, frozen=True):
    """The oldest first."""

    approvals: Annotated[list[Approval], Meta(max_length=10_000)]
    labels: LabelNames = []
    """Of all of them together: an agent that reads them carries these, and decides nothing any more."""


class ListApprovals(Call[Approvals], tag="process.approvals", frozen=True):
    """The calls of a principal's agents that wait for consent, or were decided about and not made again yet.

    None: those of everybody whose the caller may list.
    """

    principal: Principal | None = None


class Approve(Call[Done], tag="process.approve", frozen=True):
    """Consent to a call, or refuse it. The agent makes the same call again, once; a tainted agent decides nothing."""

    approval: Id
    principal: Principal
    """Whose agent asked, as listed: the right is given per principal."""
    allow: bool


class LendKey(Call[Done], tag="process.lend_key", frozen=True):
    """Let a process that the caller has started speak as `app:NAME`, with a key that counts for it alone and for as long as it lives."""

    app: Name
    os_pid: Annotated[int, Meta(ge=1, le=1 << 22)]
    public_key: PublicKey


class Launch(Call[Done], tag="process.launch", frozen=True):
    """Tell the kernel that an app is about to be started and supervised by the caller (`kernos run`)."""

    app: Name


class ReportCrash(Call[Verdict], tag="process.report_crash", frozen=True):
    """Tell the kernel that a launched app died with `code`; it judges by restart intensity."""

    app: Name
    code: Annotated[int, Meta(ge=-255, le=255)]
    """Its exit code; negative: the signal that ended it."""
