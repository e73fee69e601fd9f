"""What is right in every line of a policy and most likely wrong in the whole: roles that lead nowhere, rules that never count."""

from collections.abc import Iterator
from itertools import product

from kernos.syscalls.policy import Finding
from kernos.syscalls.sources import FLOWS, LIMITS

from .flows import EFFECTS, Flow, FlowRules, Source
from .index import Index
from .patterns import MANY, ONE, wider
from .policy import Policy
from .rules import Membership, Place, Rule, Rules

ROLE_DEPTH = 9
"""Casbin follows a chain of roles so far and no further."""


def lint(policy: Policy) -> list[Finding]:
    """Errors, warnings and notes, by file and line."""
    rules, flows = policy.rules, policy.flows
    findings = [*_roles(policy), *_duplicates(rules), *_shadowed(rules), *_sweeping(rules)]
    findings += [*_repeated_flows(flows), *_shadowed_flows(flows), *_unknown_labels(policy), *_unknown_readers(policy)]
    return sorted(findings, key=lambda finding: (finding.file, finding.line, finding.column))


def _roles(policy: Policy) -> Iterator[Finding]:
    rules, index = policy.rules, policy.index
    ruled = {rule.subject for rule in rules.rules} | {flow.sink.removeprefix("principal/") for flow in policy.flows.flows}
    limited = set(policy.allowances.tables)
    given = {entry.role for entry in rules.roles}
    members = {entry.member for entry in rules.roles}
    for entry in rules.roles:
        if entry.role not in ruled | limited | members:
            yield entry.place.finding(
                f"no rule, no limit and no flow is about `{entry.role}`, so this gives `{entry.member}` nothing. Misspelt?"
            )
        if entry.member in index.names(entry.role):
            yield entry.place.finding(f"`{entry.member}` and `{entry.role}` have each other as roles. Take one of the lines out.")
        elif entry.member not in given:
            yield from _depth(entry, index)
    for rule in _first_of_each(rules.rules):
        if rule.subject.startswith("role:") and rule.subject not in given:
            yield rule.place.finding(f"nobody has the role `{rule.subject}`.", severity="note")
    for name in sorted(limited - given):
        if name.startswith("role:"):
            yield Place(LIMITS, 1).finding(f"nobody has the role `{name}`, which has limits.", severity="note")


def _depth(entry: Membership, index: Index) -> Iterator[Finding]:
    """From the beginning of a chain only, so that one chain is one finding."""
    depth = longest_chain(entry.member, index)
    if depth > ROLE_DEPTH:
        text = f"`{entry.member}` has roles of roles {depth} deep; more than {ROLE_DEPTH} are not followed. Make the chain shorter."
        yield entry.place.finding(text)


def longest_chain(member: str, index: Index) -> int:
    """How far away the farthest role of somebody is, by the shortest way to it."""
    return max(len(path) for path in index.names(member).values())


def _first_of_each(rules: tuple[Rule, ...]) -> list[Rule]:
    return list({rule.subject: rule for rule in reversed(rules)}.values())


def _duplicates(rules: Rules) -> Iterator[Finding]:
    seen: dict[str, Place] = {}
    entries: tuple[Rule | Membership, ...] = (*rules.rules, *rules.roles)
    for entry in entries:
        if (first := seen.setdefault(entry.text, entry.place)) != entry.place:
            yield entry.place.finding(f"says the same as {first}. Take one of them out.", severity="warning")


def _shadowed(rules: Rules) -> Iterator[Finding]:
    """Rules that never count because a wider one of the same subject says it already, or denies all of it."""
    first = {(rule.subject, *rule.says): rule for rule in reversed(rules.rules)}
    for rule in rules.rules:
        for object_, action in product(wider(rule.object), (rule.action, ONE)):
            over = first.get((rule.subject, object_, action, "deny")) or first.get((rule.subject, object_, action, rule.effect))
            if over is not None and over.says != rule.says:
                why = "says it already" if over.effect == rule.effect else "denies all of it"
                yield rule.place.finding(f"never counts: {over} {why}.", severity="warning")
                break


def _sweeping(rules: Rules) -> Iterator[Finding]:
    for rule in rules.rules:
        if rule.effect == "allow" and rule.object == MANY and rule.subject.endswith(ONE):
            yield rule.place.finding(f"every `{rule.subject}` may do this to everything there is. Say to what.", severity="warning")


# --- flows ------------------------------------------------------------------------------------------------------------------------


def _repeated_flows(rules: FlowRules) -> Iterator[Finding]:
    seen: dict[tuple[str, ...], Place] = {}
    entries: tuple[Flow | Source, ...] = (*rules.flows, *rules.sources)
    for entry in entries:
        if (first := seen.setdefault(entry.says, entry.place)) != entry.place:
            yield entry.place.finding(f"says the same as {first}. Take one of them out.", severity="warning")


def _shadowed_flows(rules: FlowRules) -> Iterator[Finding]:
    """Lines that never count because one about more, of the same label, says it already or is stricter on all of it."""
    strictness = list(EFFECTS)
    first = {flow.says: flow for flow in reversed(rules.flows)}
    for flow in rules.flows:
        least = strictness.index(flow.effect)
        for sink, effect in product(wider(flow.sink), reversed(strictness[least:])):
            over = first.get(("flow", flow.label, sink, effect))
            if over is not None and over.says != flow.says:
                why = "says it already" if effect == flow.effect else "is stricter on all of it"
                yield flow.place.finding(f"never counts: {over} {why}.", severity="warning")
                break


def _unknown_labels(policy: Policy) -> Iterator[Finding]:
    """Rights to declassify what no line keeps from going anywhere."""
    for rule in policy.rules.rules:
        head, _, label = rule.object.partition("/")
        if head == "label" and label not in (ONE, MANY, *policy.flows.labels):
            text = f"no line of {FLOWS} is about the label `{label}`, which stays with its owner. Misspelt?"
            yield rule.place.finding(text, severity="warning")


def _unknown_readers(policy: Policy) -> Iterator[Finding]:
    """Roles that nobody has, in the place of somebody who may read."""
    given = {entry.role for entry in policy.rules.roles}
    for flow in policy.flows.flows:
        role = flow.sink.removeprefix("principal/")
        if role.startswith("role:") and role not in given:
            yield flow.place.finding(f"nobody has the role `{role}`.", severity="note")
