"""The tests of a policy: `tests/*.toml` within it. A policy whose tests fail is not installed.

[[test]]
who = "app:customer_service"
for = "user:anna"                                      # may be left out: whom the agent acts for; both need the right
what = ["model/smollm2-135m:generate", "context/own:append"]
expect = "allow"                                       # or "deny"
by = "p, app:customer_service, model/*, generate, allow"   # may be left out: the rule that decides; "" for none
"""

import re
import tomllib
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from kernos.syscalls.bounds import Principal
from kernos.syscalls.policy import Finding
from kernos.syscalls.sources import TESTS, Files

from .index import Index
from .questions import askable
from .rules import Place, Rule, in_toml

_Question = Annotated[str, Meta(pattern=r"^[^:]\S*:[a-z_]+\Z", max_length=320)]


class Trial(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"user": "for"}):
    """One entry of such a file."""

    who: Principal
    what: Annotated[list[_Question], Meta(min_length=1)]
    expect: Literal["allow", "deny"]
    user: Principal | None = None
    by: str | None = None

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


def run_trials(index: Index, trials: list[tuple[Place, Trial]]) -> list[Finding]:
    """What fails."""
    return [finding for place, trial in trials for question in trial.questions for finding in _run(index, place, trial, *question)]


def _run(index: Index, place: Place, trial: Trial, object_: str, action: str) -> list[Finding]:
    if not askable(object_, action):
        return [place.finding(f"no call asks for `{action}` on `{object_}`, so the test says nothing. See docs/syscalls.md.")]
    rules = {subject: index.decide(subject, object_, action) for subject in (trial.who, trial.user) if subject is not None}
    refused = [subject for subject, rule in rules.items() if rule is None or rule.effect == "deny"]
    decisive = rules[refused[0] if refused else trial.who]
    whom = f"{trial.who} for {trial.user}" if trial.user else trial.who
    if bool(refused) == (trial.expect == "allow"):
        verdict = f"denied ({refused[0]}: {_by(decisive)})" if refused else f"allowed by {decisive}"
        return [place.finding(f"the test fails: {action} {object_} by {whom} should be {_SHOULD[trial.expect]} and is {verdict}.")]
    if trial.by is not None and trial.by != (decisive.text if decisive is not None else ""):
        return [place.finding(f"the test fails: {action} {object_} by {whom} is decided by {_by(decisive)}, not by `{trial.by}`.")]
    return []


_SHOULD = {"allow": "allowed", "deny": "denied"}


def _by(rule: Rule | None) -> str:
    return str(rule) if rule is not None else "no rule allows it"
