"""`flows.csv`: every slip is found, with its line, and the strictest line counts."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernos.kernel.security.flows import EFFECTS, read_flows
from kernos.kernel.security.patterns import match_path
from kernos.kernel.security.policy import load_policy
from kernos.kernel.security.rules import PolicyError
from kernos.syscalls.sources import FLOWS
from tests.kernel.fakes import OPEN_POLICY, examples, make_policy


def flows(*lines: str) -> bytes:
    return "\n".join((*lines, "# end", "")).encode()


def decide(lines: Sequence[str], label: str, *sinks: str) -> str:
    rules, findings = read_flows({FLOWS: flows(*lines)})
    assert findings == []
    return rules.decide(label, sinks).effect


def test_a_label_that_is_named_goes_where_a_line_says_and_nowhere_else() -> None:
    lines = ["flow, phi, tool/medical_qa/**, allow", "flow, phi, principal/role:clinician, allow"]
    assert decide(lines, "phi", "tool/medical_qa/record") == "allow"
    assert decide(lines, "phi", "principal/user:carla", "principal/role:clinician", "principal/user:*") == "allow"
    assert decide(lines, "phi", "tool/other/post") == "deny"
    assert decide(lines, "other", "tool/medical_qa/record") == "deny"


def test_the_strictest_line_counts() -> None:
    lines = ["flow, u, **, allow", "flow, u, privileged/**, approve", "flow, u, tool/bank/*, deny"]
    assert decide(lines, "u", "tool/shop/mail") == "allow"
    assert decide(lines, "u", "tool/shop/mail", "privileged/shop/mail") == "approve"
    assert decide(lines, "u", "tool/bank/pay", "privileged/bank/pay") == "deny"


lines_of = st.lists(
    st.tuples(
        st.sampled_from("ab"),
        st.sampled_from(["**", "tool/x", "tool/*", "tool/**", "message/**", "message/queue/q", "principal/user:*"]),
        st.sampled_from(list(EFFECTS)).filter(lambda effect: effect != "approve"),
    ),
    min_size=1,
    max_size=6,
)


@examples(200)
@given(lines_of, st.sampled_from("abc"), st.sampled_from(["tool/x", "tool/x/y", "message/queue/q", "principal/user:*"]))
def test_decisions_are_those_of_all_matching_lines(lines: list[tuple[str, str, str]], label: str, sink: str) -> None:
    found = {effect for name, pattern, effect in lines if name == label and match_path(sink, pattern)}
    expected = "deny" if not found or "deny" in found else "allow"
    assert decide([f"flow, {', '.join(line)}" for line in lines], label, sink) == expected


def test_what_comes_from_a_source_carries_its_label() -> None:
    rules, findings = read_flows({FLOWS: flows("flow, u, **, allow", "source, tool/web/**, u", "source, model/leaky, u")})
    assert findings == []
    assert rules.given("tool/web/fetch") == rules.given("model/leaky") == {"u"}
    assert rules.given("tool/shop/order") == set()


@pytest.mark.parametrize(
    ("line", "column", "text"),
    [
        ("flow, phi, tool/x, Allow", 20, "`Allow`"),
        ("flow, phi, tool/x, alow", 20, "`alow`"),
        ("flow, phi, tool/x, allow # why", 20, "effect"),
        ("flow, phi!, tool/x, allow", 7, "not a label"),
        ("flow, phi, tools/x, allow", 12, "not a sink"),
        ("flow, phi, tool//x, allow", 12, "not a sink"),
        ("flow, phi, tool/**/x, allow", 12, "not a sink"),
        ("flow, phi, principal/carla, allow", 12, "not a sink"),
        ("flow, phi, principal/role:clinician, approve", 38, "who reads"),
        ("flow, phi, tool/x", 1, "expected"),
        ("flow, phi, tool/x, allow, allow", 1, "expected"),
        ("Flow, phi, tool/x, allow", 1, "expected"),
        ("p, app:x, tool/x, call, allow", 1, "expected"),
        ("source, user:x, phi", 9, "not a source"),
        ("source, tool/x, ph1", 1, "Misspelt"),
        ("flow, phi, tool/x, allow\u2028", 25, "breaks the line"),
    ],
)
def test_a_slip_is_found_with_its_line_and_column(line: str, column: int, text: str) -> None:
    _, findings = read_flows({FLOWS: flows("# a comment", line)})
    (found,) = findings
    assert (found.file, found.line, found.severity) == (FLOWS, 2, "error")
    assert found.column == column
    assert text in found.text


@pytest.mark.parametrize("data", [b"flow, phi, tool/x, allow\n", b"\xef\xbb\xbf# end\n", b"# end", b"\xff\n# end\n", b""])
def test_a_file_that_was_cut_or_is_no_plain_text_is_refused(data: bytes) -> None:
    assert read_flows({FLOWS: data})[1] != []


def test_a_policy_with_a_slip_in_its_flows_is_refused_and_its_hash_covers_them(tmp_path: Path) -> None:
    folder = make_policy(tmp_path / "law", OPEN_POLICY)
    without = load_policy(folder)
    assert without.flows.labels == {"phi", "untrusted"}, "the flows that ship"
    (folder / FLOWS).write_bytes(flows("flow, phi, tool/x, allow"))
    assert load_policy(folder).hash != without.hash
    (folder / FLOWS).write_bytes(flows("flow, phi, tool/x, permit"))
    with pytest.raises(PolicyError, match=r"flows\.csv:1:20"):
        load_policy(folder)
