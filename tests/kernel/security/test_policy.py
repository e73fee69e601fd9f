"""Decisions against an oracle written by hand, patterns by trying them all, and the shipped policies question by question."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernos.kernel.boot import install_policies
from kernos.kernel.law import enforced
from kernos.kernel.security import policy as policy_module
from kernos.kernel.security.allowances import read_allowances
from kernos.kernel.security.patterns import kind_of, match_path
from kernos.kernel.security.policy import Policy, load_policy, read_policy
from kernos.kernel.security.rules import Membership, Place, Rule, Rules
from kernos.syscalls.sources import read_files
from tests.kernel.fakes import EPOCH, examples, make_places, make_policy

SHIPPED = read_allowances({})
HERE = Place("f", 1)


# --- patterns ----------------------------------------------------------------------------------------------------------------------


def naive(have: Sequence[str], want: Sequence[str]) -> bool:
    if list(want) == ["**"]:
        return True
    if not have or not want:
        return not have and not want
    return want[0] in ("*", have[0]) and naive(have[1:], want[1:])


def test_every_small_path_against_every_small_pattern() -> None:
    paths = [list(path) for length in (1, 2, 3, 4) for path in product(("a", "b", "ab"), repeat=length)]
    patterns = [list(pattern) for length in (1, 2, 3) for pattern in product(("a", "b", "*"), repeat=length)]
    patterns += [[*pattern, "**"] for pattern in patterns] + [["**"]]
    for path, pattern in product(paths, patterns):
        assert match_path("/".join(path), "/".join(pattern)) == naive(path, pattern), (path, pattern)


@pytest.mark.parametrize(
    ("path", "pattern", "matches"),
    [
        ("model/smollm2-135m", "model/smollm2", False),
        ("model/smollm2", "model/smollm2-135m", False),
        ("models/x", "model/*", False),
        ("model", "model/*", False),
        ("model", "model/**", True),
        ("model/a/b", "model/*", False),
        ("model/a/b", "model/**", True),
        ("model/a", "*/a", True),
        ("model/*", "model/a", False),
        ("model/a", "MODEL/a", False),
    ],
)
def test_no_surprises_with_prefixes(path: str, pattern: str, matches: bool) -> None:
    assert match_path(path, pattern) is matches


def test_kinds() -> None:
    assert kind_of("user:anna") == "user:*"
    assert kind_of("anna") == "anna:*"


# --- decisions ---------------------------------------------------------------------------------------------------------------------

SUBJECTS = ("app:a", "app:b", "user:u", "role:x", "role:y", "role:z")
OBJECTS = ("model/m", "model/n", "model/m/deep", "store")
PATTERNS = ("model/m", "model/*", "model/**", "**", "*", "*/m")
ACTIONS = ("generate", "embed")


@dataclass(frozen=True)
class Oracle:
    """The law as its documentation words it."""

    rules: tuple[Rule, ...]
    roles: tuple[tuple[str, str], ...]

    def names(self, subject: str) -> set[str]:
        found, new = {subject}, {subject}
        while new:
            new = {role for member, role in self.roles if member in new} - found
            found |= new
        return found | {subject.partition(":")[0] + ":*"}

    def matching(self, subject: str, object_: str, action: str, effect: str) -> list[Rule]:
        names = self.names(subject)
        return [
            rule
            for rule in self.rules
            if rule.effect == effect
            and rule.subject in names
            and rule.action in ("*", action)
            and naive(object_.split("/"), rule.object.split("/"))
        ]


rule = st.builds(
    Rule,
    st.sampled_from((*SUBJECTS, "app:*", "user:*")),
    st.sampled_from(PATTERNS),
    st.sampled_from((*ACTIONS, "*")),
    st.sampled_from(("allow", "allow", "deny")),
    st.just(HERE),
)
roles = st.lists(st.tuples(st.sampled_from(SUBJECTS), st.sampled_from(("role:x", "role:y", "role:z"))), max_size=8)


@examples(120)
@given(st.lists(rule, min_size=1, max_size=8), roles)
def test_decisions_are_those_of_the_oracle(rules: list[Rule], members: list[tuple[str, str]]) -> None:
    oracle = Oracle(tuple(rules), tuple(members))
    policy = Policy(Rules(oracle.rules, tuple(Membership(*entry, HERE) for entry in oracle.roles)), SHIPPED, {})
    for subject, object_, action in product(("app:a", "user:u", "app:stranger"), OBJECTS, ACTIONS):
        allow, deny = (oracle.matching(subject, object_, action, effect) for effect in ("allow", "deny"))
        verdict = policy.decide(subject, object_, action)
        assert verdict.allowed == (bool(allow) and not deny)
        decisive = [*deny, *allow, None][0]
        assert verdict.rule == decisive, "the first rule that denies, else the first that allows"


def decide(folder: Path, text: str, *question: str) -> bool:
    return load_policy(make_policy(folder, text)).allows(*question)


class TestRoles:
    def test_a_cycle_ends(self, tmp_path: Path) -> None:
        text = "g, app:a, role:x\ng, role:x, role:y\ng, role:y, role:x\np, role:y, model/m, generate, allow\n"
        policy = read_policy(read_files(make_policy(tmp_path, text)))[0]
        assert policy.allows("app:a", "model/m", "generate")
        assert not policy.allows("app:b", "model/m", "generate")

    def test_a_chain(self, tmp_path: Path) -> None:
        text = "g, app:a, role:x\ng, role:x, role:y\ng, role:y, role:z\np, role:z, model/m, generate, allow\n"
        assert decide(tmp_path, text, "app:a", "model/m", "generate")

    def test_roles_do_not_work_backwards(self, tmp_path: Path) -> None:
        assert not decide(tmp_path, "g, app:a, role:x\np, app:a, model/m, generate, allow\n", "app:b", "model/m", "generate")

    def test_a_deny_of_a_far_role_wins(self, tmp_path: Path) -> None:
        text = "p, app:a, **, *, allow\ng, app:a, role:x\ng, role:x, role:y\np, role:y, model/m, generate, deny\n"
        policy = load_policy(make_policy(tmp_path, text))
        assert not policy.allows("app:a", "model/m", "generate")
        rule = policy.decide("app:a", "model/m", "generate").rule
        assert str(rule) == "p, role:y, model/m, generate, deny (policy.d/50-test.csv:4)"
        assert policy.allows("app:a", "model/n", "generate")


def test_nothing_is_allowed_by_default(tmp_path: Path) -> None:
    policy = load_policy(make_policy(tmp_path, "p, app:a, model/m, generate, allow\n"))
    for question in [("app:a", "model/m", "embed"), ("app:a", "model/n", "generate"), ("app:b", "model/m", "generate"), ("", "", "")]:
        verdict = policy.decide(*question)
        assert not verdict.allowed
        assert verdict.rule is None


def test_a_rule_alone_that_denies(tmp_path: Path) -> None:
    policy = load_policy(make_policy(tmp_path, "p, app:a, model/m, generate, deny\n"))
    assert not policy.allows("app:a", "model/m", "generate")


class TestCache:
    def test_it_answers_the_same_and_is_asked_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        policy = load_policy(make_policy(tmp_path, "p, app:a, model/m, generate, allow\n"))
        asked = []
        decide = policy.index.decide

        def counting(*question: str) -> Rule | None:
            asked.append(question)
            return decide(*question)

        monkeypatch.setattr(policy.index, "decide", counting)
        questions = [("app:a", "model/m", "generate"), ("app:a", "model/n", "generate")]
        first = [policy.decide(*question) for question in questions]
        assert [policy.decide(*question) for question in questions] == first
        assert asked == questions

    def test_it_is_bounded(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(policy_module, "DECISIONS", 10)
        policy = load_policy(make_policy(tmp_path, "p, app:a, store/**, read, allow\n"))
        for number in range(35):
            assert policy.allows("app:a", f"store/{number}", "read")
            assert len(policy.cache) <= 10

    def test_separators_cannot_be_confused(self, tmp_path: Path) -> None:
        policy = load_policy(make_policy(tmp_path, "p, app:a, store/x, read, allow\n"))
        assert policy.allows("app:a", "store/x", "read")
        for question in [
            ("app:a,store/x", "", "read"),
            ("app:a", "store/x,read", ""),
            ("app:a", "store/x", "read "),
            ("app:a\0", "store/x", "read"),
        ]:
            assert not policy.allows(*question)


def test_questions_are_data_and_not_code(tmp_path: Path) -> None:
    """The matcher is an expression; what is asked must not become part of it."""
    policy = load_policy(make_policy(tmp_path, "p, app:a, store/x, read, allow\n"))
    for text in ("' or 1 == 1", "r.sub", "__import__('os')", "{0}", "%s", "app:a || true", "\n", "(", '"'):
        assert not policy.allows(text, "store/x", "read")
        assert not policy.allows("app:a", text, "read")
        assert not policy.allows("app:a", "store/x", text)


# --- the shipped policies ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    where = make_places(tmp_path_factory.mktemp("home"))
    return enforced(install_policies(where, "admin:root", EPOCH)).policy


APP = "app:customer_service"

MAY = [
    (APP, "model/smollm2-135m", "generate"),
    (APP, "model/minilm", "embed"),
    (APP, "model/minilm", "count"),
    (APP, "model", "list"),
    (APP, "tool/customer_service/order", "serve"),
    (APP, "tool/customer_service/order", "call"),
    (APP, "tool", "answer"),
    (APP, "message/queue/human-support", "send"),
    (APP, "message/queue/human-support", "receive"),
    (APP, "message/agent/7", "send"),
    (APP, "principal/user:anna", "represent"),
    (APP, "process/greeter", "spawn"),
    (APP, "process/own", "kill"),
    (APP, "process/own", "nice"),
    (APP, "priority/batch", "use"),
    (APP, "priority/normal", "use"),
    (APP, "priority/interactive", "use"),
    (APP, "quota/own", "read"),
    ("app:other", "priority/normal", "use"),
    ("user:anna", "priority/batch", "use"),
    ("user:anna", "quota/own", "read"),
    (APP, "context/own", "append"),
    (APP, "store/orders/1", "write"),
    (APP, "system", "ping"),
    (APP, "system", "status"),
    (APP, "policy", "read"),
]

MAY_NOT = [
    (APP, "system", "stop"),
    (APP, "policy", "check"),
    (APP, "principal/app:evil", "enroll"),
    (APP, "principal/user:anna", "enroll"),
    (APP, "model/smollm2-135m", "load"),
    (APP, "model/smollm2-135m", "unload"),
    (APP, "process/all", "list"),
    (APP, "process/own", "raise"),
    (APP, "process/app:finance_monitor", "nice"),
    (APP, "priority/realtime", "use"),
    (APP, "quota/app:finance_monitor", "read"),
    (APP, "quota/user:anna", "read"),
    (APP, "quota/app:customer_service", "set"),
    (APP, "quota/own", "set"),
    ("app:other", "priority/interactive", "use"),
    ("user:anna", "priority/interactive", "use"),
    ("user:anna", "quota/user:anna", "set"),
    ("user:anna", "process/own", "raise"),
    (APP, "process/app:finance_monitor", "kill"),
    (APP, "process/app:finance_monitor", "signal"),
    (APP, "process/app:finance_monitor", "wait"),
    (APP, "context/user:anna", "read"),
    (APP, "context/app:finance_monitor", "append"),
    (APP, "tool/finance_monitor/pay", "call"),
    (APP, "tool/finance_monitor/pay", "serve"),
    (APP, "tool/customer_service", "serve"),
    (APP, "tool/customer_service/deep/er", "serve"),
    (APP, "message/queue/other", "send"),
    (APP, "message/queue/human-support-2", "send"),
    (APP, "app/customer_service", "run"),
    ("app:customer_service2", "model/smollm2-135m", "generate"),
    ("app:customer", "model/smollm2-135m", "generate"),
    ("app:other", "model/smollm2-135m", "generate"),
    ("app:other", "message/queue/human-support", "receive"),
    ("app:other", "principal/user:anna", "represent"),
    ("role:admin", "system", "stop2"),
    ("device:decoder", "system", "ping"),
    ("agent:x", "system", "ping"),
    ("admin:other", "system", "stop"),
    ("customer_service", "system", "ping"),
    ("user:anna", "principal/user:bert", "represent"),
    ("user:anna", "principal/user:bert", "enroll"),
    ("user:anna", "context/user:bert", "read"),
    ("user:anna", "message/queue/human-support", "receive"),
    ("user:anna", "process/app:customer_service", "kill"),
    ("user:anna", "tool/customer_service/order", "serve"),
    ("user:anna", "app/customer_service", "run"),
]


@pytest.mark.parametrize(("subject", "object_", "action"), MAY)
def test_may(shipped: Policy, subject: str, object_: str, action: str) -> None:
    assert shipped.allows(subject, object_, action)


@pytest.mark.parametrize(("subject", "object_", "action"), [row for row in MAY_NOT if row[0] != "role:admin"])
def test_may_not(shipped: Policy, subject: str, object_: str, action: str) -> None:
    assert not shipped.allows(subject, object_, action)


@pytest.mark.parametrize(("object_", "action"), [("system", "stop"), ("model/smollm2-135m", "unload"), ("model/smollm2-135m", "load")])
def test_a_user_with_a_key_of_their_own_may_not(shipped: Policy, object_: str, action: str) -> None:
    assert not shipped.allows("user:anna", object_, action)


def test_administrators_may_everything(shipped: Policy) -> None:
    for object_, action in {(object_, action) for _, object_, action in (*MAY, *MAY_NOT)}:
        assert shipped.allows("admin:root", object_, action)
