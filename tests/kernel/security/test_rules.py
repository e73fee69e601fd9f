"""What Casbin would silently ignore is refused whole, with file and line."""

from pathlib import Path

import pytest

from kernos.kernel.security.policy import load_policy
from kernos.kernel.security.rules import PolicyError, Rules, read_rules
from kernos.syscalls.errors import BadRequestError
from kernos.syscalls.sources import hash_files, read_files
from tests.kernel.fakes import make_policy

GOOD = "p, app:shop, model/*, generate, allow\n"
FILE = "policy.d/50-test.csv"


def refused(text: str | bytes) -> str:
    """The first thing that is said about a file."""
    _, findings = read_rules({FILE: text if isinstance(text, bytes) else f"{text}# end\n".encode()})
    assert findings
    assert all(finding.severity == "error" for finding in findings)
    return str(findings[0])


def read(folder: Path) -> Rules:
    rules, findings = read_rules(read_files(folder))
    assert not findings
    return rules


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
def test_a_bad_line_refuses_the_policy_with_its_place(line: str) -> None:
    assert refused(f"# Rules\n\n{GOOD}{line}\n{GOOD}").startswith(f"{FILE}:4:")


COLUMNS = {
    "p, app:shop, model/*, generate, dney": 33,
    "p, shop, model/*, generate, allow": 4,
    "p,app:shop,  modle/*, generate, allow": 14,
    "p, app:shop, model/*, genrate, deny": 23,
    "p, app:shop, model/*/deep, generate, deny": 14,
    "  P, app:shop, model/*, generate, allow": 3,
    "g, app:shop, seller": 14,
    "p, app:shop, model/*, gen\u2028erate, allow": 26,
}


@pytest.mark.parametrize(("line", "column"), COLUMNS.items())
def test_the_column_is_that_of_the_field(line: str, column: int) -> None:
    assert refused(f"{line}\n").startswith(f"{FILE}:1:{column}: error: ")


def test_all_that_is_wrong_is_told_at_once() -> None:
    bad = "p, shop, model/*, generate, allow\n"
    _, findings = read_rules({FILE: f"{bad}{GOOD}{bad}g, a, b\n# end\n".encode()})
    assert [(finding.line, finding.column) for finding in findings] == [(1, 4), (3, 4), (4, 4)]


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
    "a model inside a model": "p, app:shop, model/a/b, generate, deny",
    "an owner without a kind": "p, app:shop, context/anna, read, deny",
    "a class that there is not": "p, app:shop, priority/interactiv, use, deny",
    "a kind of mailbox that there is not": "p, app:shop, message/queues/*, send, deny",
    "a mailbox without a kind": "p, app:shop, message/*, send, deny",
    "an action of another object": "p, app:shop, model/*, spawn, deny",
    "an app that is represented": "p, app:shop, principal/app:x, represent, deny",
    "a way up": "p, app:shop, store/../x, read, deny",
}


@pytest.mark.parametrize("line", UNSEEN.values(), ids=UNSEEN.keys())
def test_a_line_that_could_never_match_is_refused(line: str) -> None:
    assert refused(f"{GOOD}{line}\n").startswith(f"{FILE}:2:")


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\r"])
def test_no_rule_hides_in_a_comment(separator: str) -> None:
    rules, findings = read_rules({FILE: f"# harmless{separator}p, app:evil, **, *, allow\n{GOOD}# end\n".encode()})
    assert findings
    assert "app:evil" not in {rule.subject for rule in rules.rules}


