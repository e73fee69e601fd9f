"""What two policies decide differently, and who may change one into the other."""

import os
import random
from itertools import product
from pathlib import Path

import pytest

from kernos.kernel.security.compare import shifts, subjects_of
from kernos.kernel.security.grants import changes, is_unrestricted, refusals
from kernos.kernel.security.patterns import kind_of
from kernos.kernel.security.policy import Policy, read_policy
from kernos.kernel.security.questions import actions_on
from kernos.kernel.security.review import review
from kernos.kernel.security.rules import Rule, Rules
from kernos.syscalls.sources import Files
from tests.kernel.security.random_policies import HERE, SUBJECTS, policy_of, random_rules

MODEL = (Path(__file__).parents[3] / "policies" / "model.conf").read_bytes()


def files_of(text: str, limits: str = "") -> Files:
    written = {"model.conf": MODEL, "policy.d/1.csv": f"{text}# end\n".encode()}
    return {**written, "limits.toml": limits.encode()} if limits else written


def policy(text: str, limits: str = "") -> Policy:
    found, findings = read_policy(files_of(text, limits))
    assert findings == []
    return found


def changed(old: str, new: str) -> set[str]:
    return {f"{'+' if shift.allowed else '-'} {shift.subject} {shift.action} {shift.object}" for shift in shifts(policy(old), policy(new))}


BASE = "p, app:shop, model/*, generate, allow\n"


class TestDifferences:
    def test_the_same_decisions_in_other_words(self) -> None:
        other = "p, role:seller, model/*, generate, allow\ng, app:shop, role:seller\np, role:nobody, **, *, allow\n"
        assert changed(BASE, other) == set()

    def test_a_right_more_and_one_less(self) -> None:
        new = "p, app:shop, model/small, generate, allow\np, user:anna, store/a, read, allow\n"
        assert changed(BASE, new) == {"- app:shop generate model/*", "+ user:anna read store/a"}

    def test_a_deny_in_the_middle_of_what_is_allowed(self) -> None:
        assert changed(BASE, BASE + "p, app:*, model/big, generate, deny\n") == {"- app:shop generate model/big"}

    def test_a_new_wildcard_covers_what_is_below(self) -> None:
        assert changed("p, app:shop, store/a, read, allow\n", "p, app:shop, store/**, read, allow\n") == {
            "+ app:shop read store/a/**",
            "+ app:shop read store/*",
            "+ app:shop read store/*/**",
        }

    def test_strangers_are_represented_by_their_kind(self) -> None:
        assert changed(BASE, BASE + "p, user:*, system, ping, allow\n") == {"+ user:* ping system"}

    def test_what_no_call_asks_about_is_no_difference(self) -> None:
        """`**` is about everything, but reading a model is nothing that is done."""
        found = changed(BASE, BASE + "p, app:new, **, read, allow\n")
        assert found
        assert not any("model" in line for line in found)

    @pytest.mark.parametrize("part", range(2))
    def test_all_of_them_are_found(self, part: int) -> None:
        """Against asking both policies every small question."""
        heads = ("model", "store", "context")
        paths = ["/".join(path) for head in heads for length in range(4) for path in product((head,), *[("a", "b", "c", "z")] * length)]
        for seed in range(part, 400 if os.environ.get("KERNOS_PROVE") else 30, 2):
            chance = random.Random(seed)
            old, new = (policy_of(random_rules(chance, 6, roles=5)) for _ in range(2))
            found = {(shift.subject, shift.action, shift.allowed) for shift in shifts(old, new)}
            named = set(subjects_of(old, new))
            for subject, path in product(SUBJECTS, paths):
                for action in actions_on(path):
                    before, after = old.index.allows(subject, path, action), new.index.allows(subject, path, action)
                    told = (subject if subject in named else kind_of(subject), action, after)
                    assert before == after or told in found, (seed, path, told)


LAW = """\
p, role:admin, **, *, allow
p, role:clerk, policy, apply, allow
p, role:clerk, store/**, *, allow
p, role:clerk, model/small, generate, allow
p, app:shop, system, ping, allow
g, admin:root, role:admin
g, user:carla, role:clerk
"""


def judged(new: str, applier: str = "user:carla", old: str = LAW, limits: str = "") -> list[str]:
    before, after = policy(old), policy(new, limits)
    return [finding.text for finding in refusals(before, after, list(changes(before, after, (applier,))), (applier,))]


