"""The tests of a policy: `tests/*.toml` within it. A policy whose tests fail is not installed.

[[test]]
who = "app:customer_service"
for = "user:anna"                                      # may be left out: whom the agent acts for; both need the right
what = ["model/smollm2-135m:generate", "context/own:append"]
expect = "allow"                                       # or "deny"
by = "p, app:customer_service, model/*, generate, allow"   # may be left out: the rule that decides; "" for none
role = "role:seller"                                   # may be left out: as if `who`, or whom it acts for, had this role as well
labels = ["untrusted"]                                 # may be left out: carrying these; then it may expect "approve" too
privileged = true                                      # may be left out: the tool is offered as privileged
"""

import re
import tomllib
from collections.abc import Iterator
from typing import Annotated, Final, Literal, NamedTuple

import msgspec
from msgspec import Meta

from kernos.syscalls.bounds import LabelNames, Principal
from kernos.syscalls.policy import Finding
from kernos.syscalls.sources import FLOWS, TESTS, Files

from .flows import FlowRules
from .index import Index
from .policy import Policy
from .questions import askable
from .routes import judge, passes, routes
from .rules import Membership, Place, in_toml

_Role = Annotated[str, Meta(pattern=r"^role:[A-Za-z0-9_][A-Za-z0-9_.@-]*\Z", max_length=80)]
_Question = Annotated[str, Meta(pattern=r"^[^:]\S*:[a-z_]+\Z", max_length=320)]


class Trial(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"user": "for"}):
    """One entry of such a file."""

    who: Principal
    what: Annotated[list[_Question], Meta(min_length=1)]
    expect: Literal["allow", "approve", "deny"]
    user: Principal | None = None
    by: str | None = None
    role: _Role | None = None
    labels: LabelNames = []
    privileged: bool = False

    @property
    def questions(self) -> list[tuple[str, str]]:
        """Pairs of an object and an action."""
        return [(text.rpartition(":")[0], text.rpartition(":")[2]) for text in self.what]


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    test: list[Trial] = []


def read_trials(files: Files) -> tuple[list[tuple[Place, Trial]], list[Finding]]:
    """All tests with the lines on which they begin; and what is wrong with their files."""
    found: list[tuple[Place, Trial]] = []
    findings: list[Finding] = []
    for file in sorted(name for name in files if name.startswith(TESTS + "/")):
        try:
            text = files[file].decode("utf-8")
            trials = msgspec.convert(tomllib.loads(text), _File).test
        except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
            findings.append(in_toml(file, f"{error}. See policies/README.md for how a test is written."))
            continue
        lines = [number for number, line in enumerate(text.split("\n"), 1) if re.match(r"\s*\[\[\s*test\s*\]\]", line)]
        found += [(Place(file, line), trial) for line, trial in zip(lines, trials, strict=False)]
    return found, findings


def run_trials(policy: Policy, trials: list[tuple[Place, Trial]]) -> list[Finding]:
    """What fails."""
    found = []
    for place, trial in trials:
        index = policy.index if trial.role is None else _with_role(policy, trial, trial.role)
        found += [finding for question in trial.questions for finding in _run(index, policy.flows, place, trial, *question)]
    return found


def _with_role(policy: Policy, trial: Trial, role: str) -> Index:
    given = Membership(trial.user or trial.who, role, Place(TESTS, 0))
    return Index(policy.rules.rules, (*policy.rules.roles, given))


class _Verdict(NamedTuple):
    effect: str
    line: str
    """That decides, as it is written; empty: none."""
    told: str


def _run(index: Index, flows: FlowRules, place: Place, trial: Trial, object_: str, action: str) -> Iterator[Finding]:
    if not askable(object_, action):
        yield place.finding(f"no call asks for `{action}` on `{object_}`, so the test says nothing. See docs/syscalls.md.")
        return
    for label in trial.labels:
        if label not in flows.labels:
            yield place.finding(f"no line of {FLOWS} is about the label `{label}`, which the test names. Misspelt?")
    found = _decided(index, trial, object_, action)
    if found.effect == "allow" and trial.labels:
        found = _flowing(index, flows, trial, object_, action) or found
    whom = f"{trial.who} for {trial.user}" if trial.user else trial.who
    if found.effect != trial.expect:
        yield place.finding(f"the test fails: {action} {object_} by {whom} should be {_SHOULD[trial.expect]} and is {found.told}.")
    elif trial.by is not None and trial.by != found.line:
        yield place.finding(f"the test fails: {action} {object_} by {whom} is {found.told}, not by `{trial.by}`.")


def _decided(index: Index, trial: Trial, object_: str, action: str) -> _Verdict:
    """What the rules say, to both where there are two."""
    rules = {subject: index.decide(subject, object_, action) for subject in (trial.who, trial.user) if subject is not None}
    refused = [subject for subject, rule in rules.items() if rule is None or rule.effect == "deny"]
    rule = rules[refused[0] if refused else trial.who]
    by = str(rule) if rule is not None else "no rule allows it"
    told = f"denied ({refused[0]}: {by})" if refused else f"allowed by {by}"
    return _Verdict("deny" if refused else "allow", rule.text if rule is not None else "", told)


def _flowing(index: Index, flows: FlowRules, trial: Trial, object_: str, action: str) -> _Verdict | None:
    """What the labels say, if they do not let it pass: the first that forbids it, else the first that takes approval."""
    subjects = [subject for subject in (trial.who, trial.user) if subject is not None]
    ways = [route for subject in subjects for route in routes(index, subject, object_, action, privileged=trial.privileged)]
    judged = [(label, route, *judge(flows, label, route)) for label in trial.labels for route in ways]
    stopped = [entry for entry in judged if not passes(entry[2], entry[1])]
    for label, route, effect, flow in sorted(stopped, key=lambda entry: entry[2] == "approve"):
        by = str(flow) if flow is not None else f"no line lets `{label}` go there"
        told = f"{'up to somebody who approves' if effect == 'approve' else 'denied'} ({label} to {route.name}: {by})"
        return _Verdict("approve" if effect == "approve" else "deny", flow.text if flow is not None else "", told)
    return None


_SHOULD: Final = {"allow": "allowed", "approve": "up to somebody who approves", "deny": "denied"}