class TestWholeFiles:
    def test_a_byte_order_mark(self) -> None:
        assert refused(b"\xef\xbb\xbf" + GOOD.encode() + b"# end\n").startswith(f"{FILE}:1:1: ")

    def test_a_byte_order_mark_before_a_comment(self) -> None:
        assert refused(b"\xef\xbb\xbf# Rules\n" + GOOD.encode() + b"# end\n").startswith(f"{FILE}:1:1: ")

    def test_utf16(self) -> None:
        assert "not UTF-8" in refused(GOOD.encode("utf-16"))

    def test_latin_1(self) -> None:
        assert refused(GOOD.encode() + "# f\xfcr alle\n# end\n".encode("latin-1")).startswith(f"{FILE}:2:1: error: not UTF-8")

    @pytest.mark.parametrize("text", [GOOD, GOOD + GOOD.rstrip("\n"), GOOD + "# end", GOOD + "# en\n", "", "# end\n" + GOOD])
    def test_a_file_that_was_cut_wherever_it_was(self, text: str) -> None:
        """Also between two lines, which would leave a deny out."""
        assert "may have been cut" in refused(text.encode())

    def test_only_comments(self) -> None:
        assert "no rules" in refused("# nothing\n")

    def test_no_files(self) -> None:
        assert "no rules" in str(read_rules({})[1][0])

    @pytest.mark.parametrize("name", ["policy.d/30-shop.cvs", "policy.d/README", "roles.d/a.csv.bak", "tests/x.csv", "policy.d/a b.csv"])
    def test_a_file_that_would_never_be_read(self, tmp_path: Path, name: str) -> None:
        folder = make_policy(tmp_path, GOOD)
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(GOOD, "utf-8")
        with pytest.raises(BadRequestError, match="would never be read"):
            read_files(folder)

    def test_what_editors_leave_is_no_rule(self, tmp_path: Path) -> None:
        folder = make_policy(tmp_path, GOOD)
        for name in (".50-test.csv.swp", "50-test.csv~"):
            (folder / "policy.d" / name).write_text("p, app:evil, **, *, allow\n# end\n", "utf-8")
        assert [rule.subject for rule in read(folder).rules] == ["app:shop"]

    def test_a_missing_model(self, tmp_path: Path) -> None:
        make_policy(tmp_path, GOOD)
        (tmp_path / "model.conf").unlink()
        with pytest.raises(PolicyError, match=r"model\.conf:1:1: error: missing"):
            load_policy(tmp_path)

    def test_an_edited_model(self, tmp_path: Path) -> None:
        make_policy(tmp_path, GOOD)
        model = tmp_path / "model.conf"
        model.write_text(model.read_text("utf-8").replace(" && !some(where (p.eft == deny))", ""), "utf-8")
        with pytest.raises(PolicyError, match=r"model\.conf"):
            load_policy(tmp_path)


class TestWhatIsTaken:
    def test_spaces_comments_empty_lines_and_windows_ends(self, tmp_path: Path) -> None:
        make_policy(tmp_path, f"  # indented\r\n\r\n  p ,app:shop,  model/*,generate ,allow  \r\n{GOOD}")
        rules = read(tmp_path).rules
        assert [(rule.subject, rule.object, rule.action, rule.effect) for rule in rules] == [
            ("app:shop", "model/*", "generate", "allow")
        ] * 2
        assert str(rules[0]) == "p, app:shop, model/*, generate, allow (policy.d/50-test.csv:3)"

    def test_the_same_line_twice_is_one_rule_in_force(self, tmp_path: Path) -> None:
        policy = load_policy(make_policy(tmp_path, f"{GOOD}{GOOD}g, user:a, role:x\ng, user:a, role:x\n"))
        assert policy.allows("app:shop", "model/x", "generate")

    def test_files_in_the_order_of_their_names(self, tmp_path: Path) -> None:
        make_policy(tmp_path, GOOD)
        (tmp_path / "policy.d" / "10-first.csv").write_text("p, app:first, model/*, generate, allow\n# end\n", "utf-8")
        assert [rule.subject for rule in read(tmp_path).rules] == ["app:first", "app:shop"]

    def test_the_hash_is_over_names_and_bytes(self) -> None:
        texts = [GOOD, GOOD + "# a comment\n", GOOD.replace("allow", "deny")]
        files = [{FILE: text.encode()} for text in texts] + [{"policy.d/51-test.csv": GOOD.encode()}]
        assert len({hash_files(entry) for entry in files}) == len(files)
        assert hash_files(dict(files[0])) == hash_files(files[0])

    def test_nothing_slips_from_one_file_into_the_next(self) -> None:
        assert hash_files({"a": b"x", "b": b""}) != hash_files({"a": b"", "b": b"x"})
        assert hash_files({"a": b"b\0", "c": b""}) != hash_files({"a": b"", "b\0c": b""})
