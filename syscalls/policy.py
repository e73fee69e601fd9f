"""`policy.*`: the law in force, questions to it, and who is known to it."""

from typing import Annotated

import msgspec
from msgspec import Meta

from .bounds import Principal, ShortText
from .call import Call, Done

Subject = Annotated[str, Meta(max_length=80)]
Object = Annotated[str, Meta(max_length=256)]
Action = Annotated[str, Meta(max_length=64)]


class PolicyStatus(msgspec.Struct, frozen=True):
    """Which policy is in force: the hash over its files, and how large it is."""

    hash: ShortText
    rules: int
    roles: int
    cached: int
    """Decisions in the cache."""


class Decision(msgspec.Struct, frozen=True):
    """What the policy says, and the rule that decided (empty: no rule matched, and the default is to deny)."""

    allowed: bool
    rule: ShortText
    hash: ShortText


class GetPolicy(Call[PolicyStatus], tag="policy.status", frozen=True):
    """The policy in force."""


class CheckPolicy(Call[Decision], tag="policy.check", frozen=True):
    """Would this subject be allowed to do this to that object?"""

    subject: Subject
    object: Object
    action: Action


class Enroll(Call[Done], tag="policy.enroll", frozen=True):
    """Make a principal known by its public CURVE key (Z85, 40 characters); a key given again replaces the one before."""

    principal: Principal
    public_key: Annotated[str, Meta(min_length=40, max_length=40)]
