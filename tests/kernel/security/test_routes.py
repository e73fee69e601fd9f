"""Explanations of flows, and in which flows two policies differ."""

from collections.abc import Sequence
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernos.kernel.security.explain import why
from kernos.kernel.security.flow_changes import flow_changes
from kernos.kernel.security.flows import EFFECTS
from kernos.kernel.security.patterns import match_path
from kernos.kernel.security.policy import Policy, read_policy
from kernos.kernel.security.review import compare, review
from kernos.kernel.security.routes import Route, judge, to_principal
from kernos.kernel.security.score import score
from kernos.syscalls.policy import FlowChange
from kernos.syscalls.sources import Files
from tests.kernel.fakes import examples
from tests.kernel.security.test_compare import LAW, files_of, policy

BASE = LAW + "g, user:carla, role:clinician\n"
FLOWS = [
    "flow, phi, principal/role:clinician, allow",
    "flow, phi, tool/medical/**, allow",
    "flow, u, **, allow",
    "flow, u, privileged/**, approve",
]


def files(text: str = BASE, lines: Sequence[str] = FLOWS) -> Files:
    return {**files_of(text), "flows.csv": "\n".join([*lines, "# end", ""]).encode()}


def law(text: str = BASE, lines: Sequence[str] = FLOWS) -> Policy:
    found, findings = read_policy(files(text, lines))
    assert findings == []
    return found


def flows_of(subject: str, object_: str, action: str, *labels: str) -> list[tuple[str, str, str, bool]]:
    return [(flow.label, flow.sink, flow.effect, flow.passes) for flow in why(law(), subject, object_, action, labels).flows]


class TestWhy:
    def test_who_carries_it_and_where_it_goes(self) -> None:
        assert flows_of("user:carla", "tool/medical/record", "call", "phi") == [
            ("phi", "principal/user:carla", "allow", True),
            ("phi", "tool/medical/record", "allow", True),
        ]
        assert flows_of("user:bob", "message/queue/press", "send", "phi") == [
            ("phi", "principal/user:bob", "deny", False),
            ("phi", "message/queue/press", "deny", False),
        ]

    def test_a_privileged_tool_is_told_where_it_makes_a_difference(self) -> None:
        assert flows_of("user:carla", "tool/shop/pay", "call", "phi", "u") == [
            ("phi", "principal/user:carla", "allow", True),
            ("phi", "tool/shop/pay", "deny", False),
            ("u", "principal/user:carla", "allow", True),
            ("u", "tool/shop/pay", "allow", True),
            ("u", "privileged/shop/pay", "approve", False),
        ]

    def test_what_goes_to_somebody_else(self) -> None:
        assert flows_of("app:shop", "context/user:bob", "append", "phi")[1] == ("phi", "principal/user:bob", "deny", False)
        assert flows_of("app:shop", "principal/user:carla", "represent", "phi")[1] == ("phi", "principal/user:carla", "allow", True)
        assert len(flows_of("app:shop", "context/own", "append", "phi")) == 1
        assert len(flows_of("app:shop", "model/small", "generate", "phi")) == 1

    def test_a_label_that_no_line_names_stays_with_its_owner(self) -> None:
        assert flows_of("app:shop", "tool/shop/pay", "call", "ph1") == [
            ("ph1", "principal/app:shop", "own", True),
            ("ph1", "tool/shop/pay", "own", False),
        ]

    def test_the_line_that_decides_and_the_one_that_is_missing(self) -> None:
        (reader, tool) = why(law(), "user:bob", "tool/medical/record", "call", ["phi"]).flows
        assert (reader.rule, reader.line) == ("", "flow, phi, principal/user:bob, allow")
        assert (tool.rule, tool.line) == ("flow, phi, tool/medical/**, allow (flows.csv:2)", "")

    @pytest.mark.parametrize("object_", ["tool/shop/pay", "message/queue/press", "message/topic/news", "context/user:dan"])
    @pytest.mark.parametrize("label", ["phi", "ph1"])
    def test_the_missing_lines_let_it_go(self, object_: str, label: str) -> None:
        action = {"tool": "call", "message": "send", "context": "append"}[object_.partition("/")[0]]
        before = why(law(), "user:bob", object_, action, [label]).flows
        lines = [flow.line for flow in before if flow.line]
        assert lines
        assert all(flow.passes for flow in why(law(lines=[*FLOWS, *lines]), "user:bob", object_, action, [label]).flows)

    def test_no_line_is_offered_where_one_would_not_do(self) -> None:
        strict = [*FLOWS, "flow, u, tool/shop/**, deny"]
        for flow in why(law(lines=strict), "app:shop", "tool/shop/pay", "call", ["u"]).flows[1:]:
            assert (flow.effect, flow.line) == ("deny", "")
            assert flow.rule.endswith("(flows.csv:5)")


def changed(old: Sequence[str], new: Sequence[str], text: str = BASE) -> set[str]:
    return {told(change) for change in flow_changes(law(lines=old), law(text, new))}


def told(change: FlowChange) -> str:
    return f"{'+' if change.wider else '-'} {change.label} {change.place}: {change.before} > {change.after}"


