"""`policy.*`."""

from collections import Counter

from kernos.syscalls.call import Done
from kernos.syscalls.errors import ConflictError, NotFoundError
from kernos.syscalls.policy import (
    CheckPolicy,
    Decision,
    Enroll,
    GetPolicy,
    Known,
    ListPrincipals,
    PolicyStatus,
    Principals,
    Revoke,
)

from ..core.processes import Life
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
    """Write the key down, then know it, then cut off who is connected by the one before."""

    def kept(_: None) -> None:
        system.identities.add(call.principal, call.public_key)
        ticket.reply(Done())  # first: the caller may have replaced its own key
        system.cut_off(f"The key of {call.principal} was replaced. Start the program again with the new one.")

    system.identities.check(call.principal, call.public_key)
    system.host.offload(lambda: system.identities.keep(call.principal, call.public_key), ticket.then(kept))
    return LATER


def revoke(system: System, ticket: Ticket, call: Revoke) -> Later:
    """Remove what is written of the key, then forget it, then cut off who is connected by it."""

    def discarded(_: None) -> None:
        system.identities.remove(call.principal)
        system.cut_off(f"The key of {call.principal} was revoked by {ticket.principal}.")
        ticket.reply(Done())

    if call.principal == ticket.principal:
        raise ConflictError(f"{call.principal} would lock itself out. Let another administrator revoke it, or rotate the key.")
    if not system.identities.knows(call.principal):
        raise NotFoundError(f"There is no principal {call.principal} with a key. `kernos principal list` shows who there is.")
    system.host.offload(lambda: system.identities.discard(call.principal), ticket.then(discarded))
    return LATER


def principals(system: System, ticket: Ticket, call: ListPrincipals) -> Principals:
    """Who is enrolled."""
    agents = Counter(row.principal for row in system.processes.rows.values() if row.life is not Life.EXITED)
    enrolled = sorted(system.identities.enrolled.items())
    return Principals([Known(principal, key, agents[principal]) for principal, key in enrolled])
