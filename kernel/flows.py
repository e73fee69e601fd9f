"""Labels at work: what an agent reads taints it, and what it carries leaves only where the law lets it, whatever a model was talked into.

An agent carries the labels of all that it has read until it exits or is declassified, as its program's variables outlive a turn. They
enter with replies (`receive`, asked by the gate for every reply that has labels) and are looked at when a call takes something away
(`check`, asked by the gate before a call is carried out; see `outflows.py`). What an agent writes keeps its labels: `marked`.

An agent without labels pays one look-up per call.
"""

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from kernos.syscalls.bounds import LabelNames
from kernos.syscalls.call import Call
from kernos.syscalls.errors import ApprovalNeededError, BusyError, DeniedError, LimitError
from kernos.syscalls.model import Generate
from kernos.syscalls.tool import CallTool
from kernos.syscalls.wire import encode

from .core.approvals import Approvals, FullError, Request
from .core.processes import Process
from .outflows import OUTFLOWS, Sink, to_agent

if TYPE_CHECKING:
    from .system import System
    from .tickets import Ticket

LABELS: Final = 64
"""Of an agent or a thing. It is a bound of the wire, and more of them mean that nobody knows any more what they say."""

QUOTED: Final = 4_000
"""Characters of a call that are shown to whoever is to approve it."""


Consent = tuple[list[str], Sink]
"""What takes somebody's consent: that these labels go there."""


class _Labelled(msgspec.Struct):
    """Just the labels of a reply."""

    labels: LabelNames = []


