"""`process.*`."""

from collections.abc import Collection

from kernos.syscalls.call import Done
from kernos.syscalls.errors import CancelledError, DeniedError, LimitError, NotFoundError, NotYoursError
from kernos.syscalls.process import (
    Approval,
    Approvals,
    Approve,
    Declassify,
    Ended,
    Exit,
    GetUsage,
    Kill,
    Launch,
    LendKey,
    ListApprovals,
    ListProcesses,
    Nice,
    Process,
    Processes,
    ReportCrash,
    SendSignal,
    SetLimits,
    Spawn,
    Spawned,
    State,
    Usage,
    Verdict,
    Wait,
)

from ..core import processes, scheduler
from ..core.accounts import Account
from ..core.processes import Life
from ..core.supervision import RestartIntensity
from ..limits import APP_RESTART_DELAY_S, DELEGATIONS, PROCESSES
from ..security.identity import Loan
from ..security.liveness import parent_of, start_time
from ..system import System
from ..tickets import LATER, Later, Ticket


def spawn(system: System, ticket: Ticket, call: Spawn) -> Later:
    """Make an agent of the caller's principal, which begins when its row is durable: a pid that was told is one after a restart too."""
    table, client = system.processes, ticket.client
    if len(table.rows) >= PROCESSES:
        raise LimitError(f"There are {PROCESSES} agents, and no room for more. End some.")
    parent = ticket.process.pid if ticket.process else 0
    user = call.user or (ticket.process.user if ticket.process else None)
    process = processes.Process(
        table.next_pid(),
        call.name,
        client.principal,
        user,
        parent,
        call.priority,
        system.host.now,
        client.os_pid,
        client.start_time,
        client.badge,
        _delegated(ticket.process, call),
        dict(ticket.process.labels) if ticket.process is not None else {},
    )
    if call.rights is not None:
        limits = ", ".join(f"{right.object}:{right.action}" for right in call.rights)
        process.tell(system.host.now, f"limited to {limits or 'nothing'}")
    return system.storage.change(
        ticket,
        system.agents.first_row(process),
        lambda _: Spawned(process.pid),
        charge=(process.payers, {"processes": 1}),
        after=lambda _: system.agents.begin(process),
    )


def _delegated(parent: processes.Process | None, call: Spawn) -> tuple[processes.Rights, ...]:
    """What limits a new agent: what limits its parent, and what its parent asked for. So rights can only shrink."""
    above = parent.rights if parent is not None else ()
    if call.rights is None:
        return above
    if len(above) >= DELEGATIONS:
        raise LimitError(f"{call.name} would be the child of {DELEGATIONS} agents that limit each other. Spawn it from one further up.")
    return (*above, tuple(call.rights))


def list_(system: System, ticket: Ticket, call: ListProcesses) -> Processes:
    """The rows the caller asked for."""
    rows = system.processes.rows.values()
    doing = _doing(system)
    carried = ticket.process.labels if ticket.process is not None else {}
    return Processes([_view(system, row, doing, carried) for row in rows if call.scope == "all" or row.principal == ticket.principal])


def wait(system: System, ticket: Ticket, call: Wait) -> Ended | Later:
    """Collect an agent, now or when it ends."""
    process = _find(system, call.pid)
    if process.life is Life.EXITED:
        return system.collect(process)
    waiters = system.waiters.setdefault(process.pid, [])
    waiters.append(ticket)
    ticket.on_end = lambda: waiters.remove(ticket)
    return LATER


def exit_(system: System, ticket: Ticket, call: Exit) -> Done | Later:
    """End an agent in good order; one that has ended stays as it is."""
    process = _find(system, call.pid)
    system.end_agent(process, call.code, call.reason or "it exited", CancelledError(f"Agent {call.pid} exited."))
    return _settle(system, ticket, process)


