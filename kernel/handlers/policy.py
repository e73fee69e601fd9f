"""`policy.*`. What they answer is worked out in `kernel/security`, which needs no kernel; what they change, in `kernel/law.py`."""

from collections import Counter

from kernos.syscalls.call import Done
from kernos.syscalls.errors import ConflictError, NotFoundError
from kernos.syscalls.policy import (
    ApplyPolicy,
    CheckPolicy,
    ComparePolicies,
    Enroll,
    ExplainDecision,
    Explanation,
    FetchPolicy,
    Generations,
    GetPolicy,
    Holders,
    Known,
    ListGenerations,
    ListHolders,
    ListPrincipals,
    ListRights,
    PolicyStatus,
    Principals,
    ReadShadow,
    Revoke,
    Rights,
    RollBackPolicy,
    ScorePolicy,
    ShadowPolicy,
    ShadowReport,
    Sources,
    Suggestion,
    SuggestPolicy,
)

from ..core.processes import Life
from ..security.explain import can, who, why
from ..security.review import compare
from ..security.score import score
from ..security.suggest import suggest
from ..system import System
from ..tickets import LATER, Later, Ticket


def status(system: System, ticket: Ticket, call: GetPolicy) -> PolicyStatus:
    """What is in force, and how it came."""
    law = system.law
    size = (len(law.policy.rules.rules), len(law.policy.rules.roles), len(law.policy.cache))
    shadow = law.shadow.policy.hash if law.shadow is not None else ""
    came = law.installed
    if came is None:
        return PolicyStatus(law.policy.hash, *size, shadow=shadow, alarm=law.alarm)
    return PolicyStatus(law.policy.hash, *size, came.number, came.author, came.time, came.reason, shadow, law.alarm)


def explain(system: System, ticket: Ticket, call: ExplainDecision) -> Explanation:
    """Ask without doing."""
    return why(system.law.policy, call.subject, call.object, call.action, call.labels)


def rights(system: System, ticket: Ticket, call: ListRights) -> Rights:
    """What a subject may do."""
    return can(system.law.policy, call.subject)


def holders(system: System, ticket: Ticket, call: ListHolders) -> Holders:
    """Who may do a thing."""
    return who(system.law.policy, call.object, call.action)


def exposures(system: System, ticket: Ticket, call: ScorePolicy) -> Later:
    """How exposed the system is to each subject."""
    policy = system.law.policy
    system.host.offload(lambda: score(policy), ticket.then(ticket.reply))
    return LATER


def suggestion(system: System, ticket: Ticket, call: SuggestPolicy) -> Suggestion:
    """Rules from use."""
    system.law.record(system.host.clock)
    return suggest(system.law.policy, system.law.uses, call.subject, call.since)


def check(system: System, ticket: Ticket, call: CheckPolicy) -> Later:
    """Judge a policy as `apply` would."""
    return system.law.check(system.host, ticket, call.files)


def diff(system: System, ticket: Ticket, call: ComparePolicies) -> Later:
    """Compare two policies, in a thread."""
    system.host.offload(lambda: compare(call.old, call.new), ticket.then(ticket.reply))
    return LATER


def apply(system: System, ticket: Ticket, call: ApplyPolicy) -> Later:
    """Put a policy into force."""
    return system.law.apply(system.host, ticket, call.files, call.reason, call.base)


def rollback(system: System, ticket: Ticket, call: RollBackPolicy) -> Later:
    """Put an earlier one into force."""
    return system.law.roll_back(system.host, ticket, call.generation, call.reason)


def history(system: System, ticket: Ticket, call: ListGenerations) -> Later:
    """Read the manifests, in a thread."""
    generations = system.law.generations
    system.host.offload(lambda: Generations(generations.history()), ticket.then(ticket.reply))
    return LATER


def fetch(system: System, ticket: Ticket, call: FetchPolicy) -> Later:
    """Read a generation, in a thread."""

    def read() -> Sources:
        found = system.law.generations.read(call.generation)
        return Sources(found.generation.number, found.generation.hash, found.files)

    system.host.offload(read, ticket.then(ticket.reply))
    return LATER


def shadow(system: System, ticket: Ticket, call: ShadowPolicy) -> Later:
    """Begin or end a trial."""
    return system.law.trial(system.host, ticket, call.files)


def mismatches(system: System, ticket: Ticket, call: ReadShadow) -> ShadowReport:
    """How the trial goes."""
    running = system.law.shadow
    return running.report() if running is not None else ShadowReport("", 0.0, 0, [])


def enroll(system: System, ticket: Ticket, call: Enroll) -> Later:
    """Write the key down, then know it, then cut off who is connected by the one before."""

    def kept(_: None) -> None:
        system.identities.add(call.principal, call.public_key)
        ticket.reply(Done())  # first: the caller may have replaced its own key
        system.cut_off(f"The key of {call.principal} was replaced. Start the program again with the new one.")

    system.identities.check(call.principal, call.public_key)
    system.host.offload(lambda: system.identities.keep(call.principal, call.public_key), ticket.then(kept, anyway=True))
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
    system.host.offload(lambda: system.identities.discard(call.principal), ticket.then(discarded, anyway=True))
    return LATER


def principals(system: System, ticket: Ticket, call: ListPrincipals) -> Principals:
    """Who is enrolled."""
    agents = Counter(row.principal for row in system.processes.rows.values() if row.life is not Life.EXITED)
    enrolled = sorted(system.identities.enrolled.items())
    return Principals([Known(principal, key, agents[principal]) for principal, key in enrolled])
