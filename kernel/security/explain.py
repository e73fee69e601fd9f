"""Answers about decisions: why one is as it is, what a subject may do, who may do a thing."""

from collections.abc import Sequence
from typing import Final

from kernos.syscalls.policy import Explanation, Holder, Holders, Right, Rights

from .compare import rules_for, subjects_of
from .patterns import MANY, ONE, match_path
from .policy import Policy
from .questions import askable
from .routes import explain_flows
from .rules import Rule

NEAR: Final = 3
"""Rules that are shown for a denial."""


def why(policy: Policy, subject: str, object_: str, action: str, labels: Sequence[str] = ()) -> Explanation:
    """A decision, with the rule and the roles that led to it; for a denial what is near, and the smallest line that would allow it.

    Of labels, which a subject would carry when it does this, it is said where they may go.
    """
    rule = policy.index.decide(subject, object_, action)
    allowed = rule is not None and rule.effect == "allow"
    line = f"p, {subject}, {object_}, {action}, allow" if rule is None and askable(object_, action) else ""
    path = role_path(policy, subject, rule.subject) if rule is not None else []
    near = [] if allowed else [str(entry) for entry in nearest(policy, subject, object_, action)]
    return Explanation(allowed, str(rule or ""), policy.hash, path, near, line, explain_flows(policy, subject, object_, action, labels))


def role_path(policy: Policy, subject: str, name: str) -> list[str]:
    """The lines that give a subject a role, from it upwards; empty if the name is its own or its kind's."""
    lines = {(entry.member, entry.role): entry for entry in reversed(policy.rules.roles)}
    roles = policy.index.names(subject).get(name, ())
    return [str(lines[step]) for step in zip((subject, *roles), roles, strict=False)]


def nearest(policy: Policy, subject: str, object_: str, action: str) -> list[Rule]:
    """Rules that would allow it for somebody else, or something like it for this subject; those with least to change come first.

    A rule that counts for the subject and is about the object, but another action, is at 1; one that allows exactly this to somebody else
    at 2; one that allows the action on an object with the same beginning at 2 and more, by how much of it differs.
    """
    names = policy.index.names(subject)
    found: list[tuple[int, int, Rule]] = []
    for number, rule in enumerate(policy.rules.rules):
        if rule.effect == "allow" and (distance := _distance(rule, rule.subject in names, object_, action)):
            found.append((distance, number, rule))
    return [rule for _, _, rule in sorted(found, key=lambda entry: entry[:2])[:NEAR]]


def _distance(rule: Rule, own: bool, object_: str, action: str) -> int:
    """0: too far away to be of interest."""
    same_object, same_action = match_path(object_, rule.object), rule.action in (ONE, action)
    if rule.object == MANY and not own:
        return 0  # that an administrator may is no news
    if same_object and same_action:
        return 0 if own else 2
    if own and same_object:
        return 1
    if own and same_action:
        have, want = object_.split("/"), rule.object.split("/")
        alike = next((at for at, (one, other) in enumerate(zip(have, want, strict=False)) if one != other), min(len(have), len(want)))
        return 2 + max(len(have), len(want)) - alike if alike else 0
    return 0


def can(policy: Policy, subject: str) -> Rights:
    """All rules that count for a subject, with the roles by which they do."""
    names = policy.index.names(subject)
    return Rights([Right(*rule.says, str(rule), list(names[rule.subject])) for rule in rules_for(policy, subject)])


def who(policy: Policy, object_: str, action: str) -> Holders:
    """Everybody who may do this to the object; whoever is not named and may is there as `kind:*`."""
    holders = [subject for subject in subjects_of(policy) if policy.index.allows(subject, object_, action)]
    return Holders([Holder(subject, str(policy.index.decide(subject, object_, action))) for subject in holders])