def signal(system: System, ticket: Ticket, call: SendSignal) -> Done | Later:
    """Stop, continue, interrupt or terminate an agent."""
    process, now = _living(system, call.pid), system.host.now
    match call.signal:
        case "stop":
            system.processes.step(process, "stop", now)
            system.turns.apply(system.scheduler.handle(scheduler.Held(process.pid), now))
        case "continue":
            system.processes.step(process, "continue", now)
            system.turns.apply(system.scheduler.handle(scheduler.Released(process.pid), now))
        case "interrupt":
            process.tell(now, f"interrupted by {ticket.principal}")
            system.gate.end_of(process, CancelledError(f"Agent {call.pid} was interrupted by {ticket.principal}."))
        case "terminate":
            system.end_agent(process, -15, f"terminated by {ticket.principal}")
    return _settle(system, ticket, process)


def kill(system: System, ticket: Ticket, call: Kill) -> Done | Later:
    """End an agent at once; one that has ended stays as it is, so that the call can be made again."""
    process = _find(system, call.pid)
    system.end_agent(process, -9, f"killed by {ticket.principal}")
    return _settle(system, ticket, process)


def nice(system: System, ticket: Ticket, call: Nice) -> Done | Later:
    """Change the class, of which turns under way keep theirs, and the weight."""
    process = _living(system, call.pid)
    process.tell(system.host.now, f"class {process.priority} -> {call.priority} by {ticket.principal}")
    process.priority = call.priority
    if call.weight is not None:
        process.tell(system.host.now, f"weight {system.scheduler.weight(process.pid):g} -> {call.weight:g} by {ticket.principal}")
        system.scheduler.weigh(process.pid, call.weight)
    return _settle(system, ticket, process)


def usage(system: System, ticket: Ticket, call: GetUsage) -> Usage:
    """What is used of the limits."""
    principal = call.principal or ticket.principal
    return Usage(principal, system.quotas.usage(principal, system.host.now))


def set_limits(system: System, ticket: Ticket, call: SetLimits) -> Usage:
    """Change limits until the kernel stops."""
    system.quotas.set_limits(call.principal, call.limits)
    return Usage(call.principal, system.quotas.usage(call.principal, system.host.now))


def declassify(system: System, ticket: Ticket, call: Declassify) -> Done:
    """Take a label off an agent."""
    process = _living(system, call.pid)
    if process.labels.pop(call.label, None) is None:
        raise NotFoundError(f"Agent {call.pid} does not carry {call.label}. `process.list` shows what it carries.")
    process.tell(system.host.now, f"{call.label} declassified by {ticket.principal}: {call.reason}")
    system.agents.changed(process)
    return Done()


def list_approvals(system: System, ticket: Ticket, call: ListApprovals) -> Approvals:
    """What waits for consent; of everybody whose the caller may list, if nobody is named."""
    reader, requests = ticket.process, system.flows.approvals.all(system.host.clock)
    if call.principal is not None:
        requests = [request for request in requests if request.principal == call.principal]
    else:
        requests = [request for request in requests if system.authority.may(ticket, f"approval/{request.principal}", "list")]
    if reader is not None:
        requests = [request for request in requests if system.flows.reaches(reader, request.labels, own=reader.owner == request.owner)]
    fields = Approval.__struct_fields__
    listed = [Approval(*(getattr(request, field) for field in fields)) for request in requests]
    return Approvals(listed, sorted({label for request in requests for label in request.labels}))


def approve(system: System, ticket: Ticket, call: Approve) -> Done:
    """Decide. An agent that has read what the question is about could have been talked into its answer."""
    request = system.flows.approvals.find(call.approval, call.principal, system.host.clock)
    if request is None:
        raise NotFoundError(f"Nothing of {call.principal} waits for consent as {call.approval}. `process.approvals` shows what does.")
    if ticket.process is not None and (ticket.process.labels or ticket.process.pid == request.pid):
        raise DeniedError(
            f"Agent {ticket.process.pid} may not decide: it carries labels, or asks itself. Let somebody else decide.",
            subject=f"{ticket.principal}, agent {ticket.process.pid}",
            object=f"approval/{call.principal}",
            action="decide",
        )
    request.state = "approved" if call.allow else "refused"
    return Done()


