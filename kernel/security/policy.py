"""The law in force: an immutable snapshot with a cache of its decisions. No match means no.

A snapshot never changes. A new policy is a new snapshot, built and checked beside the old one and put in its place whole, cache and all;
reloading a live enforcer was measured to answer wrongly while it reloads. The model (`model.conf`) is part of the product:

* a rule's subject is a principal, a role of it, or `kind:*` for every principal of a kind;
* a rule's object is a path in which `*` is one segment and `**`, at the end, any number;
* deny overrides allow.

How much each principal may use (`limits.toml`) and where labels may go (`flows.csv`) is law too: the snapshot holds it, and the hash
covers it.
"""

from importlib.resources import files as package
from pathlib import Path

from kernos.syscalls.errors import BadRequestError
from kernos.syscalls.policy import Finding
from kernos.syscalls.sources import LIMITS, MODEL, Files, hash_files, read_files

from ..core.quotas import Limits
from ..limits import DECISIONS
from .allowances import Allowances, read_allowances
from .flows import NO_FLOWS, FlowRules, read_flows
from .index import Index
from .rules import Place, PolicyError, Rule, Rules, in_toml, read_rules


class Verdict:
    """A decision and the rule that made it (None: none matched)."""

    __slots__ = ("allowed", "noted", "rule")

    def __init__(self, rule: Rule | None) -> None:
        self.allowed = rule is not None and rule.effect == "allow"
        self.rule = rule
        self.noted = False
        """Whether it is in the record of uses for this minute."""


class Policy:
    """A snapshot."""

    def __init__(self, rules: Rules, allowances: Allowances, files: Files, flows: FlowRules = NO_FLOWS) -> None:
        self.rules = rules
        self.allowances = allowances
        self.flows = flows
        self.files = files
        """What it was made from."""
        self.hash = hash_files(files)
        self.cache: dict[tuple[str, str, str], Verdict] = {}
        self.index = Index(rules.rules, rules.roles)
        self._limits: dict[str, Limits] = {}

    def allows(self, subject: str, object_: str, action: str) -> bool:
        """Whether the subject may do this to the object."""
        return self.decide(subject, object_, action).allowed

    def decide(self, subject: str, object_: str, action: str) -> Verdict:
        """As `allows`, with the rule that decided."""
        question = (subject, object_, action)
        verdict = self.cache.get(question)
        if verdict is None:
            verdict = Verdict(self.index.decide(subject, object_, action))
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
            limits = self._limits[principal] = self.allowances.of(principal, set(self.index.names(principal)))
        return limits


def read_policy(files: Files) -> tuple[Policy, list[Finding]]:
    """The snapshot that these files make, and what is wrong with them: with any finding it is not to be used."""
    rules, findings = read_rules(files)
    findings += _check_model(files)
    try:
        allowances = read_allowances(files)
    except PolicyError as error:
        allowances = read_allowances({})
        findings.append(in_toml(LIMITS, str(error)))
    flows, wrong = read_flows(files)
    return Policy(rules, allowances, files, flows), findings + wrong


def load_policy(folder: Path) -> Policy:
    """A snapshot of the policy in a folder; `PolicyError` says all that is wrong with it, and where."""
    try:
        policy, findings = read_policy(read_files(folder))
    except BadRequestError as error:
        raise PolicyError(str(error)) from None
    return sound(policy, findings)


def sound(policy: Policy, findings: list[Finding]) -> Policy:
    """The policy, if nothing was found; else `PolicyError` with all of it."""
    if findings:
        raise PolicyError("\n".join(str(finding) for finding in findings))
    return policy


def _check_model(files: Files) -> list[Finding]:
    place = Place(MODEL, 1)
    if MODEL not in files:
        return [place.finding("missing. It is part of Kernos; restore the shipped policies.")]
    if files[MODEL] != (package("kernos.policies") / MODEL).read_bytes():
        return [place.finding("not the one of this Kernos. It is not for editing; restore the shipped one.")]
    return []
