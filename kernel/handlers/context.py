"""`context.*`. The gate has asked the policy about the owner already; what is left is to do it, in the name of `Contexts.actor`."""

import heapq
from collections.abc import Callable, Iterator
from typing import Any, Concatenate, ParamSpec, TypeVar

from kernos.syscalls import context as abi
from kernos.syscalls.call import Done
from kernos.syscalls.errors import BusyError

from ..conversations import tokens_of
from ..memory import history, recall, records, summaries, transcripts, window
from ..memory.connection import Connection
from ..memory.recall import Found
from ..memory.transcripts import ContextRow, info
from ..memory.window import Made
from ..recalls import Vector, points_of
from ..storage import Charge
from ..system import System
from ..tickets import LATER, Later, Ticket

P = ParamSpec("P")
T = TypeVar("T")


def open_(system: System, ticket: Ticket, call: abi.OpenContext) -> Later:
    """Find, or open again, or make."""
    owner = ticket.agent.owner

    def found(row: ContextRow | None) -> None:
        if row is not None and not row.closed and call.model in (None, row.model):
            ticket.reply(info(row))
        else:
            _make(system, ticket, call, charge=row is None)

    return system.storage.fetch(ticket, lambda connection: transcripts.named(connection, owner, call.name), found)


def _make(system: System, ticket: Ticket, call: abi.OpenContext, *, charge: bool) -> None:
    owner, payers, id_, now = ticket.agent.owner, ticket.payers, system.new_id(), system.storage.clock
    labels = system.flows.marked(ticket.agent)
    one: Charge = (payers, {"contexts": 1})

    def job(connection: Connection) -> ContextRow:
        row = transcripts.open_context(connection, owner, call.name, id_, payers, now)
        transcripts.mark(connection, row, labels)  # its name may tell what they are about
        if call.model is not None:
            transcripts.attach(connection, owner, row.id, call.model)
        return transcripts.by_key(connection, row.key)

    def after(row: ContextRow) -> None:
        system.contexts.see(row)
        made = row.id == id_
        if made and not charge:  # it was deleted meanwhile
            system.quotas.hold(*one, system.host.now)
        elif charge and not made:  # somebody else made it meanwhile
            system.quotas.give(*one)

    if call.model is not None:
        system.registry.get(call.model)
    system.storage.change(ticket, job, info, charge=one if charge else ((), {}), after=after, made=_key)


def append(system: System, ticket: Ticket, call: abi.AppendContext) -> Later:
    """Put messages at the end."""
    system.conversations.append(ticket, call.context, call.messages, system.contexts.model(call.context), info)
    return LATER


def read(system: System, ticket: Ticket, call: abi.ReadContext) -> Later:
    """A run of messages."""
    actor, end = system.contexts.actor(call.context, ticket.agent), call.start + call.limit

    def query(connection: Connection) -> abi.ContextPart:
        row = transcripts.find(connection, actor, call.context, "read")
        messages = transcripts.messages_of(connection, row, call.start, end)
        states = window.states(connection, actor, call.context, call.start, end)
        known = [
            abi.MessageState(message.time, message.tokens, state.state, state.embedded)
            for message, state in zip(messages, states, strict=True)
        ]
        return abi.ContextPart([message.said for message in messages], call.start, row.length, known, list(row.labels))

    return system.storage.query(ticket, query, _as_it_is)


def list_(system: System, ticket: Ticket, call: abi.ListContexts) -> Later:
    """The owner's contexts, or those shared with him, but for those whose labels may not reach the agent."""
    agent, flows, of = ticket.agent, system.flows, transcripts.granted if call.shared else transcripts.of

    def view(rows: list[ContextRow]) -> abi.ContextList:
        visible = [info(row) for row in rows if flows.reaches(agent, row.labels, own=not call.shared)]
        return abi.ContextList(visible, sorted({label for context in visible for label in context.labels}))

    return system.storage.query(ticket, lambda connection: of(connection, agent.owner), view)


def stat(system: System, ticket: Ticket, call: abi.StatContext) -> Later:
    """All about one."""
    actor, id_ = system.contexts.actor(call.context, ticket.agent), call.context

    def query(connection: Connection) -> abi.ContextStat:
        row = transcripts.find(connection, actor, id_, "read")
        pages = window.pages(connection, actor, id_)
        snapshots = [abi.Snapshot(kept.name, kept.length, kept.time) for kept in history.snapshots(connection, actor, id_)]
        grants = [abi.Grant(principal, access) for principal, access in transcripts.grants(connection, row)]
        embedded = sum(page.model is not None for page in pages)
        return abi.ContextStat(info(row), window.pins(connection, row), len(pages), embedded, snapshots, grants, list(row.labels))

    return system.storage.query(ticket, query, _as_it_is)


