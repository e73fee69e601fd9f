"""The law in force: an immutable snapshot of a Casbin enforcer with a cache of its decisions. No match means no.

A snapshot never changes. A new policy is a new snapshot, built and checked beside the old one and put in its place whole; reloading a
live enforcer was measured to answer wrongly while it reloads. The model (`model.conf`) is part of the product:

* a rule's subject is a principal, a role of it, or `kind:*` for every principal of a kind;
* a rule's object is a path in which `*` is one segment and `**`, at the end, any number;
* deny overrides allow.

How much each principal may use (`limits.toml`) is law too: the snapshot holds it, and the hash covers it.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import casbin

from ..core.quotas import Limits
from ..limits import DECISIONS
from .allowances import Allowances, read_allowances
from .rules import PolicyError, Rules, read_rules


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision and the rule that made it (empty: none matched)."""

    allowed: bool
    rule: str


class Policy:
    """A snapshot."""

    def __init__(self, model: Path, rules: Rules, allowances: Allowances) -> None:
        self.rules = rules
        self.hash = hashlib.sha256(f"{rules.hash} {allowances.hash}".encode()).hexdigest()[:16]
        self.cache: dict[tuple[str, str, str], Verdict] = {}
        self._places = {(rule.subject, rule.object, rule.action, rule.effect): str(rule) for rule in rules.rules}
        self._enforcer = _enforcer(model, rules)
        self._allowances = allowances
        self._limits: dict[str, Limits] = {}

    def allows(self, subject: str, object_: str, action: str) -> bool:
        """Whether the subject may do this to the object."""
        return self.decide(subject, object_, action).allowed

    def decide(self, subject: str, object_: str, action: str) -> Verdict:
        """As `allows`, with the rule that decided."""
        question = (subject, object_, action)
        verdict = self.cache.get(question)
        if verdict is None:
            verdict = self._ask(question)
            if len(self.cache) >= DECISIONS:
                self.cache.clear()
            self.cache[question] = verdict
        return verdict

    def limits(self, principal: str) -> Limits:
        """How much a principal may use."""
        limits = self._limits.get(principal)
        if limits is None:
            if len(self._limits) >= DECISIONS:
                self._limits.clear()
            limits = self._limits[principal] = self._allowances.of(principal, self._roles(principal))
        return limits

    def _roles(self, principal: str) -> set[str]:
        return set(self._enforcer.get_implicit_roles_for_user(principal))

    def _ask(self, question: tuple[str, str, str]) -> Verdict:
        allowed, explained = self._enforcer.enforce_ex(*question)
        return Verdict(bool(allowed), self._places.get(tuple(explained[:4]), "") if explained else "")


def load_policy(folder: Path) -> Policy:
    """A snapshot of the policy in a folder; `PolicyError` says what is wrong with it, and where."""
    model = folder / "model.conf"
    if not model.is_file():
        raise PolicyError(f"{model}: missing. It is part of Kernos; restore the shipped policies.")
    if model.read_bytes() != (files("kernos.policies") / "model.conf").read_bytes():
        raise PolicyError(f"{model}: not the one of this Kernos. It is not for editing; restore the shipped one.")
    return Policy(model, read_rules(folder), read_allowances(folder))


def _enforcer(model: Path, rules: Rules) -> casbin.Enforcer:
    enforcer = casbin.Enforcer(str(model))
    enforcer.add_function("path", match_path)
    enforcer.add_function("kind", kind_of)
    # Duplicate lines would make add_policies refuse the whole batch; they say the same thing, so one is enough.
    enforcer.add_policies(list(dict.fromkeys((rule.subject, rule.object, rule.action, rule.effect) for rule in rules.rules)))
    enforcer.add_grouping_policies(list(dict.fromkeys(rules.roles)))
    return enforcer


def kind_of(subject: str) -> str:
    """`user:anna` is one of `user:*`."""
    return subject.partition(":")[0] + ":*"


@lru_cache(maxsize=65_536)
def match_path(object_: str, pattern: str) -> bool:
    """Whether a path matches a pattern, segment by segment; `*` is any one segment, a last `**` any number, also none."""
    want, have = pattern.split("/"), object_.split("/")
    if want[-1] == "**":
        want.pop()
        have = have[: len(want)] if len(have) >= len(want) else []
    return len(have) == len(want) and all(part in ("*", segment) for part, segment in zip(want, have, strict=True))
