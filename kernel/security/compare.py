"""In which decisions two policies differ: not in their text, and not on samples, but for every question that could ever be asked.

Only a subject whose rules have changed can be decided otherwise, and only on objects that a changed rule is about. Those are cut into
kinds that no rule of either policy tells apart (`kinds_of_paths`), and one of each kind is asked of both. Subjects that no rule names
are represented by one of each kind, written `user:*`.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from kernos.syscalls.policy import Change

from .index import Index
from .patterns import ONE, kinds_of_paths, meet
from .policy import Policy
from .questions import actions_on
from .rules import Place, PolicyError, Rule

KINDS: Final = ("admin", "agent", "app", "device", "user")
"""Of principals."""

COMPARED: Final = 50_000
"""Questions asked of two policies at the most, about a second's worth."""

_Says = tuple[str, str, str]

_NOWHERE: Final = Place("", 0)


@dataclass(frozen=True)
class Shift:
    """A question that two policies answer differently, and the rules by which they do."""

    subject: str
    object: str
    action: str
    before: Rule | None
    after: Rule | None

    @property
    def allowed(self) -> bool:
        """By the new one."""
        return self.after is not None and self.after.effect == "allow"

    @property
    def change(self) -> Change:
        """As it is told."""
        rule = self.after if self.allowed else self.before
        return Change(self.subject, self.object, self.action, self.allowed, str(rule or ""))


def subjects_of(*policies: Policy) -> list[str]:
    """Every principal that the policies name, and one of each kind whom they do not."""
    named = {f"{kind}:*" for kind in KINDS}
    for policy in policies:
        named |= {rule.subject for rule in policy.rules.rules} | {entry.member for entry in policy.rules.roles}
        named |= policy.allowances.tables.keys()
    return sorted(name for name in named if not name.startswith("role:"))


def rules_for(policy: Policy, subject: str) -> list[Rule]:
    """The rules that count for a subject, in their order."""
    names = policy.index.names(subject)
    return [rule for rule in policy.rules.rules if rule.subject in names]


def shifts(old: Policy, new: Policy, finer: Iterable[str] = ()) -> Iterator[Shift]:
    """Every changed decision, by subject. `finer`: further patterns that shall be told apart."""
    before, after = _says(old), _says(new)
    finer = tuple(finer)
    kinds: dict[tuple[frozenset[_Says], frozenset[_Says]], list[tuple[str, str]]] = {}
    asked = 0
    for subject in subjects_of(old, new):
        key = (before(subject), after(subject))
        if key not in kinds:
            kinds[key] = _questions(*key, finer)
        asked += len(kinds[key])
        if asked > COMPARED:
            raise PolicyError(f"The two policies differ in too much: more than {COMPARED} questions. Change less at a time.")
        for object_, action in kinds[key]:
            if old.index.allows(subject, object_, action) != new.index.allows(subject, object_, action):
                rules = (policy.index.decide(subject, object_, action) for policy in (old, new))
                yield Shift(subject, object_, action, *rules)


def _says(policy: Policy) -> Callable[[str], frozenset[_Says]]:
    """What counts for a subject, without saying it by which role."""
    of: dict[str, set[_Says]] = {}
    for rule in policy.rules.rules:
        of.setdefault(rule.subject, set()).add(rule.says)
    return lambda subject: frozenset().union(*(of.get(name, ()) for name in policy.index.names(subject)))


def _questions(before: frozenset[_Says], after: frozenset[_Says], finer: tuple[str, ...]) -> list[tuple[str, str]]:
    changed = dict.fromkeys(sorted(says[0] for says in before ^ after))
    if not changed:
        return []
    others = dict.fromkeys((*sorted(says[0] for says in before & after), *finer))
    near = [pattern for pattern in others if pattern not in changed and any(meet(pattern, other) for other in changed)]
    concerned = Index((Rule("", pattern, ONE, "allow", _NOWHERE) for pattern in changed), ())
    paths = (path for path in kinds_of_paths([*changed, *near]) if concerned.allows("", path, ""))
    return [(path, action) for path in paths for action in actions_on(path)]
