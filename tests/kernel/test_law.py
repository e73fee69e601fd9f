"""The law of a running kernel: its change, its alarm, its shadow, and what it was asked."""

from pathlib import Path

import pytest

from kernos.syscalls.context import OpenContext
from kernos.syscalls.errors import BusyError, ConflictError, DeniedError, PolicyRefusedError, StorageError
from kernos.syscalls.policy import (
    ApplyPolicy,
    CheckPolicy,
    ComparePolicies,
    ExplainDecision,
    FetchPolicy,
    GetPolicy,
    ListGenerations,
    ListHolders,
    ListRights,
    ReadShadow,
    RollBackPolicy,
    ScorePolicy,
    ShadowPolicy,
    SuggestPolicy,
)
from kernos.syscalls.process import ListProcesses
from kernos.syscalls.sources import Files
from kernos.syscalls.system import GetStatus, Ping
from tests.kernel.fakes import ADMIN, App, World, make_world


@pytest.fixture
def lawful(tmp_path: Path) -> World:
    return make_world(tmp_path, policy=None)


@pytest.fixture
def root(lawful: World) -> App:
    return lawful.connect(ADMIN)


@pytest.fixture
def shop(lawful: World) -> App:
    return lawful.connect("app:shop")


@pytest.fixture
def files(root: App) -> Files:
    return root.call(FetchPolicy()).files


def plus(files: Files, text: str, name: str = "policy.d/50-shop.csv") -> Files:
    return {**files, name: f"{text}# end\n".encode()}


DENY = "p, app:shop, system, ping, deny\n"


