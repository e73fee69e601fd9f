"""Who may do what: the only place where the policy in force is asked. Default deny.

A call may be made if the policy allows every need that the table names for it to the principal that makes it, and to the user whom its
agent acts for, and if the agent was not spawned with fewer rights than that.
"""

from typing import TYPE_CHECKING, Any

from kernos.syscalls.call import Call
from kernos.syscalls.errors import DeniedError
from kernos.syscalls.process import Exit, GetUsage, Nice
from kernos.syscalls.table import TABLE, fields_of

from .core.processes import Process
from .core.scheduler import RANK
from .security.patterns import match_path

if TYPE_CHECKING:
    from .system import System
    from .tickets import Ticket

_NEEDS = {row.call: [(template, fields_of(template), action) for template, action in row.needs] for row in TABLE}


class Authority:
    """See above."""

    def __init__(self, system: "System") -> None:
        self.system = system

    def check(self, principal: str, process: Process | None, call: Call[Any]) -> list[str]:
        """Raise `DeniedError` unless a principal, as one of its agents or itself, may make a call; else what the policy was asked."""
        asked = []
        for template, fields, action in _NEEDS[type(call)]:
            object_ = self._object(template, fields, principal, process, call) if fields else template
            if object_ is not None:
                asked.append(f"{object_}:{action}")
                self._require(principal, object_, action)
                if process is not None:
                    self._require_of_agent(process, call, object_, action)
        return asked

    def require(self, ticket: "Ticket", object_: str, action: str) -> None:
        """Raise `DeniedError` unless a caller may do something that only its handler can tell that it asks for."""
        self._require(ticket.principal, object_, action)
        if ticket.process is not None:
            self._require_of_agent(ticket.process, ticket.call, object_, action)

    def may(self, ticket: "Ticket", object_: str, action: str) -> bool:
        """Whether a caller may do something that its request does not name, such as look at one of many files."""
        process = ticket.process
        if process is not None and not _delegated(process, object_, action):
            return False
        user = process.user if process is not None else None
        subjects = (ticket.principal,) if user is None else (ticket.principal, user)
        return all(self.system.law.policy.decide(subject, object_, action).allowed for subject in subjects)

    def _require(self, subject: str, object_: str, action: str) -> None:
        law = self.system.law
        verdict = law.policy.decide(subject, object_, action)
        if law.shadow is not None or not verdict.noted:
            law.note(subject, object_, action, verdict)
        if not verdict.allowed:
            why = f"the rule {verdict.rule} forbids it" if verdict.rule else "no rule allows it"
            raise DeniedError(
                f"{subject} may not {action} {object_}: {why}. Ask the administrator.",
                subject=subject,
                object=object_,
                action=action,
                policy=law.policy.hash,
                rule=str(verdict.rule or ""),
            )

    def _require_of_agent(self, process: Process, call: Call[Any], object_: str, action: str) -> None:
        """What goes for an agent besides its principal: its user needs the right, and it must have been given it. It may always exit."""
        if process.user is not None:
            self._require(process.user, object_, action)
        if process.rights and not _delegated(process, object_, action) and not (isinstance(call, Exit) and call.pid == process.pid):
            raise DeniedError(
                f"Agent {process.pid} ({process.name}) may not {action} {object_}: it was spawned with fewer rights than its app has.",
                subject=f"{process.principal}, agent {process.pid}",
                object=object_,
                action=action,
                policy=self.system.law.policy.hash,
                rule=f"rights delegated to agent {process.pid}",
            )

    # --- what a call is about -----------------------------------------------------------------------------------------------------

    def _object(self, template: str, fields: tuple[str, ...], principal: str, process: Process | None, call: Call[Any]) -> str | None:
        values = {}
        for field in fields:
            if field in ("whose", "raised"):
                value = self._whose(principal, process, call) if field == "whose" or self._raises(call) else None
            else:
                value = getattr(call, field)
            if value is None:
                return None
            values[field] = value
        return template.format_map(values)

    def _whose(self, principal: str, process: Process | None, call: Call[Any]) -> str | None:
        """`own`, or the owner of the process, context or quota that a call names; what does not exist counts as one's own.

        A context that somebody else shares with the caller's owner is `shared`.
        """
        if (pid := getattr(call, "pid", None)) is not None:
            other = self.system.processes.rows.get(pid)
            return "own" if other is None or other.principal == principal else other.principal
        if isinstance(call, GetUsage):
            own = (None, principal, process.user if process is not None else None)
            return "own" if call.principal in own else call.principal
        if (id_ := getattr(call, "context", None)) is None:
            return None
        return self.system.contexts.whose(id_, process)

    def _raises(self, call: Call[Any]) -> bool:
        """Whether a call makes a process more urgent than it is, or weigh more."""
        if not isinstance(call, Nice):
            return False
        process = self.system.processes.rows.get(call.pid)
        if process is None:
            return False
        heavier = call.weight is not None and call.weight > self.system.scheduler.weight(call.pid)
        return heavier or RANK[call.priority] < RANK[process.priority]


def _delegated(process: Process, object_: str, action: str) -> bool:
    """Whether what an agent was limited to, and each of its parents, names this."""
    return all(any(right.action in ("*", action) and match_path(object_, right.object) for right in rights) for rights in process.rights)