def fork(system: System, ticket: Ticket, call: abi.ForkContext) -> Later:
    """Charge what the new one will show, then make it."""
    actor, owner, payers = system.contexts.actor(call.context, ticket.agent), ticket.agent.owner, ticket.payers
    id_, now, labels = system.new_id(), system.storage.clock, system.flows.marked(ticket.agent)

    def found(source: ContextRow) -> None:
        def job(connection: Connection) -> ContextRow:
            row = history.fork(connection, actor, call.context, call.name, id_, payers, now, owner=owner)
            if row.charged > source.bytes:
                raise BusyError(f"The context {source.name} has grown while it was forked. Fork it again.", retry_after=0.1)
            transcripts.mark(connection, row, labels)
            return transcripts.by_key(connection, row.key)

        def after(row: ContextRow) -> None:
            system.contexts.see(row)
            system.quotas.give(payers, {"bytes": source.bytes - row.charged})  # it may also have been rolled back meanwhile

        charge: Charge = (payers, {"contexts": 1, "bytes": source.bytes})
        system.storage.change(ticket, job, info, charge=charge, after=after, made=_key)

    return system.storage.fetch(ticket, lambda connection: transcripts.find(connection, actor, call.context, "read"), found)


def snapshot(system: System, ticket: Ticket, call: abi.SnapshotContext) -> Later:
    """Give the present state a name."""
    job = _on(system, ticket, call.context, history.snapshot, call.name, system.storage.clock)
    mark = _on(system, ticket, call.context, transcripts.label, system.flows.marked(ticket.agent))

    def marked(connection: Connection) -> history.Snapshot:
        mark(connection)  # its name may tell what the agent carries
        return job(connection)

    def after(_: object) -> None:
        system.contexts.mark(call.context, ticket.agent.labels)

    return system.storage.change(ticket, marked, lambda kept: abi.Snapshot(kept.name, kept.length, kept.time), after=after)


def restore(system: System, ticket: Ticket, call: abi.RestoreContext) -> Later:
    """Go to a snapshot."""
    job = _on(system, ticket, call.context, history.restore, call.name, system.storage.clock)
    return system.storage.change(ticket, job, info, after=lambda _: system.notices.forget(call.context))


def drop(system: System, ticket: Ticket, call: abi.DropSnapshot) -> Later:
    """Forget a snapshot."""
    return system.storage.change(ticket, _on(system, ticket, call.context, history.drop_snapshot, call.name), _done, erases=True)


def rollback(system: System, ticket: Ticket, call: abi.RollbackContext) -> Later:
    """Go back."""
    job = _on(system, ticket, call.context, history.rollback, call.messages, system.storage.clock)
    return system.storage.change(ticket, job, info, after=lambda _: system.notices.forget(call.context))


def history_(system: System, ticket: Ticket, call: abi.ReadHistory) -> Later:
    """The newest operations."""

    def view(found: list[history.Operation]) -> abi.ContextHistory:
        fields = history.Operation.__struct_fields__
        newest = [abi.Operation(*(getattr(operation, field) for field in fields)) for operation in found[-call.limit :]]
        return abi.ContextHistory(newest, len(found), system.contexts.labels([call.context]))

    return system.storage.query(ticket, _on(system, ticket, call.context, history.history), view)


def pin(system: System, ticket: Ticket, call: abi.PinMessages) -> Later:
    """Keep in the window."""
    return system.storage.change(ticket, _on(system, ticket, call.context, window.pin, call.start, call.stop), _done)


def unpin(system: System, ticket: Ticket, call: abi.UnpinMessages) -> Later:
    """Let leave."""
    job = _on(system, ticket, call.context, window.unpin, call.start, call.stop)
    return system.storage.change(ticket, job, _done, after=system.conversations.paged_out)


def page_out(system: System, ticket: Ticket, call: abi.PageOut) -> Later:
    """Move the beginning of the window."""
    job = _on(system, ticket, call.context, window.page_out, call.until, system.storage.clock)
    return system.storage.change(
        ticket, job, lambda outcome: info(outcome[0]), after=lambda outcome: system.conversations.paged_out(outcome[1])
    )


def notice(system: System, ticket: Ticket, call: abi.AwaitNotice) -> Later:
    """Wait until messages are about to leave."""
    find = _on(system, ticket, call.context, transcripts.find, "own")
    return system.storage.fetch(ticket, find, lambda _: system.notices.watch(ticket, call))


def summarize(system: System, ticket: Ticket, call: abi.SummarizeContext) -> Later:
    """Keep a summary."""
    agent, id_ = ticket.agent, call.context
    labels = system.flows.marked(agent)
    job = _on(system, ticket, id_, summaries.summarize, call.start, call.stop, call.text, labels, system.storage.clock)

    def after(outcome: tuple[ContextRow, Made]) -> None:
        system.conversations.paged_out(outcome[1])
        system.notices.summarized(id_, agent.pid, call.stop)

    if system.contexts.whose(id_, agent) != "shared":  # nobody shall label what he may not write into
        system.contexts.mark(id_, labels)
    return system.storage.change(
        ticket, job, lambda _: Done(), charge=(system.contexts.payers(id_), {"bytes": len(call.text.encode())}), after=after
    )


