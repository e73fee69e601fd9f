"""Least privilege from use: which rules would do for a subject, and which of those in force it does not need."""

from collections.abc import Iterable
from typing import Final

from kernos.syscalls.policy import Suggestion

from .compare import rules_for
from .patterns import ONE
from .policy import Policy
from .questions import askable
from .rules import Rule
from .uses import Key, Uses

TOLD_APART: Final = 4
"""Objects of one folder that get a rule each; of more, the folder gets one."""


def suggest(policy: Policy, uses: Uses, subject: str, since: float) -> Suggestion:
    """Rules for all that a subject was seen to use, or was denied, since then (seconds since the Unix epoch)."""
    found = uses.of(subject, since)
    used = [key for key, use in found.items() if use.allowed]
    denied = [key for key, use in found.items() if not use.allowed]
    return Suggestion(
        [_line(subject, key) for key in generalised(used)],
        [_line(subject, key) for key in generalised(denied)],
        [str(rule) for rule in _unused(policy, subject, used)],
        max(since, uses.since),
    )


def generalised(keys: Iterable[Key]) -> list[Key]:
    """The same with a pattern in the place of many objects of a folder, by action; in order."""
    folders: dict[tuple[str, str], set[str]] = {}
    for object_, action in keys:
        folders.setdefault((object_.rpartition("/")[0], action), set()).add(object_)
    found = set()
    for (folder, action), objects in folders.items():
        pattern = f"{folder}/{ONE}"
        many = folder and len(objects) > TOLD_APART and askable(pattern, action)
        found |= {(pattern, action)} if many else {(object_, action) for object_ in objects}
    return sorted(found)


def _line(subject: str, key: Key) -> str:
    return f"p, {subject}, {key[0]}, {key[1]}, allow"


def _unused(policy: Policy, subject: str, used: list[Key]) -> list[Rule]:
    """Rules that allow, count for this subject alone, and decided nothing that it used; those of roles and kinds may serve others."""
    deciding = {policy.index.decide(subject, *key) for key in used}
    return [rule for rule in rules_for(policy, subject) if rule.subject == subject and rule.effect == "allow" and rule not in deciding]
