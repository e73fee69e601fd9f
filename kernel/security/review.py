"""Everything that is to be said about a policy before it comes into force, in one place: what `check` shows and `apply` insists on."""

from itertools import islice
from typing import Final

from kernos.syscalls.errors import PolicyRefusedError
from kernos.syscalls.policy import Change, Differences, Finding, FlowChange, Review
from kernos.syscalls.sources import Files

from .compare import Shift, shifts
from .flow_changes import flow_changes
from .grants import changes, is_unrestricted, refusals
from .lint import lint
from .policy import Policy, read_policy, sound
from .reference import Reference
from .rules import Place, PolicyError
from .trials import Trial, read_trials, run_trials

LISTED: Final = 500
"""Changes that are told one by one."""

ASKED: Final = 20_000
"""Rules that Casbin reads to confirm the answers to a policy's tests, at about 4 us each."""

CONFIRMED: Final = 2_000
"""Rules of a policy that Casbin is asked about at all: it takes in each only after comparing it with those before."""


def review(files: Files, old: Policy | None = None, appliers: tuple[str, ...] = ()) -> tuple[Policy, Review]:
    """The policy that these files make, and what is to be said about it.

    With the policy in force also what would change, and whether the `appliers` may change it.
    """
    policy, findings = read_policy(files)
    trials, wrong = read_trials(files)
    findings += wrong
    shifted: list[Shift] = []
    flows: list[FlowChange] = []
    if not findings:
        findings += [*lint(policy), *run_trials(policy, trials), *_confirm(policy, trials)]
        if old is not None:
            flows = flow_changes(old, policy)
            findings += _changes(old, policy, appliers, shifted)
    told, left_out = _told(shifted)
    asked = sum(len(trial.what) for _, trial in trials)
    size = (len(policy.rules.rules), len(policy.rules.roles))
    return policy, Review(policy.hash, *size, asked, findings, told, left_out + max(0, len(flows) - LISTED), flows[:LISTED])


def _changes(old: Policy, new: Policy, appliers: tuple[str, ...], shifted: list[Shift]) -> list[Finding]:
    """Fill in the changed decisions; what is to be said about them. Who may do everything may also change more than can be gone through."""
    try:
        for shift in changes(old, new, appliers):
            shifted.append(shift)  # noqa: PERF402  (what was found before it became too much is told)
    except PolicyError as error:
        free = all(is_unrestricted(old, applier) for applier in appliers)
        return [Place("", 0).finding(str(error), severity="note" if free else "error"), *refusals(old, new, [], appliers)]
    return refusals(old, new, shifted, appliers)


def compare(old: Files, new: Files) -> Differences:
    """The decisions in which two policies differ; `PolicyRefusedError` if one of them has mistakes."""
    try:
        one, other = (sound(*read_policy(files)) for files in (old, new))
        flows = flow_changes(one, other)
        told, left_out = _told(list(shifts(one, other)))
        return Differences(told, left_out + max(0, len(flows) - LISTED), flows[:LISTED])
    except PolicyError as error:
        raise PolicyRefusedError(str(error)) from None


def _told(shifted: list[Shift]) -> tuple[list[Change], int]:
    return [shift.change for shift in islice(shifted, LISTED)], max(0, len(shifted) - LISTED)


def _confirm(policy: Policy, trials: list[tuple[Place, Trial]]) -> list[Finding]:
    """Casbin itself answers the tests' questions, as many as it can in a second: it defines what the rules mean."""
    size = max(1, len(policy.rules.rules))
    most = ASKED // size if size <= CONFIRMED else 0
    questions = [(place, trial.who, *question) for place, trial in trials if trial.role is None for question in trial.questions][:most]
    reference = Reference(policy.rules) if questions else None
    return [
        place.finding(f"Casbin and the kernel's index differ about {action} {object_} by {subject}. This is a defect of Kernos; report it.")
        for place, subject, object_, action in questions
        if reference is not None and reference.allows(subject, object_, action) != policy.index.allows(subject, object_, action)
    ]
