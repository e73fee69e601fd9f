"""`policy.*`."""

from kernos.syscalls.call import Done
from kernos.syscalls.errors import InternalError
from kernos.syscalls.policy import CheckPolicy, Decision, Enroll, GetPolicy, PolicyStatus

from ..system import System
from ..tickets import LATER, Later, Ticket


def status(system: System, ticket: Ticket, call: GetPolicy) -> PolicyStatus:
    """What is in force."""
    policy = system.policy
    return PolicyStatus(policy.hash, len(policy.rules.rules), len(policy.rules.roles), len(policy.cache))


def check(system: System, ticket: Ticket, call: CheckPolicy) -> Decision:
    """Ask without doing."""
    verdict = system.policy.decide(call.subject, call.object, call.action)
    return Decision(verdict.allowed, verdict.rule, system.policy.hash)


def enroll(system: System, ticket: Ticket, call: Enroll) -> Later:
    """Write the key down, then know it."""

    def kept(outcome: Exception | None) -> None:
        if isinstance(outcome, Exception):
            ticket.fail(InternalError(f"The key of {call.principal} could not be written: {outcome}. See the state folder."))
        else:
            system.identities.add(call.principal, call.public_key)
            ticket.reply(Done())

    system.host.offload(lambda: system.identities.keep(call.principal, call.public_key), kept)
    return LATER