def launch(system: System, ticket: Ticket, call: Launch) -> Done:
    """Begin to supervise an app."""
    system.launches[call.app] = RestartIntensity()
    return Done()


def lend_key(system: System, ticket: Ticket, call: LendKey) -> Later:
    """Know a child of the caller by a key of its own."""
    if not ticket.client.os_pid or parent_of(call.os_pid) != ticket.client.os_pid:
        raise NotYoursError(f"The process {call.os_pid} was not started by the caller. A key is lent by the program that starts an app.")
    loan = Loan(f"app:{call.app}", call.public_key, call.os_pid, start_time(call.os_pid))
    system.identities.lend(loan.principal, loan.public_key, loan.os_pid)
    system.host.watch_program(loan.os_pid, loan.start_time)

    def kept(_: None) -> None:
        ticket.reply(Done())

    system.host.offload(lambda: system.identities.keep_loan(loan), ticket.then(kept))
    return LATER


def report_crash(system: System, ticket: Ticket, call: ReportCrash) -> Verdict:
    """Judge by restart intensity whether the app starts again. One that was launched under the kernel before begins anew."""
    intensity = system.launches.setdefault(call.app, RestartIntensity())
    if intensity.may_restart(system.host.now):
        return Verdict(True, APP_RESTART_DELAY_S, f"{call.app} ended with code {call.code}; starting it again")
    crashes = f"{intensity.most + 1} times in {intensity.window_s:g} s"
    return Verdict(False, 0.0, f"{call.app} crashed {crashes}, last with code {call.code}; giving up. See its output above.")


def _settle(system: System, ticket: Ticket, process: processes.Process) -> Done | Later:
    """Answer when the row of an agent is durable as it is now."""
    system.agents.changed(process)
    system.agents.flush()
    done: Done | Later = system.storage.settle(ticket, Done())
    return done


def _find(system: System, pid: int) -> processes.Process:
    try:
        return system.processes.rows[pid]
    except KeyError:
        raise NotFoundError(f"There is no agent {pid}. `process.list` shows those there are.") from None


def _living(system: System, pid: int) -> processes.Process:
    process = _find(system, pid)
    if process.life is Life.EXITED:
        raise NotFoundError(f"Agent {pid} has ended already: {process.reason}.")
    return process


def _view(system: System, row: processes.Process, doing: dict[int, State], carried: Collection[str]) -> Process:
    """A row as somebody sees it who carries these labels; a reason is text of the agent, and has its labels."""
    account = system.scheduler.accounts.get(row.pid, _NO_ACCOUNT)
    return Process(
        row.pid,
        row.name,
        row.principal,
        row.user,
        row.parent,
        row.priority,
        _STATES.get(row.life) or doing.get(row.pid, "idle"),
        system.host.now - row.born,
        row.calls,
        row.prompt_tokens,
        row.generated_tokens,
        row.code,
        row.reason if row.labels.keys() <= set(carried) else "",
        account.weight,
        account.service,
        sorted(row.labels),
    )


_NO_ACCOUNT = Account()
"""Of an agent that never computed, or has ended."""

_STATES: dict[Life, State] = {Life.STOPPED: "stopped", Life.EXITED: "exited"}


def _doing(system: System) -> dict[int, State]:
    """What living agents do, in one pass over the calls and turns: a table may be long. Those that do nothing are left out."""
    doing: dict[int, State] = {ticket.process.pid: "waiting" for ticket in system.gate.in_flight.values() if ticket.process is not None}
    for turn in system.scheduler.turns.values():
        if doing.get(turn.pid) != "running":
            doing[turn.pid] = "running" if turn.running else "queued"
    return doing
