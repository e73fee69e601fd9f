"""`policy.*`: the law in force, questions to it, its change, and who is known to it.

A policy is a set of files (`sources.py`). It comes into force by `policy.apply` alone, as a numbered *generation*; what is wrong with it
is a *finding*, and one that is an error keeps it out. Calls that only ask change nothing, and the law says who may ask.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from .bounds import LabelNames, Principal, PublicKey, ShortText
from .call import Call, Done
from .sources import FilePath, Files

Subject = Annotated[str, Meta(max_length=80)]
Object = Annotated[str, Meta(max_length=256)]
Action = Annotated[str, Meta(max_length=64)]
Hash = Annotated[str, Meta(max_length=16)]
"""16 hexadecimal digits over the files of a policy."""

Number = Annotated[int, Meta(ge=0, le=(1 << 31))]
"""A generation; 0 stands for the one in force."""

Severity = Literal["error", "warning", "note"]
"""An error keeps a policy out; a warning is most likely a mistake; a note may well be meant so."""


class Finding(msgspec.Struct, frozen=True):
    """Something about a policy that its author should know. Lines and columns count from 1."""

    severity: Severity
    file: str
    line: int
    column: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.severity}: {self.text}"


class PolicyStatus(msgspec.Struct, frozen=True):
    """Which policy is in force: the hash over its files, how large it is, and how it came."""

    hash: Hash
    rules: int
    roles: int
    cached: int
    """Decisions in the cache."""
    generation: int = 0
    author: str = ""
    time: float = 0.0
    """When it was installed, in seconds since the Unix epoch."""
    reason: str = ""
    shadow: Hash = ""
    """The policy that runs beside it, if there is one."""
    alarm: str = ""
    """Why the last change was refused; empty if it was not."""


class Change(msgspec.Struct, frozen=True):
    """A decision that two policies make differently.

    A segment `*` is any that no rule names, a last `**` one or more of them; the subject `user:*` is any user whom no rule names.
    """

    subject: str
    object: str
    action: str
    allowed: bool
    """By the new one."""
    rule: str
    """The rule that decides, of the policy that allows it."""


Flowing = Literal["allow", "approve", "own", "deny"]
"""Where a label may go: `approve` takes somebody's consent; `own`: no line is about the label, and it stays with its owner."""


class FlowChange(msgspec.Struct, frozen=True):
    """A label that may go elsewhere by one policy than by another, or that marks what comes from elsewhere.

    `place` is a sink or a source, with `*` and `**` as in `Change`. What comes from a source is `carried` or `plain`.
    """

    label: str
    place: str
    before: Literal["allow", "approve", "own", "deny", "carried", "plain"]
    after: Literal["allow", "approve", "own", "deny", "carried", "plain"]
    wider: bool
    """It may go further than before, or what comes is not marked any more."""
    rule: str
    """The line of the new one that decides."""


class Review(msgspec.Struct, frozen=True):
    """What is to be said about a policy, and what it would change."""

    hash: Hash
    rules: int
    roles: int
    tests: int
    """Questions that its tests ask."""
    findings: list[Finding]
    changes: list[Change]
    """Against the policy in force; empty where there is none to compare with."""
    left_out: int = 0
    """Changes beyond those that are listed."""
    flows: list[FlowChange] = []

    @property
    def sound(self) -> bool:
        """Whether it can be installed."""
        return not any(finding.severity == "error" for finding in self.findings)


class FlowExplanation(msgspec.Struct, frozen=True):
    """Why a label may go somewhere, or may not."""

    label: str
    sink: str
    effect: Flowing
    passes: bool
    """It goes without anybody's consent."""
    rule: str
    """The line of `flows.csv` that decides and where it stands; empty: none is about this."""
    line: str
    """Where none is about this, and the label may not go all the way: the smallest line that would let it."""


class Explanation(msgspec.Struct, frozen=True):
    """Why a decision is as it is."""

    allowed: bool
    rule: str
    """The rule that decides and where it stands; empty: no rule matches, and the default is to deny."""
    hash: Hash
    path: list[str]
    """The roles by which the subject is under that rule, with the lines that give them."""
    near: list[str]
    """For a denial: the rules that come nearest to allowing it, nearest first."""
    line: str
    """For a denial by default: the smallest line that would allow it."""
    flows: list[FlowExplanation] = []
    """For labels that were asked about: whether they may reach the subject, and go where it would take them."""


class Right(msgspec.Struct, frozen=True):
    """A rule that counts for a subject, and the roles by which it does."""

    object: str
    action: str
    effect: str
    rule: str
    path: list[str]


class Rights(msgspec.Struct, frozen=True):
    """All rules that count for a subject, in their order. A `deny` is stronger than any `allow`."""

    rights: list[Right]


class Holder(msgspec.Struct, frozen=True):
    """Somebody who may do a thing, by which rule. `user:*` is any user whom no rule names."""

    subject: str
    rule: str


class Holders(msgspec.Struct, frozen=True):
    """Everybody who may do a thing."""

    holders: list[Holder]


class Differences(msgspec.Struct, frozen=True):
    """The decisions in which two policies differ."""

    changes: list[Change]
    left_out: int = 0
    flows: list[FlowChange] = []


class Installed(msgspec.Struct, frozen=True):
    """A policy came into force. `hash` is that of the kernel's own decisions from now on."""

    generation: int
    hash: Hash
    changed: int
    """Decisions and flows that are other than before."""


