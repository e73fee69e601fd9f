"""What Casbin would silently ignore is refused whole, with file and line."""

from pathlib import Path

import pytest

from kernos.kernel.security.policy import load_policy
from kernos.kernel.security.rules import PolicyError, read_rules
from tests.kernel.fakes import make_policy

GOOD = "p, app:shop, model/*, generate, allow\n"


def refused(folder: Path, text: str | bytes) -> str:
    make_policy(folder, "")
    (folder / "policy.d" / "50-test.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(PolicyError) as caught:
        read_rules(folder)
    return str(caught.value)


BAD_LINES = {
    "a misspelt effect": "p, app:shop, model/*, generate, dney",
    "an effect in capitals": "p, app:shop, model/*, generate, Deny",
    "an effect that is left out": "p, app:shop, model/*, generate",
    "an empty effect": "p, app:shop, model/*, generate,",
    "an effect too many": "p, app:shop, model/*, generate, allow, deny",
    "a comment behind a rule": "p, app:shop, model/*, generate, allow # for now",
    "a comment behind an action": "p, app:shop, model/*, generate # all, deny",
    "a kind of line in capitals": "P, app:shop, model/*, generate, allow",
    "a second policy type": "p2, app:shop, model/*, generate, allow",
    "a second role type": "g2, app:shop, role:seller",
    "a role line in capitals": "G, app:shop, role:seller",
    "quotes": 'p, "app:shop", model/*, generate, allow',
    "quotes around it all": '"p, app:shop, model/*, generate, allow"',
    "semicolons": "p; app:shop; model/*; generate; allow",
    "tabs for commas": "p\tapp:shop\tmodel/*\tgenerate\tallow",
    "a subject without a kind": "p, shop, model/*, generate, allow",
    "an unknown kind": "p, apps:shop, model/*, generate, allow",
    "a kind in capitals": "p, App:shop, model/*, generate, allow",
    "a subject of any kind": "p, *, model/*, generate, allow",
    "half a subject": "p, app:, model/*, generate, allow",
    "a pattern inside a subject": "p, app:sh*, model/*, generate, allow",
    "an empty object": "p, app:shop, , generate, allow",
    "an object from the root": "p, app:shop, /model/x, generate, allow",
    "an object with an end slash": "p, app:shop, model/, generate, allow",
    "an object with an empty segment": "p, app:shop, model//x, generate, allow",
    "a space inside an object": "p, app:shop, model /x, generate, allow",
    "an action in capitals": "p, app:shop, model/*, Generate, allow",
    "two actions": "p, app:shop, model/*, generate|embed, allow",
    "a pattern of actions": "p, app:shop, model/*, gen*, allow",
    "an empty action": "p, app:shop, model/*, , allow",
    "a role line with one field": "g, app:shop",
    "a role line with three fields": "g, app:shop, role:seller, here",
    "a role without a kind": "g, app:shop, seller",
    "a comment of another language": "// p, app:shop, model/*, generate, allow",
    "a minus sign of typographers": "p, app:shop, model/\u2013, generate, allow",
    "a letter that looks like another": "p, \u0430pp:shop, model/*, generate, allow",
    "a zero-width space": "p, app:shop\u200b, model/*, generate, allow",
    "a rule cut in its middle": "p, app:shop, mod",
}


@pytest.mark.parametrize("line", BAD_LINES.values(), ids=BAD_LINES.keys())
def test_a_bad_line_refuses_the_policy_with_its_place(tmp_path: Path, line: str) -> None:
    message = refused(tmp_path, f"# Rules\n\n{GOOD}{line}\n{GOOD}")
    assert message.startswith("50-test.csv:4: ")


UNSEEN = {
    "a pattern inside a segment": "p, app:shop, model/smol*, generate, deny",
    "any number of segments in the middle": "p, app:shop, store/**/secret, read, deny",
    "two stars beside letters": "p, app:shop, store/x**, read, deny",
    "three stars": "p, app:shop, store/***, read, deny",
    "an action that no call has": "p, app:shop, model/*, genrate, deny",
    "an object that no call has": "p, app:shop, modle/*, generate, deny",
    "a role of a whole kind": "g, app:*, role:seller",
    "a member of every role": "g, app:shop, role:*",
    "a rule for every role": "p, role:*, model/*, generate, deny",
}


@pytest.mark.parametrize("line", UNSEEN.values(), ids=UNSEEN.keys())
def test_a_line_that_could_never_match_is_refused(tmp_path: Path, line: str) -> None:
    assert refused(tmp_path, f"{GOOD}{line}\n").startswith("50-test.csv:2: ")


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\r"])
def test_no_rule_hides_in_a_comment(tmp_path: Path, separator: str) -> None:
    hidden = f"# harmless{separator}p, app:evil, **, *, allow\n{GOOD}"
    make_policy(tmp_path, "")
    (tmp_path / "policy.d" / "50-test.csv").write_bytes(hidden.encode())
    try:
        subjects = [rule.subject for rule in read_rules(tmp_path).rules]
    except PolicyError:
        subjects = []
    assert "app:evil" not in subjects


class TestWholeFiles:
    def test_a_byte_order_mark(self, tmp_path: Path) -> None:
        assert refused(tmp_path, b"\xef\xbb\xbf" + GOOD.encode()).startswith("50-test.csv:1: ")

    def test_a_byte_order_mark_before_a_comment(self, tmp_path: Path) -> None:
        assert refused(tmp_path, b"\xef\xbb\xbf# Rules\n" + GOOD.encode()).startswith("50-test.csv:1: ")

    def test_utf16(self, tmp_path: Path) -> None:
        assert "not UTF-8" in refused(tmp_path, GOOD.encode("utf-16"))

    def test_latin_1(self, tmp_path: Path) -> None:
        assert "not UTF-8" in refused(tmp_path, f"# f\xfcr alle\n{GOOD}".encode("latin-1"))

    def test_a_cut_last_line(self, tmp_path: Path) -> None:
        assert "may have been cut" in refused(tmp_path, GOOD + GOOD.rstrip("\n"))

    def test_an_empty_file(self, tmp_path: Path) -> None:
        assert "50-test.csv" in refused(tmp_path, "")

    def test_only_comments(self, tmp_path: Path) -> None:
        assert "no rules" in refused(tmp_path, "# nothing\n")

    def test_no_files(self, tmp_path: Path) -> None:
        make_policy(tmp_path, "")
        (tmp_path / "policy.d" / "50-test.csv").unlink()
        with pytest.raises(PolicyError, match="no rules"):
            read_rules(tmp_path)

    def test_a_missing_model(self, tmp_path: Path) -> None:
        make_policy(tmp_path, GOOD)
        (tmp_path / "model.conf").unlink()
        with pytest.raises(PolicyError, match=r"model\.conf: missing"):
            load_policy(tmp_path)

    def test_an_edited_model(self, tmp_path: Path) -> None:
        make_policy(tmp_path, GOOD)
        model = tmp_path / "model.conf"
        model.write_text(model.read_text("utf-8").replace(" && !some(where (p.eft == deny))", ""), "utf-8")
        with pytest.raises(PolicyError, match=r"model\.conf"):
            load_policy(tmp_path)

    def test_a_chain_of_roles_that_is_too_long(self, tmp_path: Path) -> None:
        chain = "".join(f"g, role:r{n}, role:r{n + 1}\n" for n in range(1, 15))
        make_policy(tmp_path, f"g, app:shop, role:r1\n{chain}p, app:shop, model/x, generate, allow\np, role:r15, model/x, generate, deny\n")
        try:
            allowed = load_policy(tmp_path).allows("app:shop", "model/x", "generate")
        except PolicyError:
            allowed = False
        assert not allowed


class TestWhatIsTaken:
    def test_spaces_comments_empty_lines_and_windows_ends(self, tmp_path: Path) -> None:
        make_policy(tmp_path, f"  # indented\r\n\r\n  p ,app:shop,  model/*,generate ,allow  \r\n{GOOD}")
        rules = read_rules(tmp_path).rules
        assert [(rule.subject, rule.object, rule.action, rule.effect) for rule in rules] == [
            ("app:shop", "model/*", "generate", "allow")
        ] * 2
        assert rules[0].place == "50-test.csv:3"
        assert str(rules[0]) == "p, app:shop, model/*, generate, allow (50-test.csv:3)"

    def test_the_same_line_twice_is_one_rule_in_force(self, tmp_path: Path) -> None:
        policy = load_policy(make_policy(tmp_path, f"{GOOD}{GOOD}g, user:a, role:x\ng, user:a, role:x\n"))
        assert policy.allows("app:shop", "model/x", "generate")

    def test_files_in_the_order_of_their_names(self, tmp_path: Path) -> None:
        make_policy(tmp_path, GOOD)
        (tmp_path / "policy.d" / "10-first.csv").write_text("p, app:first, model/*, generate, allow\n", "utf-8")
        assert [rule.subject for rule in read_rules(tmp_path).rules] == ["app:first", "app:shop"]

    def test_the_hash_is_over_names_and_bytes(self, tmp_path: Path) -> None:
        hashes = set()
        for number, text in enumerate([GOOD, GOOD + "# a comment\n", GOOD.replace("allow", "deny")]):
            hashes.add(read_rules(make_policy(tmp_path / str(number), text)).hash)
        assert len(hashes) == 3
        again = make_policy(tmp_path / "again", GOOD)
        assert read_rules(again).hash in hashes
        (again / "policy.d" / "50-test.csv").rename(again / "policy.d" / "51-test.csv")
        assert read_rules(again).hash not in hashes