class TestGrants:
    def test_who_is_unrestricted(self) -> None:
        law = policy(LAW + "p, admin:two, **, *, allow\np, admin:*, system, stop, deny\np, user:dan, **, read, allow\n")
        assert {name for name in ("admin:root", "admin:two", "user:carla", "user:dan") if is_unrestricted(law, name)} == set()
        assert is_unrestricted(policy(LAW), "admin:root")

    def test_one_may_give_what_one_has(self) -> None:
        assert judged(LAW + "p, app:shop, store/orders/*, read, allow\np, app:shop, model/small, generate, allow\n") == []

    @pytest.mark.parametrize(
        "line",
        [
            "p, app:shop, model/*, generate, allow",
            "p, app:shop, model/big, generate, allow",
            "p, user:carla, **, *, allow",
            "g, user:carla, role:admin",
            "g, app:shop, role:admin",
            "g, role:clerk, role:admin",
            "p, app:shop, policy, apply, allow",
            "p, user:*, policy, read, allow",
            "p, app:shop, system, ping, deny",
            "p, admin:*, policy, read, deny",
        ],
    )
    def test_nobody_gives_or_takes_what_they_lack(self, line: str) -> None:
        assert judged(f"{LAW}{line}\n")
        assert not any("may not" in text for text in judged(f"{LAW}{line}\n", "admin:root"))

    def test_nobody_takes_the_policy_from_an_administrator(self) -> None:
        assert judged(LAW + "p, admin:root, policy, apply, deny\n")

    def test_a_hole_in_ones_rights_is_a_hole_in_what_one_gives(self) -> None:
        law = LAW + "p, user:carla, store/secret/**, *, deny\n"
        assert judged(law + "p, app:shop, store/open/*, read, allow\n", old=law) == []
        assert judged(law + "p, app:shop, store/**, read, allow\n", old=law)
        assert judged(law.replace("p, user:carla, store/secret/**, *, deny\n", ""), old=law), "nor does one fill it"

    def test_taking_back_what_one_may_give(self) -> None:
        law = LAW + "p, app:shop, store/orders/*, read, allow\n"
        assert judged(LAW, old=law) == []

    def test_an_administrator_may_all(self) -> None:
        assert judged(LAW + "p, user:dan, **, *, allow\n", "admin:root") == []

    @pytest.mark.parametrize("applier", ["admin:root", "user:carla"])
    def test_nobody_locks_themselves_out(self, applier: str) -> None:
        assert any("could not apply" in text for text in judged(BASE, applier))

    def test_limits_are_for_those_who_may_all(self) -> None:
        limits = "[default]\n" + "".join(f"{name} = 9\n" for name in policy(LAW).limits("app:x"))
        assert any("may not change this file" in text for text in judged(LAW, limits=limits))
        assert judged(LAW, "admin:root", limits=limits) == []

    def test_a_role_that_raises_limits_beyond_ones_own(self) -> None:
        limits = "[default]\n" + "".join(f"{name} = 9\n" for name in policy(LAW).limits("app:x")) + '["role:big"]\nturns = 10\n'
        old, new = policy(LAW, limits=limits), policy(LAW + "g, app:shop, role:big\n", limits=limits)
        found = refusals(old, new, list(changes(old, new, ("user:carla",))), ("user:carla",))
        assert ["raise turns of app:shop" in finding.text for finding in found] == [True]

    def test_an_agent_needs_it_twice(self) -> None:
        law = LAW + "p, app:desk, **, *, allow\n"
        before, after = policy(law), policy(law + "p, app:shop, model/big, generate, allow\n")
        for appliers, refused in ((("app:desk",), False), (("app:desk", "user:carla"), True)):
            assert bool(refusals(before, after, list(changes(before, after, appliers)), appliers)) == refused

    def test_a_random_change_by_a_restricted_applier_never_adds_what_they_lack(self) -> None:
        """Whatever is let through: whoever may do something new, the one who applied it could before."""
        passed = 0
        for seed in range(2_000 if os.environ.get("KERNOS_PROVE") else 150):
            chance = random.Random(seed)
            base, more = random_rules(chance, 6, roles=4), random_rules(chance, 1, roles=1)
            rules = (*base.rules, Rule("app:a", "store/**", "*", "allow", HERE), Rule("app:a", "context/a", "*", "allow", HERE))
            old, new = policy_of(Rules(rules, base.roles)), policy_of(Rules(rules + more.rules, base.roles + more.roles))
            found = list(changes(old, new, ("app:a",)))
            if is_unrestricted(old, "app:a") or any("may not" in finding.text for finding in refusals(old, new, found, ("app:a",))):
                continue
            passed += bool(found)
            for subject, head, last in product(SUBJECTS, ("model", "store", "context"), ("a", "b", "z", "z/z")):
                for question in ((f"{head}/{last}", action) for action in actions_on(f"{head}/{last}")):
                    gained = new.index.allows(subject, *question) and not old.index.allows(subject, *question)
                    assert not gained or old.index.allows("app:a", *question), (seed, subject, question)
        assert passed, "nothing was let through, so nothing was tested"


def test_a_review_tells_what_would_change() -> None:
    old = policy(LAW)
    _, found = review(files_of(LAW + "p, app:shop, model/small, generate, allow\n"), old, ("admin:root",))
    assert found.sound
    assert [(change.subject, change.object, change.action, change.allowed) for change in found.changes] == [
        ("app:shop", "model/small", "generate", True)
    ]
    _, found = review(files_of(LAW + "p, app:shop, model/small, generate, yes\n"), old, ("admin:root",))
    assert not found.sound
    assert found.changes == [], "a policy with mistakes is not compared"
