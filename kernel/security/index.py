"""Decisions without Casbin on the way: the rules, sorted by whom they are about and by the segments of their objects.

Casbin reads every rule for every question: 4 us a rule, 40 ms at 10,000. Here a question walks down a tree of path segments, once for
every name that its subject goes by (itself, its roles and theirs, its kind), so that its cost grows with the depth of the path and not
with the number of rules. What is decided is defined by `model.conf` under Casbin (`reference.py`), and tests hold the two against each
other. The one difference: Casbin follows roles of roles for ten steps and then stops; here the chain is followed to its end, and a policy
with so long a chain is not taken.
"""

from collections import deque
from collections.abc import Iterable

from ..limits import DECISIONS
from .patterns import MANY, ONE, kind_of
from .rules import Membership, Rule

_Cell = dict[str, list[int]]
"""By action: the first rule that allows and the first that denies, by number; `_NONE` for none."""

_NONE = 1 << 60


class _Node:
    """The rules whose objects begin with the segments that led here."""

    __slots__ = ("any", "below", "children", "here")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.any: _Node | None = None
        self.here: _Cell = {}
        self.below: _Cell = {}
        """Of patterns that end in `**`."""


class Index:
    """Immutable; what it remembers of subjects is only a shortcut."""

    def __init__(self, rules: Iterable[Rule], roles: Iterable[Membership]) -> None:
        self.rules = tuple(rules)
        self._above: dict[str, list[str]] = {}
        self._trees: dict[str, _Node] = {}
        self._of: dict[str, tuple[_Node, ...]] = {}
        for entry in roles:
            self._above.setdefault(entry.member, []).append(entry.role)
        for number, rule in enumerate(self.rules):
            self._add(number, rule)

    def _add(self, number: int, rule: Rule) -> None:
        node = self._trees.setdefault(rule.subject, _Node())
        *segments, last = rule.object.split("/")
        for segment in segments if last == MANY else (*segments, last):
            if segment != ONE:
                node = node.children.setdefault(segment, _Node())
            else:
                node.any = node = node.any or _Node()
        cell = (node.below if last == MANY else node.here).setdefault(rule.action, [_NONE, _NONE])
        effect = int(rule.effect == "deny")
        cell[effect] = min(cell[effect], number)

    def decide(self, subject: str, object_: str, action: str) -> Rule | None:
        """The rule that decides: the first that denies, else the first that allows, else none, which is a no."""
        nodes = self._of.get(subject)
        if nodes is None:
            nodes = self._trees_of(subject)
        allow = deny = _NONE
        for cell in _cells(nodes, object_.split("/")):
            for name in (action, ONE):
                if (numbers := cell.get(name)) is not None:
                    allows, denies = numbers  # compared, as `min` costs a call
                    if allows < allow:
                        allow = allows
                    if denies < deny:
                        deny = denies
        number = allow if deny == _NONE else deny
        return None if number == _NONE else self.rules[number]

    def allows(self, subject: str, object_: str, action: str) -> bool:
        """Whether the subject may do this to the object."""
        rule = self.decide(subject, object_, action)
        return rule is not None and rule.effect == "allow"

    def names(self, subject: str) -> dict[str, tuple[str, ...]]:
        """All that a subject goes by, each with the roles that lead to it, shortest way first; its kind is the last."""
        found: dict[str, tuple[str, ...]] = {subject: ()}
        waiting = deque([subject])
        while waiting:
            name = waiting.popleft()
            for role in self._above.get(name, ()):
                if role not in found:
                    found[role] = (*found[name], role)
                    waiting.append(role)
        found.setdefault(kind_of(subject), ())
        return found

    def _trees_of(self, subject: str) -> tuple[_Node, ...]:
        nodes = tuple(self._trees[name] for name in self.names(subject) if name in self._trees)
        if len(self._of) >= DECISIONS:
            self._of.clear()  # callers choose users, so it must not grow with them
        self._of[subject] = nodes
        return nodes


def _cells(nodes: Iterable[_Node], segments: list[str]) -> Iterable[_Cell]:
    """The cells of all patterns that match a path."""
    found = []
    for segment in segments:
        following = []
        for node in nodes:
            if node.below:
                found.append(node.below)
            if (child := node.children.get(segment)) is not None:
                following.append(child)
            if node.any is not None:
                following.append(node.any)
        nodes = following
        if not nodes:
            return found
    for node in nodes:
        found += [cell for cell in (node.here, node.below) if cell]
    return found