class Generation(msgspec.Struct, frozen=True):
    """A policy that was installed: by whom, when (seconds since the Unix epoch) and why."""

    number: int
    hash: Hash
    author: str
    time: float
    reason: str
    active: bool = False


class Generations(msgspec.Struct, frozen=True):
    """The generations that are kept, newest first."""

    generations: list[Generation]


class Sources(msgspec.Struct, frozen=True):
    """The files of a generation."""

    generation: int
    hash: Hash
    files: Annotated[dict[FilePath, bytes], Meta(max_length=256)]


class Mismatch(msgspec.Struct, frozen=True):
    """A question that calls asked while a policy ran in the shadow, and that it answers differently."""

    subject: str
    object: str
    action: str
    allowed: bool
    """By the policy in the shadow."""
    rule: str
    count: int


class ShadowReport(msgspec.Struct, frozen=True):
    """How a policy in the shadow would have decided; an empty hash: none runs."""

    hash: Hash
    since: float
    """In seconds since the Unix epoch."""
    questions: int
    mismatches: list[Mismatch]
    left_out: int = 0


class Suggestion(msgspec.Struct, frozen=True):
    """Least privilege for a subject, from what it was seen to use."""

    lines: list[str]
    """Rules that allow all that it used and little more."""
    denied: list[str]
    """Rules that would allow what it was denied; for you to judge."""
    unused: list[str]
    """Rules in force that only count for it and that it did not need."""
    since: float
    """From when its uses are known, in seconds since the Unix epoch."""


class Exposure(msgspec.Struct, frozen=True):
    """How much harm a subject could do: 0 (none) to 10 (everything), and by which rights."""

    subject: str
    points: float
    dangers: list[str]
    labels: list[str] = []
    """Of those that `flows.csv` names, the ones that may reach it."""


class Exposures(msgspec.Struct, frozen=True):
    """Everybody whom the policy names, most exposed first."""

    exposures: list[Exposure]


class GetPolicy(Call[PolicyStatus], tag="policy.status", frozen=True):
    """The policy in force."""


class ExplainDecision(Call[Explanation], tag="policy.why", frozen=True):
    """Would this subject be allowed to do this to that object, carrying these labels, and why?"""

    subject: Subject
    object: Object
    action: Action
    labels: LabelNames = []


class ListRights(Call[Rights], tag="policy.can", frozen=True):
    """What may a subject do?"""

    subject: Subject


class ListHolders(Call[Holders], tag="policy.who", frozen=True):
    """Who may do this to that object?"""

    object: Object
    action: Action


class ScorePolicy(Call[Exposures], tag="policy.score", frozen=True):
    """How exposed is the system to each subject?"""


class SuggestPolicy(Call[Suggestion], tag="policy.suggest", frozen=True):
    """Which rules would do for a subject, by what it used since then (seconds since the Unix epoch)?"""

    subject: Subject
    since: Annotated[float, Meta(ge=0)] = 0.0


class CheckPolicy(Call[Review], tag="policy.check", frozen=True):
    """What would become of this policy if the caller applied it? Its tests are run, and nothing is changed."""

    files: Files


class ComparePolicies(Call[Differences], tag="policy.diff", frozen=True):
    """In which decisions do two policies differ?"""

    old: Files
    new: Files


class ApplyPolicy(Call[Installed], tag="policy.apply", frozen=True):
    """Put a policy into force, if it is sound, its tests pass, and the caller gives nobody a right that it lacks itself.

    `base` is the hash of the policy that it was made from: if another has come into force meanwhile this is a `ConflictError`. Empty:
    whatever is in force.
    """

    files: Files
    reason: ShortText
    base: Hash = ""


class RollBackPolicy(Call[Installed], tag="policy.rollback", frozen=True):
    """Put an earlier generation into force again, as a new one; 0: the one before that in force. The rules of `policy.apply` hold."""

    reason: ShortText
    generation: Number = 0


class ListGenerations(Call[Generations], tag="policy.history", frozen=True):
    """Which policies were installed, by whom, when and why?"""


class FetchPolicy(Call[Sources], tag="policy.fetch", frozen=True):
    """The files of a generation."""

    generation: Number = 0


class ShadowPolicy(Call[Done], tag="policy.shadow", frozen=True):
    """Ask this policy too whenever the one in force is asked, and remember where they differ; without files, stop doing so."""

    files: Files = {}


class ReadShadow(Call[ShadowReport], tag="policy.differences", frozen=True):
    """Where did the policy in the shadow decide differently?"""


class Enroll(Call[Done], tag="policy.enroll", frozen=True):
    """Make a principal known by its public CURVE key. Another key than before replaces it, and is a rotation.

    What is connected by the key before is cut off, its agents end, and that key never counts again.
    """

    principal: Principal
    public_key: PublicKey


class Revoke(Call[Done], tag="policy.revoke", frozen=True):
    """Know a principal no more: its connections are cut off, its agents end, and its keys never count again. Not the caller's own."""

    principal: Principal


class Known(msgspec.Struct, frozen=True):
    """A principal with an enrolled key."""

    principal: Principal
    public_key: PublicKey
    agents: int
    """Its living agents."""


class Principals(msgspec.Struct, frozen=True):
    """Everybody with an enrolled key, by name. Who has but lent ones (`kernos run`) is not among them."""

    principals: Annotated[list[Known], Meta(max_length=100_000)]


class ListPrincipals(Call[Principals], tag="policy.principals", frozen=True):
    """Who is known."""