def recall_(system: System, ticket: Ticket, call: abi.Recall) -> Later:
    """Ask one context."""
    actor, memory = system.contexts.actor(call.context, ticket.agent), system.embedder.memory

    def topic(connection: Connection) -> str | None:
        return memory.topic(connection, actor, call.context, call.query)

    def rank(connection: Connection, vector: Vector) -> list[abi.Recalled]:
        found = memory.rank(connection, actor, call.context, call.query, vector)
        return _best(system, call, call.context, recall.distinct(_asked(call, found)))

    def tell(pages: list[abi.Recalled], by_meaning: bool) -> None:
        ticket.reply(abi.RecalledPages(pages, by_meaning, system.contexts.labels([call.context])))

    system.recalls.ask(ticket, topic, rank, tell)
    return LATER


def search(system: System, ticket: Ticket, call: abi.SearchContexts) -> Later:
    """Ask all contexts of the owner together, but for those whose labels may not reach the agent."""
    agent, owner, memory = ticket.agent, ticket.agent.owner, system.embedder.memory

    def rank(connection: Connection, vector: Vector) -> list[abi.Recalled]:
        ids = [row.id for row in transcripts.of(connection, owner) if row.length and system.flows.reaches(agent, row.labels)]
        ranked = (memory.rank(connection, owner, id_, call.query, vector, whole=True) for id_ in ids)
        return _best(system, call, "", _asked(call, heapq.merge(*ranked, key=lambda found: -found.points.score)))

    def tell(pages: list[abi.Recalled], by_meaning: bool) -> None:
        ticket.reply(abi.RecalledPages(pages, by_meaning, system.contexts.labels(page.context for page in pages)))

    system.recalls.index(ticket, owner, lambda: system.recalls.ask(ticket, lambda _: call.query, rank, tell))
    return LATER


def explain(system: System, ticket: Ticket, call: abi.ExplainContext) -> Later:
    """Show a prompt."""
    system.conversations.explain(ticket, call, system.registry.need(call.model, "decoder"))
    return LATER


def _best(system: System, call: abi.Recall | abi.SearchContexts, id_: str, found: Iterator[Found]) -> list[abi.Recalled]:
    model = system.contexts.model(id_)
    tokenizer = system.registry.get(model).tokenizer if model in system.registry.entries else None
    best = recall.fitting(found, lambda page: tokens_of(tokenizer, page.text), call.budget, call.limit, 0.0)
    return [
        abi.Recalled(page.context, page.seq, page.role, page.text, page.time, size, points_of(page), page.source) for page, size in best
    ]


def _asked(call: abi.Recall | abi.SearchContexts, found: Iterator[Found]) -> Iterator[Found]:
    return recall.matching(found, roles=call.roles, labels=call.labels, since=call.since, until=call.until)


def label(system: System, ticket: Ticket, call: abi.LabelContext) -> Later:
    """Set labels. What the agent carries is added; to take one away is to declassify."""
    labels = system.flows.marked(ticket.agent, call.labels)
    gone = frozenset(system.contexts.labels([call.context])).difference(labels)
    for name in sorted(gone):
        system.authority.require(ticket, f"label/{name}", "declassify")
    job = _on(system, ticket, call.context, transcripts.label, labels, gone)
    return system.storage.change(ticket, job, _done, after=lambda _: system.contexts.mark(call.context, labels, gone))


def grant(system: System, ticket: Ticket, call: abi.GrantContext) -> Later:
    """Share, or share no more."""
    job = _on(system, ticket, call.context, transcripts.grant, call.principal, call.access)
    shared = call.access is not None
    return system.storage.change(ticket, job, _done, after=lambda _: system.contexts.share(call.context, call.principal, shared))


def close(system: System, ticket: Ticket, call: abi.CloseContext) -> Later:
    """Take no more messages."""
    return system.storage.change(ticket, _on(system, ticket, call.context, transcripts.close), _done)


def delete(system: System, ticket: Ticket, call: abi.DeleteContext) -> Later:
    """Remove for good."""
    remove = _on(system, ticket, call.context, transcripts.delete)

    def job(connection: Connection) -> ContextRow:
        row = remove(connection)
        records.forget_context(connection, row.key)
        return row

    return system.storage.change(ticket, job, _done, after=system.contexts.delete, erases=True)


def _on(
    system: System, ticket: Ticket, id_: str, act: Callable[Concatenate[Connection, str, str, P], T], *args: P.args, **kwargs: P.kwargs
) -> Callable[[Connection], T]:
    """A job or a query on a context, in the name of whoever may."""
    actor = system.contexts.actor(id_, ticket.agent)
    return lambda connection: act(connection, actor, id_, *args, **kwargs)


def _key(row: ContextRow) -> int:
    return row.key


def _done(_: Any) -> Done:
    return Done()


def _as_it_is(reply: T) -> T:
    return reply
