"""What `check` says about lines that are sound by themselves: rules and flows that never count, roles that lead nowhere."""

from collections.abc import Sequence
from itertools import pairwise, product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernos.kernel.security.flows import EFFECTS
from kernos.kernel.security.lint import ROLE_DEPTH
from kernos.kernel.security.policy import Policy, read_policy
from kernos.kernel.security.review import review
from kernos.syscalls.policy import Finding
from kernos.syscalls.sources import Files, read_files
from tests.kernel.fakes import examples
from tests.kernel.security.test_compare import files_of

SHIPPED = read_files(Path(__file__).parents[3] / "policies")
RULE = "p, app:shop, model/*, generate, allow\n"
NO_FLOWS = {"flows.csv": b"# end\n"}


def found(files: Files, *, severity: str = "") -> list[Finding]:
    _, seen = review(files)
    return [finding for finding in seen.findings if not severity or finding.severity == severity]


def said(text: str, severity: str) -> list[tuple[int, str]]:
    """Lines and texts of what is said about these rules."""
    return [
        (finding.line, finding.text)
        for finding in found({**files_of(text), **NO_FLOWS}, severity=severity)
        if finding.file.endswith("1.csv")
    ]


def flows(lines: Sequence[str]) -> Files:
    return {**files_of(RULE), "flows.csv": "\n".join([*lines, "# end", ""]).encode()}


class TestRules:
    @pytest.mark.parametrize(
        ("text", "line", "says"),
        [
            (RULE + RULE, 2, "says the same as policy.d/1.csv:1"),
            (RULE + "p, app:shop, model/small, generate, allow\n", 2, "says it already"),
            (RULE + "p, app:shop, model/*, *, deny\n", 1, "denies all of it"),
            (RULE + "p, app:shop, **, *, deny\n", 1, "denies all of it"),
            (RULE + "p, app:*, **, read, allow\n", 2, "everything there is"),
            (RULE + "p, role:a, model/*, *, allow\ng, app:b, role:a\ng, app:b, role:a\n", 4, "says the same"),
            (RULE + "p, app:shop, label/phj, declassify, allow\n", 2, "Misspelt?"),
        ],
    )
    def test_a_rule_that_never_counts_is_a_warning(self, text: str, line: int, says: str) -> None:
        ((at, told),) = said(text, "warning")
        assert (at, says in told) == (line, True)

    @pytest.mark.parametrize(
        ("text", "lines"),
        [
            (RULE + "g, app:shop, role:nothing\n", [2]),
            (RULE + "p, role:a, model/*, *, allow\ng, role:a, role:b\ng, role:b, role:a\n", [3, 4]),
            (RULE + "p, role:a, model/*, *, allow\ng, role:a, role:a\n", [3]),
        ],
    )
    def test_a_role_that_leads_nowhere_or_in_a_circle_is_an_error(self, text: str, lines: list[int]) -> None:
        assert [line for line, _ in said(text, "error")] == lines

    @pytest.mark.parametrize("depth", [ROLE_DEPTH, ROLE_DEPTH + 1])
    def test_a_chain_of_roles_is_as_long_as_casbin_follows(self, depth: int) -> None:
        chain = ["app:shop", *(f"role:r{number}" for number in range(depth))]
        text = RULE + f"p, {chain[-1]}, model/*, *, deny\n" + "".join(f"g, {one}, {two}\n" for one, two in pairwise(chain))
        assert [line for line, _ in said(text, "error")] == ([3] if depth > ROLE_DEPTH else [])

    def test_a_role_that_nobody_has_is_a_note(self) -> None:
        assert [line for line, _ in said(RULE + "p, role:seller, model/*, generate, allow\n", "note")] == [2]

    def test_what_is_only_in_part_said_elsewhere_counts(self) -> None:
        text = RULE + "p, app:shop, model/small, generate, deny\np, app:shop, store/*, read, allow\np, app:shop, store/a/*, read, allow\n"
        assert said(text, "warning") == []


class TestFlows:
    @pytest.mark.parametrize(
        ("lines", "line", "says"),
        [
            (["flow, u, tool/x, allow", "flow, u, tool/x, allow"], 2, "says the same as flows.csv:1"),
            (["source, tool/x, u", "flow, u, **, allow", "source, tool/x, u"], 3, "says the same as flows.csv:1"),
            (["flow, u, tool/x, allow", "flow, u, tool/*, allow"], 1, "flow, u, tool/*, allow (flows.csv:2) says it already"),
            (["flow, u, tool/x, allow", "flow, u, **, deny"], 1, "is stricter on all of it"),
            (["flow, u, tool/x/**, approve", "flow, u, tool/**, deny"], 1, "is stricter on all of it"),
            (["flow, u, tool/x, allow", "flow, u, tool/x, deny"], 1, "is stricter on all of it"),
        ],
    )
    def test_a_line_that_never_counts_is_a_warning(self, lines: list[str], line: int, says: str) -> None:
        (finding,) = found(flows(lines), severity="warning")
        assert (finding.file, finding.line) == ("flows.csv", line)
        assert says in finding.text

    def test_lines_that_count_are_not_found(self) -> None:
        lines = ["flow, u, **, allow", "flow, u, privileged/**, approve", "flow, u, tool/x, deny", "flow, v, tool/x, allow"]
        assert found(flows(lines), severity="warning") == []

    def test_a_reader_whose_role_nobody_has_is_a_note(self) -> None:
        lines = ["flow, phi, principal/role:clinician, allow"]
        noted = [finding for finding in found(flows(lines), severity="note") if finding.file == "flows.csv"]
        assert [(finding.line, "nobody has the role `role:clinician`" in finding.text) for finding in noted] == [(1, True)]

    def test_a_role_that_only_clears_its_members_is_one(self) -> None:
        """To give a user the role of clinicians is all that the shipped policy asks for."""
        assert found({**SHIPPED, "roles.d/50-ward.csv": b"g, user:carla, role:clinician\n# end\n"}, severity="error") == []


some = st.lists(
    st.tuples(st.sampled_from(["**", "tool/**", "tool/*", "tool/x", "privileged/**", "privileged/x"]), st.sampled_from(list(EFFECTS))),
    min_size=1,
    max_size=5,
    unique=True,
)


@examples(150)
@given(some)
def test_a_line_is_found_only_if_without_it_everything_is_decided_alike(chosen: list[tuple[str, str]]) -> None:
    lines = [f"flow, u, {sink}, {effect}" for sink, effect in chosen]
    whole = read(lines)
    for finding in found(flows(lines), severity="warning"):
        without = read([line for number, line in enumerate(lines, 1) if number != finding.line])
        for name, privileged in product(("x", "z", "z/z"), (False, True)):
            paths = (f"tool/{name}", f"privileged/{name}") if privileged else (f"tool/{name}",)
            assert whole.flows.decide("u", paths).effect == without.flows.decide("u", paths).effect


def read(lines: Sequence[str]) -> Policy:
    policy, findings = read_policy(flows(lines))
    assert findings == []
    return policy


def test_what_ships_has_no_warnings() -> None:
    assert {finding.severity for finding in found(SHIPPED)} <= {"note"}
