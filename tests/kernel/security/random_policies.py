"""Random policies that are dense in what makes decisions hard: roles of roles, cycles, wildcards, denies. From a seed."""

import random

from kernos.kernel.security.allowances import read_allowances
from kernos.kernel.security.policy import Policy
from kernos.kernel.security.rules import Membership, Place, Rule, Rules

HERE = Place("policy.d/1.csv", 1)
ALLOWANCES = read_allowances({})

SUBJECTS = ("app:a", "app:b", "user:u", "user:v", "admin:root", "device:d")
ROLES = tuple(f"role:r{n}" for n in range(8))
KINDS = ("app:*", "user:*", "admin:*")
SEGMENTS = ("a", "b", "c", "*")
HEADS = ("model", "store", "context", "*")
ACTIONS = ("read", "write", "generate", "*")


def random_rules(chance: random.Random, size: int, *, roles: int = 12) -> Rules:
    """So many rules, about 1 in 4 of which denies, and up to so many memberships, cycles among them."""
    return Rules(
        tuple(_rule(chance) for _ in range(size)),
        tuple(Membership(chance.choice((*SUBJECTS, *ROLES)), chance.choice(ROLES), HERE) for _ in range(chance.randrange(roles + 1))),
    )


def _rule(chance: random.Random) -> Rule:
    subject = chance.choice((*SUBJECTS, *ROLES, *ROLES, *KINDS))
    return Rule(subject, random_path(chance, pattern=True), chance.choice(ACTIONS), "deny" if chance.random() < 0.25 else "allow", HERE)


def random_path(chance: random.Random, *, pattern: bool = False) -> str:
    """A path of one to four segments; as a pattern with wildcards."""
    if pattern and chance.random() < 0.05:
        return "**"
    names = SEGMENTS if pattern else (*SEGMENTS[:3], "elsewhere")
    path = [chance.choice(HEADS if pattern else HEADS[:3]), *(chance.choice(names) for _ in range(chance.randrange(4)))]
    return "/".join([*path, "**"] if pattern and chance.random() < 0.25 else path)


def random_question(chance: random.Random) -> tuple[str, str, str]:
    """Somebody known or not, something, and what is done to it."""
    subject = chance.choice((*SUBJECTS, *SUBJECTS, "app:stranger", "user:stranger", "role:r0", "nobody", ""))
    return subject, random_path(chance), chance.choice(ACTIONS[:3])


def policy_of(rules: Rules) -> Policy:
    return Policy(rules, ALLOWANCES, {})