class TestChanges:
    def test_the_same_in_other_words(self) -> None:
        assert changed(FLOWS, ["flow, u, privileged/*/**, approve", *reversed(FLOWS)]) == set()

    def test_a_tool_more_and_one_less(self) -> None:
        new = [*FLOWS[:1], "flow, phi, tool/shop/mail, allow", *FLOWS[2:]]
        found = changed(FLOWS, new)
        assert "+ phi tool/shop/mail: deny > allow" in found
        assert {line for line in found if line[0] == "-" and "tool/medical/**" in line} == {"- phi tool/medical/**: allow > deny"}

    def test_a_role_is_a_clearance(self) -> None:
        assert changed(FLOWS, FLOWS, BASE + "g, user:bob, role:clinician\n") == {"+ phi principal/user:bob: deny > allow"}

    def test_a_label_that_is_named_from_now_on(self) -> None:
        found = changed(FLOWS, [*FLOWS, "flow, new, tool/shop/*, allow"])
        assert "+ new tool/shop/*: own > allow" in found
        assert "- new principal/user:bob: own > deny" in found or "- new principal/user:*: own > deny" in found

    def test_a_source_that_is_gone_is_a_way_in(self) -> None:
        sources = ["source, tool/web/**, u", "source, model/leaky, phi"]
        assert changed([*FLOWS, *sources], [*FLOWS, sources[1]]) == {"+ u tool/web/**: carried > plain", "+ u tool/web: carried > plain"}
        assert changed(FLOWS, [*FLOWS, sources[1]]) == {"- phi model/leaky: plain > carried"}

    def test_wider_ones_come_first_and_are_part_of_a_comparison_and_of_a_review(self) -> None:
        new = [FLOWS[0], "flow, phi, message/queue/press, allow", *FLOWS[2:]]
        found = compare(files(), files(lines=new))
        assert found.changes == []
        assert [flow.wider for flow in found.flows] == sorted((flow.wider for flow in found.flows), reverse=True)
        shown = {told(flow) for flow in found.flows}
        assert {"+ phi message/queue/press: deny > allow", "- phi tool/medical/**: allow > deny"} <= shown
        _, seen = review(files(lines=new), law(), ("admin:root",))
        assert seen.flows == found.flows
        assert seen.sound

    def test_who_may_not_do_everything_clears_nobody_by_a_role(self) -> None:
        found = review(files(BASE + "g, user:bob, role:clinician\n"), law(), ("user:carla",))[1]
        assert ["where `phi` goes (principal/user:bob)" in finding.text for finding in found.findings if finding.severity == "error"] == [
            True
        ]
        assert review(files(BASE + "g, user:bob, role:clinician\n"), law(), ("admin:root",))[1].sound


SINKS = (
    "**",
    "tool/x",
    "tool/*",
    "tool/x/**",
    "tool/**",
    "privileged/**",
    "privileged/x",
    "message/**",
    "message/queue/*",
    "message/queue/q",
)
READERS = ("principal/app:shop", "principal/user:*", "principal/role:clinician")
some_lines = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from(SINKS + READERS), st.sampled_from(list(EFFECTS))).filter(
        lambda line: not (line[1].startswith("principal/") and line[2] == "approve")
    ),
    max_size=5,
).map(lambda lines: [f"flow, {', '.join(line)}" for line in lines])


@examples(150)
@given(some_lines, some_lines)
def test_every_difference_is_found_and_nothing_else(old: list[str], new: list[str]) -> None:
    """Against asking both policies for every small place."""
    before, after = law(lines=old), law(lines=new)
    found = flow_changes(before, after)
    for label, route in product("abc", every_route(before)):
        was, is_ = judge(before.flows, label, route)[0], judge(after.flows, label, route)[0]
        about = [change for change in found if change.label == label and covers(change.place, route.name)]
        assert (was == is_) == ((was, is_) not in {(change.before, change.after) for change in about}), (label, route, about)


def every_route(policy_: Policy) -> list[Route]:
    boxes = [Route(name, (name,), False) for name in ("message/queue/q", "message/queue/z", "message/topic/q")]
    tools = ("x", "z", "x/y", "z/y", "x/y/z")
    plain = [Route(f"tool/{name}", (f"tool/{name}",), False) for name in tools]
    marked = [Route(f"privileged/{name}", (f"tool/{name}", f"privileged/{name}"), False) for name in tools]
    return [*boxes, *plain, *marked, *(to_principal(policy_.index, name, own=True) for name in ("app:shop", "user:carla", "admin:root"))]


def covers(place: str, name: str) -> bool:
    return match_path(name, place)


def test_the_score_tells_what_labels_may_reach_somebody() -> None:
    found = {entry.subject: entry.labels for entry in score(law()).exposures}
    assert found["user:carla"] == ["phi", "u"]
    assert found["app:shop"] == found["user:*"] == ["u"]


def test_policies_without_flows_of_their_own_have_those_that_ship() -> None:
    assert flow_changes(policy(LAW), policy(LAW)) == []
    assert {change.label for change in flow_changes(policy(LAW), law(LAW, ["flow, phi, **, allow"]))} == {"phi", "untrusted"}
