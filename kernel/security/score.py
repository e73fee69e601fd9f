"""How much harm each subject could do, as a number that an administrator can watch: the idea is that of `systemd-analyze security`."""

from dataclasses import dataclass
from typing import Final

from kernos.syscalls.policy import Exposure, Exposures

from .compare import subjects_of
from .policy import Policy
from .routes import to_principal


@dataclass(frozen=True)
class Danger:
    """A right that does harm in the wrong hands, and how much: 10 is the whole machine."""

    text: str
    object: str
    action: str
    weight: float


DANGERS: Final = (
    Danger("change the policy", "policy", "apply", 10),
    Danger("give keys to others", "principal/*", "enroll", 9),
    Danger("stop the kernel", "system", "stop", 6),
    Danger("copy the whole database", "system", "backup", 6),
    Danger("take any label off", "label/*", "declassify", 5),
    Danger("read the conversations of others", "context/*", "read", 5),
    Danger("change the conversations of others", "context/*", "append", 5),
    Danger("act for any user", "principal/*", "represent", 4),
    Danger("end the agents of others", "process/*", "kill", 4),
    Danger("change limits", "quota/*", "set", 4),
    Danger("approve what takes approval", "approval/*", "decide", 4),
    Danger("read what everybody did", "audit", "read", 3),
    Danger("start programs", "app/*", "run", 3),
    Danger("take over tools of others", "tool/**", "serve", 3),
    Danger("call any tool", "tool/**", "call", 2),
    Danger("read any queue", "message/queue/*", "receive", 2),
    Danger("take the models away", "model/*", "unload", 2),
    Danger("go before everybody", "priority/realtime", "use", 1),
    Danger("write files", "store/**", "write", 1),
    Danger("use every model", "model/*", "generate", 0.5),
)

_MOST: Final = sum(danger.weight for danger in DANGERS)


def score(policy: Policy) -> Exposures:
    """Everybody whom the policy names, most exposed first."""
    found = [_of(policy, subject) for subject in subjects_of(policy)]
    return Exposures(sorted(found, key=lambda exposure: (-exposure.points, exposure.subject)))


def _of(policy: Policy, subject: str) -> Exposure:
    # The pattern is asked for as if it were an object: one that no rule names.
    held = [danger for danger in DANGERS if policy.index.allows(subject, danger.object, danger.action)]
    reader = to_principal(policy.index, subject, own=True)
    labels = [label for label in sorted(policy.flows.labels) if policy.flows.decide(label, reader.paths).effect != "deny"]
    return Exposure(subject, round(10 * sum(danger.weight for danger in held) / _MOST, 1), [danger.text for danger in held], labels)
