"""`policy.*`."""

from kernos.syscalls.call import Done
from kernos.syscalls.errors import InternalError, KernosError
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
        try:
            if isinstance(outcome, Exception):
                raise InternalError(f"The key of {call.principal} could not be written: {outcome}. See the state folder.")
            system.identities.add(call.principal, call.public_key)
        except KernosError as error:
            ticket.fail(error)
        else:
            ticket.reply(Done())

    system.identities.check(call.principal, call.public_key)
    system.host.offload(lambda: system.identities.keep(call.principal, call.public_key), kept)
    return LATER
