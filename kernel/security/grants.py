"""Who may put which policy into force. Nobody grants what they lack, and nobody locks themselves out.

A principal is *unrestricted* if it may do everything: a rule `**, *, allow` counts for it and no rule denies it anything. Anybody else
who may apply a policy may install one in which

1. each decision that is other than before is about an object and an action that they may do themselves, now, and none is about
   `policy`: so they neither give nor take what is not theirs;
2. `limits.toml` and `flows.csv` are as they were, and nobody's limits rise above their own, and no label goes elsewhere, by a new role.

And whoever applies a policy, restricted or not, may still apply one afterwards. An agent that acts for a user needs all of this twice.
"""

from collections.abc import Iterator
from typing import Final

from kernos.syscalls.policy import Finding
from kernos.syscalls.sources import FLOWS, LIMITS

from .compare import Shift, rules_for, shifts, subjects_of
from .flow_changes import flow_changes
from .patterns import MANY, ONE
from .policy import Policy
from .rules import Place

APPLY: Final = ("policy", "apply")


def is_unrestricted(policy: Policy, principal: str) -> bool:
    """Whether a principal may do everything."""
    says = {rule.says for rule in rules_for(policy, principal)}
    return (MANY, ONE, "allow") in says and not any(effect == "deny" for _, _, effect in says)


def changes(old: Policy, new: Policy, appliers: tuple[str, ...]) -> Iterator[Shift]:
    """The changed decisions, cut as finely as the rules of those who apply the change need it. Raises as `shifts` does."""
    restricted = [applier for applier in appliers if not is_unrestricted(old, applier)]
    return shifts(old, new, (rule.object for applier in restricted for rule in rules_for(old, applier)))


def refusals(old: Policy, new: Policy, shifted: list[Shift], appliers: tuple[str, ...]) -> list[Finding]:
    """Why these principals may not put `new` in the place of `old`."""
    found = []
    for applier in appliers:
        if not new.index.allows(applier, *APPLY):
            text = f"{applier} could not apply a policy any more, not even to undo this. Let somebody else do it."
            found.append(Place("", 0).finding(text))
        if not is_unrestricted(old, applier):
            found += [*_decisions(old, applier, shifted), *_limits(old, new, applier), *_flows(old, new, applier)]
    return found


def _decisions(old: Policy, applier: str, shifted: list[Shift]) -> Iterator[Finding]:
    for shift in shifted:
        lacks = not old.index.allows(applier, shift.object, shift.action)
        if lacks or shift.object.partition("/")[0] == "policy":
            rule = shift.after or shift.before  # of a right that is taken without a `deny` the rule that is gone
            place = rule.place if rule is not None else Place("", 0)
            what = "give" if shift.allowed else "take from"
            why = "may not do that itself" if lacks else "may do nothing to `policy` but apply it"
            yield place.finding(f"{applier} may not {what} {shift.subject} `{shift.action}` on `{shift.object}`: {applier} {why}.")


def _limits(old: Policy, new: Policy, applier: str) -> Iterator[Finding]:
    for name in (LIMITS, FLOWS):
        if old.files.get(name) != new.files.get(name):
            yield Place(name, 1).finding(f"{applier} may not change this file: only who may do everything may.")
    own = old.limits(applier)
    for subject in subjects_of(old, new):
        for name, amount in new.limits(subject).items():
            if amount > max(old.limits(subject)[name], own[name]):
                yield Place("", 0).finding(f"{applier} may not raise {name} of {subject} to {amount}: its own limit is {own[name]}.")


def _flows(old: Policy, new: Policy, applier: str) -> Iterator[Finding]:
    for change in flow_changes(old, new):
        text = f"{applier} may not change where `{change.label}` goes ({change.place}): only who may do everything may."
        yield Place("", 0).finding(text)