class TestChange:
    def test_it_counts_at_once_and_can_be_undone(self, lawful: World, root: App, shop: App, files: Files) -> None:
        before = root.call(GetPolicy())
        assert (before.generation, before.author) == (1, ADMIN)
        shop.call(Ping())
        done = root.call(ApplyPolicy(files=plus(files, DENY), reason="too many pings", base=before.hash))
        assert (done.generation, done.changed) == (2, 1)
        denied = shop.refused(Ping())
        assert denied.details["rule"] == "p, app:shop, system, ping, deny (policy.d/50-shop.csv:1)"
        after = root.call(GetPolicy())
        assert (after.hash, after.generation, after.reason, after.alarm) == (done.hash, 2, "too many pings", "")
        assert root.call(GetStatus()).policy == done.hash == denied.details["policy"]

        back = root.call(RollBackPolicy(reason="they need it"))
        assert back.generation == 3
        assert root.call(GetPolicy()).hash == before.hash
        shop.call(Ping())
        assert [(entry.number, entry.active) for entry in root.call(ListGenerations()).generations] == [(3, True), (2, False), (1, False)]
        assert root.call(GetPolicy()).reason == "back to 1: they need it"
        assert root.call(FetchPolicy(generation=2)).files == plus(files, DENY)

    def test_what_is_on_the_disk_is_what_is_in_force(self, lawful: World, root: App, files: Files, tmp_path: Path) -> None:
        done = root.call(ApplyPolicy(files=plus(files, DENY), reason=""))
        assert make_world(tmp_path / "other", policy=None).system.law.policy.hash != done.hash
        assert make_world(tmp_path, policy=None).system.law.policy.hash == done.hash, "the next kernel goes on with it"

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("p, app:shop, system, ping, dney\n", "the effect is `dney`"),
            ("P, app:shop, system, ping, deny\n", "expected `p, subject"),
            ("p, app:*, system, ping, deny\n", "the test fails"),
            ("g, app:shop, role:amdin\n", "Misspelt"),
            ("g, role:a, role:b\ng, role:b, role:a\np, role:a, system, ping, deny\n", "have each other as roles"),
            ("p, role:admin, policy, apply, deny\n", "could not apply a policy any more"),
        ],
    )
    def test_a_bad_one_leaves_the_old_one_and_raises_the_alarm(
        self, lawful: World, root: App, files: Files, text: str, says: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        before = root.call(GetPolicy())
        error = root.refused(ApplyPolicy(files=plus(files, text), reason=""))
        assert isinstance(error, PolicyRefusedError)
        assert says in error.message
        after = root.call(GetPolicy())
        assert (after.hash, after.generation) == (before.hash, before.generation)
        assert says in after.alarm
        assert says in caplog.text
        assert lawful.system.law.generations.active == 1
        assert not root.call(CheckPolicy(files=plus(files, text))).sound
        root.call(ApplyPolicy(files=plus(files, "p, app:shop, app/shop, run, allow\n"), reason=""))
        assert root.call(GetPolicy()).alarm == ""

    def test_a_disk_that_is_full_changes_nothing(self, lawful: World, root: App, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device", "/policies")

        monkeypatch.setattr(lawful.system.law.generations, "install", full)
        before = root.call(GetPolicy()).hash
        assert isinstance(root.refused(ApplyPolicy(files=plus(files, DENY), reason="")), StorageError)
        assert root.call(GetPolicy()).hash == before

    def test_who_works_from_an_older_one_is_told(self, root: App, files: Files) -> None:
        base = root.call(GetPolicy()).hash
        root.call(ApplyPolicy(files=plus(files, DENY), reason="", base=base))
        assert isinstance(root.refused(ApplyPolicy(files=files, reason="", base=base)), ConflictError)

    def test_one_at_a_time(self, lawful: World, root: App, files: Files) -> None:
        first = root.send(ApplyPolicy(files=plus(files, DENY), reason=""))
        second = root.send(ApplyPolicy(files=files, reason=""))
        assert isinstance(second.error(), BusyError)
        lawful.host.work()
        assert first.result().generation == 2

    def test_there_is_nothing_before_the_first(self, root: App) -> None:
        assert isinstance(root.refused(RollBackPolicy(reason="")), ConflictError)

    def test_only_who_may_apply(self, shop: App, files: Files) -> None:
        for call in (ApplyPolicy(files=files, reason=""), RollBackPolicy(reason=""), CheckPolicy(files=files), FetchPolicy()):
            assert isinstance(shop.refused(call), DeniedError)

    def test_who_may_apply_but_not_all_gives_nothing_away(self, lawful: World, root: App, files: Files) -> None:
        clerk = "p, admin:clerk, policy, *, allow\np, admin:clerk, app/*, run, allow\n"
        files = plus(files, clerk, "policy.d/60-clerk.csv")
        root.call(ApplyPolicy(files=files, reason=""))
        carla = lawful.connect("admin:clerk")
        error = carla.refused(ApplyPolicy(files=plus(files, "p, app:shop, model/*, load, allow\n"), reason=""))
        assert "may not give app:shop `load` on `model/*`" in error.message
        assert carla.refused(ApplyPolicy(files=plus(files, "g, admin:clerk, role:admin\n"), reason="")).code == "policy_refused"
        carla.call(ApplyPolicy(files=plus(files, "p, app:shop, app/shop, run, allow\n"), reason="mine to give"))
        assert isinstance(carla.refused(RollBackPolicy(generation=1, reason="")), PolicyRefusedError), "that would take its own rights"

    def test_limits_change_with_it(self, lawful: World, root: App, files: Files) -> None:
        limits = files["limits.toml"].replace(b"turns = 1_024", b"turns = 7")
        assert lawful.system.law.policy.limits("app:x")["turns"] == 1_024
        root.call(ApplyPolicy(files={**files, "limits.toml": limits}, reason=""))
        assert lawful.system.law.policy.limits("app:x")["turns"] == 7


class TestQuestions:
    def test_why_it_is_allowed(self, root: App, files: Files) -> None:
        found = root.call(ExplainDecision(subject=ADMIN, object="system", action="stop"))
        assert found.allowed
        assert found.rule.startswith("p, role:admin, **, *, allow (policy.d/00-system.csv:")
        assert found.path == [f"g, {ADMIN}, role:admin (roles.d/90-local.csv:2)"]
        assert found.near == []
        assert found.line == ""

    def test_why_it_is_denied_and_what_would_do(self, root: App) -> None:
        found = root.call(ExplainDecision(subject="app:other", object="model/tiny", action="generate"))
        assert (found.allowed, found.rule) == (False, "")
        assert found.line == "p, app:other, model/tiny, generate, allow"
        assert any(line.startswith("p, app:*, model/*, count, allow") for line in found.near)
        assert any(line.startswith("p, app:customer_service, model/*, generate, allow") for line in found.near)

    def test_the_smallest_line_does_it(self, root: App, files: Files) -> None:
        asked = ExplainDecision(subject="app:other", object="model/tiny", action="generate")
        root.call(ApplyPolicy(files=plus(files, root.call(asked).line + "\n"), reason=""))
        assert root.call(asked).allowed
        assert not root.call(ExplainDecision(subject="app:other", object="model/other", action="generate")).allowed

    def test_a_deny_has_no_line_that_would_do(self, root: App, files: Files) -> None:
        root.call(ApplyPolicy(files=plus(files, DENY), reason=""))
        found = root.call(ExplainDecision(subject="app:shop", object="system", action="ping"))
        assert found.rule.endswith("deny (policy.d/50-shop.csv:1)")
        assert found.line == ""

    def test_what_no_call_asks_for_needs_no_line(self, root: App) -> None:
        assert root.call(ExplainDecision(subject="app:other", object="modle/tiny", action="generate")).line == ""

    def test_what_somebody_may(self, root: App) -> None:
        rights = root.call(ListRights(subject=ADMIN)).rights
        assert [(right.object, right.action, right.effect, right.path) for right in rights] == [("**", "*", "allow", ["role:admin"])]
        assert len(root.call(ListRights(subject="app:customer_service")).rights) > 20

    def test_who_may_something(self, root: App) -> None:
        assert [holder.subject for holder in root.call(ListHolders(object="system", action="stop")).holders] == [ADMIN]
        assert "app:*" in {holder.subject for holder in root.call(ListHolders(object="system", action="ping")).holders}

    def test_exposure(self, root: App) -> None:
        found = {entry.subject: entry for entry in root.call(ScorePolicy()).exposures}
        assert found[ADMIN].points == 10
        assert found["device:*"].points == 0
        assert found["app:customer_service"].dangers == ["act for any user", "write files", "use every model"]

    def test_two_policies_compared(self, root: App, files: Files) -> None:
        found = root.call(ComparePolicies(old=files, new=plus(files, DENY)))
        assert [(change.subject, change.action, change.allowed) for change in found.changes] == [("app:shop", "ping", False)]
        assert isinstance(root.refused(ComparePolicies(old=files, new=plus(files, "nonsense\n"))), PolicyRefusedError)


class TestShadow:
    def test_it_is_asked_and_decides_nothing(self, root: App, shop: App, files: Files) -> None:
        root.call(ShadowPolicy(files=plus(files, DENY)))
        for _ in range(3):
            shop.call(Ping())
        found = root.call(ReadShadow())
        assert found.hash == root.call(GetPolicy()).shadow
        assert found.questions >= 3
        assert [(row.subject, row.object, row.action, row.allowed, row.count) for row in found.mismatches] == [
            ("app:shop", "system", "ping", False, 3)
        ]
        root.call(ShadowPolicy())
        assert root.call(ReadShadow()).hash == root.call(GetPolicy()).shadow == ""

    def test_a_bad_one_is_refused(self, root: App, files: Files) -> None:
        assert isinstance(root.refused(ShadowPolicy(files=plus(files, "nonsense\n"))), PolicyRefusedError)


class TestUse:
    def test_rules_for_what_was_used(self, lawful: World, root: App, shop: App) -> None:
        shop.call(Ping())
        shop.spawn("clerk").call(OpenContext(name="x"))
        shop.refused(ListProcesses(scope="all"))
        found = root.call(SuggestPolicy(subject="app:shop"))
        assert found.lines == [
            "p, app:shop, context/own, open, allow",
            "p, app:shop, priority/normal, use, allow",
            "p, app:shop, process/clerk, spawn, allow",
            "p, app:shop, system, ping, allow",
        ]
        assert found.denied == ["p, app:shop, process/all, list, allow"]

    def test_they_allow_just_that(self, lawful: World, root: App, shop: App, files: Files) -> None:
        """What is suggested, in the place of what all apps have, lets the same calls through."""
        root.call(ApplyPolicy(files=plus(files, "p, app:shop, app/shop, run, allow\n"), reason=""))
        shop.call(Ping())
        found = root.call(SuggestPolicy(subject="app:shop"))
        assert found.unused == ["p, app:shop, app/shop, run, allow (policy.d/50-shop.csv:1)"]
        bare = {"model.conf": files["model.conf"], "policy.d/1.csv": ("\n".join(found.lines) + "\n# end\n").encode()}
        narrow = root.call(ComparePolicies(old=bare, new=files)).changes
        assert not any(change.subject == "app:shop" and not change.allowed for change in narrow), "nothing beyond what is in force"

    def test_many_objects_of_a_folder_become_a_pattern(self, lawful: World, root: App, shop: App) -> None:
        for number in range(5):
            shop.spawn(f"clerk-{number}")
        assert "p, app:shop, process/*, spawn, allow" in root.call(SuggestPolicy(subject="app:shop")).lines

    def test_it_outlives_the_kernel(self, lawful: World, root: App, shop: App, tmp_path: Path) -> None:
        shop.call(Ping())
        lawful.system.law.write_down(lawful.system.storage)
        lawful.host.work()
        lawful.disk.close()
        following = make_world(tmp_path, policy=None).connect(ADMIN)
        assert following.call(SuggestPolicy(subject="app:shop")).lines == ["p, app:shop, system, ping, allow"]

    def test_since_when(self, lawful: World, root: App, shop: App) -> None:
        shop.call(Ping())
        later = lawful.host.clock + 10
        lawful.system.law.record(lawful.host.clock)
        lawful.host.advance(20)
        assert root.call(SuggestPolicy(subject="app:shop", since=later)).lines == []
        shop.call(Ping())
        assert root.call(SuggestPolicy(subject="app:shop", since=later)).lines == ["p, app:shop, system, ping, allow"]
        assert root.call(SuggestPolicy(subject="app:*")).lines == ["p, app:*, system, ping, allow"]

    def test_asking_what_one_may_is_no_use(self, lawful: World, root: App) -> None:
        root.call(ExplainDecision(subject="app:shop", object="system", action="ping"))
        assert root.call(SuggestPolicy(subject="app:shop")).lines == []
