"""`policy.*`: the law in force, questions to it, and who is known to it."""

from typing import Annotated

import msgspec
from msgspec import Meta

from .bounds import Principal, PublicKey, ShortText
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