class Flows:
    """See above. Only what is here changes what an agent carries."""

    def __init__(self, system: "System") -> None:
        self.system = system
        self.approvals = Approvals()
        self._labels = msgspec.msgpack.Decoder(_Labelled)

    # --- what is read -------------------------------------------------------------------------------------------------------------

    def receive(self, ticket: "Ticket", reply: bytes) -> None:
        """Let an agent carry the labels of a reply that it is about to get; `DeniedError` if it may not get them."""
        if ticket.process is not None and (labels := self._labels.decode(reply).labels):
            self.taint(ticket.process, labels, ticket.source, own=self.owns(ticket.process, ticket.call))

    def taint(self, process: Process, labels: Iterable[str], source: str, *, own: bool = True) -> None:
        """Let an agent carry labels, because of what it reads; `DeniedError` if one of them may not reach it."""
        new = [label for label in labels if label not in process.labels]
        if not new:
            return
        self.must_reach(process, new, source, own=own)
        if len(process.labels) + len(new) > LABELS:
            raise LimitError(f"Agent {process.pid} would carry more than {LABELS} labels. Let another agent read this.")
        for label in new:
            process.labels[label] = source
        process.tell(self.system.host.now, f"carries {', '.join(sorted(new))} after {source}")
        self.system.agents.tainted(process)

    def must_reach(self, process: Process, labels: Iterable[str], source: str, *, own: bool = True) -> None:
        """Raise `DeniedError` if an agent may not read what has these labels; `own`: it is its owner's."""
        found = self._barrier(process, labels, own=own)
        if found is not None:
            raise self._denied(process, *found, f"read {source}, which is labelled")

    def reaches(self, process: Process, labels: Iterable[str], *, own: bool = True) -> bool:
        """Whether an agent may read what has these labels. What it may not is left out of lists and searches."""
        return self._barrier(process, labels, own=own) is None

    def _barrier(self, process: Process, labels: Iterable[str], *, own: bool) -> tuple[str, Sink] | None:
        sinks = [sink._replace(own=own) for sink in to_agent(self.system, process.owner, process)] if labels else []
        pairs = ((label, sink) for label in labels for sink in sinks)
        return next((pair for pair in pairs if self._effect(*pair) == "deny"), None)

    def owns(self, process: Process, call: Call[Any]) -> bool:
        """Whether what a call reads is its owner's own; what does not exist counts as that."""
        if (owner := getattr(call, "owner", None)) is not None:
            return bool(owner == process.owner)
        id_ = getattr(call, "context", None)
        return id_ is None or self.system.contexts.whose(id_, process) == "own"

    def begin_turn(self, ticket: "Ticket", call: Generate) -> None:
        """A model is about to read its prompt: its answer has the labels of that and its own, from the first piece on."""
        labels = set(self.system.law.policy.flows.given(f"model/{call.model}"))
        labels.update(label for message in call.messages for label in message.labels)
        if call.context is not None:
            labels.update(self.system.contexts.labels([call.context]))
        self.taint(ticket.agent, labels, ticket.source, own=self.owns(ticket.agent, call))

    # --- what is written ----------------------------------------------------------------------------------------------------------

    def marked(self, process: Process, labels: Iterable[str] = ()) -> tuple[str, ...]:
        """The labels of what an agent writes: these, and those that it carries."""
        marks = tuple(sorted({*labels, *process.labels}))
        if len(marks) > LABELS:
            raise LimitError(f"This would have more than {LABELS} labels. Use fewer.")
        return marks

    def check(self, process: Process, call: Call[Any]) -> list[Consent]:
        """Raise `DeniedError` if a call takes something where its labels may not go; else the consents that it takes to make it."""
        labels, sinks = OUTFLOWS[type(call)](self.system, process, call)
        return self._judge(process, labels, sinks) if labels and sinks else []

    def require(self, process: Process, labels: Iterable[str], sinks: list[Sink], call: Call[Any]) -> None:
        """Check, and use consents up, where labels and sinks are known to the handler of a call alone."""
        self.use_consents(process, self._judge(process, labels, sinks), call)

    def _judge(self, process: Process, labels: Iterable[str], sinks: list[Sink]) -> list[Consent]:
        needed = []
        for sink in sinks:
            effects = {label: self._effect(label, sink) for label in labels}
            for label, effect in effects.items():
                if effect == "deny":
                    raise self._denied(process, label, sink, "send what is labelled")
            if waiting := sorted(label for label, effect in effects.items() if effect == "approve"):
                needed.append((waiting, sink))
        return needed

    def hand_over(self, sender: Process, receiver: Process, labels: Iterable[str]) -> None:
        """Raise `DeniedError` if what an agent answers may not reach another."""
        own = sender.owner == receiver.owner or sender.principal == receiver.principal
        self.must_reach(receiver, labels, f"what agent {sender.pid} answers", own=own)

    # --- what the law says --------------------------------------------------------------------------------------------------------

    def _effect(self, label: str, sink: Sink) -> str:
        rules = self.system.law.policy.flows
        if label not in rules.labels:
            return "allow" if sink.own else "deny"
        return rules.decide(label, sink.paths).effect

    def _denied(self, process: Process, label: str, sink: Sink, what: str) -> DeniedError:
        policy = self.system.law.policy
        flow = policy.flows.decide(label, sink.paths).flow
        why = f"the line {flow} forbids it" if flow else f"no line of flows.csv lets `{label}` go there"
        since = f", which it carries since {process.labels[label]}" if label in process.labels else ""
        return DeniedError(
            f"Agent {process.pid} of {process.principal} may not {what} {label}{since}: to {sink.name}, {why}. Ask the administrator.",
            subject=f"{process.principal}, agent {process.pid}",
            object=sink.paths[0],
            action=f"flow {label}",
            policy=policy.hash,
            rule=str(flow or ""),
        )

    # --- approval -----------------------------------------------------------------------------------------------------------------

    def use_consents(self, process: Process, needed: list[Consent], call: Call[Any]) -> None:
        """Use up the consents to a call. Raises `ApprovalNeededError` where one is missing, `DeniedError` where it was refused."""
        requests = [self._requested(process, *consent, call) for consent in needed]
        for request, (labels, sink) in zip(requests, needed, strict=True):
            if request.state == "refused":
                raise self._refused(process, labels, sink, request)
            if request.state == "waiting":
                raise ApprovalNeededError(
                    f"Agent {process.pid} carries {', '.join(labels)}: {sink.name} needs approval, asked for as {request.approval}.",
                    approval=request.approval,
                    labels=", ".join(labels),
                    sink=sink.paths[0],
                )
        for request, (_, sink) in zip(requests, needed, strict=True):  # all of them are there: none is used up in vain
            self.approvals.use(request)
            process.tell(self.system.host.now, f"used the approval {request.approval} for {sink.name}")

    def _requested(self, process: Process, labels: list[str], sink: Sink, call: Call[Any]) -> Request:
        """What was asked for this call before, or is from now on."""
        now = self.system.host.clock
        digest = hashlib.sha256(b"\0".join((sink.name.encode(), encode(call)))).digest()
        request = self.approvals.asked(process.pid, digest, now)
        if request is None:
            text, carried = _described(process, labels, sink, call), sorted({*labels, *process.labels})
            request = Request(self.system.new_id(), process.principal, process.pid, process.user, digest, text, carried, now)
            try:
                self.approvals.ask(request)
            except FullError:
                raise BusyError("Too many calls wait for approval. Have those decided first.", retry_after=10.0) from None
        return request

    def _refused(self, process: Process, labels: list[str], sink: Sink, request: Request) -> DeniedError:
        return DeniedError(
            f"It was refused that agent {process.pid} of {process.principal} does this to {sink.name}. Do something else.",
            subject=f"{process.principal}, agent {process.pid}",
            object=sink.paths[0],
            action=f"flow {labels[0]}",
            policy=self.system.law.policy.hash,
            rule=f"approval {request.approval}",
        )


def _described(process: Process, labels: list[str], sink: Sink, call: Call[Any]) -> str:
    """What somebody is asked to approve, in the kernel's words; the agent's own are quoted, and cannot be taken for them."""
    said = call.arguments if isinstance(call, CallTool) else msgspec.json.encode(call).decode()
    shown = ascii(said[:QUOTED])[1:-1]
    rest = f"\n({len(said) - QUOTED} more characters are not shown)" if len(said) > QUOTED else ""
    who = f"Agent {process.pid} ({process.name}) of {process.principal}" + (f", for {process.user}," if process.user else "")
    read = "; ".join(f"{label}, since {process.labels.get(label, 'this call')}" for label in labels)
    return f"{who} wants to call {sink.name} with\n> {shown}{rest}\nIt carries: {read}."
