"""The index against Casbin itself, which defines what a policy means."""

import os
import random
from itertools import pairwise

import pytest

from kernos.kernel.security.index import Index
from kernos.kernel.security.reference import Reference
from kernos.kernel.security.rules import Membership, Rule, Rules
from tests.kernel.security.random_policies import HERE, random_question, random_rules

POLICIES, QUESTIONS = (1_000, 100) if os.environ.get("KERNOS_PROVE") else (80, 40)


@pytest.mark.parametrize("part", range(4))
def test_random_requests_are_decided_as_casbin_decides_them(part: int) -> None:
    """No chain of eight roles is longer than Casbin follows, so there is no difference at all."""
    allowed = asked = 0
    for seed in range(part, POLICIES, 4):
        chance = random.Random(seed)
        rules = random_rules(chance, chance.choice((5, 20, 60)))
        index, reference = Index(rules.rules, rules.roles), Reference(rules)
        for _ in range(QUESTIONS):
            question = random_question(chance)
            assert index.allows(*question) == reference.allows(*question), (seed, question)
            asked += 1
            allowed += index.allows(*question)
    assert asked == POLICIES * QUESTIONS // 4
    assert 0.05 < allowed / asked < 0.95, "questions that always have the same answer prove nothing"


@pytest.mark.parametrize("depth", range(1, 14))
def test_the_one_difference_is_a_chain_longer_than_casbin_follows(depth: int) -> None:
    """A deny inherited through ten roles is lost to Casbin; here it holds, and `check` refuses the policy besides."""
    chain = ["app:a", *(f"role:r{n}" for n in range(depth))]
    roles = tuple(Membership(one, other, HERE) for one, other in pairwise(chain))
    rules = Rules((Rule("app:a", "**", "*", "allow", HERE), Rule(chain[-1], "model/m", "generate", "deny", HERE)), roles)
    assert not Index(rules.rules, rules.roles).allows("app:a", "model/m", "generate")
    assert Reference(rules).allows("app:a", "model/m", "generate") == (depth >= 10)
