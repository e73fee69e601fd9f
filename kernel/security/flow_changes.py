"""In which flows two policies differ: for every label, every principal and every other place that a line of either could be about.

Places are cut into kinds that no line tells apart, as in `compare.py`. Whom a label reaches depends on roles too, so that a new role can be
a new flow.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final

from kernos.syscalls.policy import FlowChange, Flowing

from .compare import subjects_of
from .flows import Flow, FlowRules
from .patterns import MANY, kinds_of_paths
from .policy import Policy
from .routes import Route, judge, to_principal

_WEAKEST_FIRST: Final[tuple[Flowing, ...]] = ("allow", "approve", "own", "deny")

_BOX: Final = re.compile(r"message/(queue|topic)/(?!\*\*)[^/]+\Z")
_TOOL: Final = re.compile(r"(tool|privileged)/")


def flow_changes(old: Policy, new: Policy) -> list[FlowChange]:
    """Every flow and every source that is other than before: first labels that may go further, then the others."""
    found = [*_sinks(old, new), *_sources(old.flows, new.flows)]
    return sorted(found, key=lambda change: not change.wider)


def _sinks(old: Policy, new: Policy) -> Iterator[FlowChange]:
    labels = sorted(old.flows.labels | new.flows.labels)
    places = [(route, route) for route in _places((*old.flows.flows, *new.flows.flows))] if old.flows != new.flows else []
    for before, after in [*places, *_readers(old, new)]:
        for label in labels:
            (was, _), (is_, flow) = judge(old.flows, label, before), judge(new.flows, label, after)
            if was != is_:
                wider = _WEAKEST_FIRST.index(is_) < _WEAKEST_FIRST.index(was)
                yield FlowChange(label, before.name, was, is_, wider, str(flow or ""))


def _readers(old: Policy, new: Policy) -> Iterator[tuple[Route, Route]]:
    """Every principal, by the roles that it has in each of the two."""
    named = {flow.sink.removeprefix("principal/") for rules in (old.flows, new.flows) for flow in rules.flows}
    plain = {name for name in named if ":" in name and not name.startswith("role:")}
    for subject in sorted({*subjects_of(old, new), *plain}):
        yield to_principal(old.index, subject, own=True), to_principal(new.index, subject, own=True)


def _places(flows: Iterable[Flow]) -> Iterator[Route]:
    """One of each kind of queue, topic, tool and privileged tool."""
    sinks = dict.fromkeys(flow.sink for flow in flows)
    boxes = ["message/queue/*", "message/topic/*", *(sink for sink in sinks if sink.startswith("message/"))]
    yield from (Route(path, (path,), False) for path in kinds_of_paths(boxes) if _BOX.match(path))
    tools = [MANY, *(_TOOL.sub("", sink) for sink in sinks if _TOOL.match(sink))]
    for name in kinds_of_paths(tools):
        yield Route(f"tool/{name}", (f"tool/{name}",), False)
        yield Route(f"privileged/{name}", (f"tool/{name}", f"privileged/{name}"), False)


def _sources(old: FlowRules, new: FlowRules) -> Iterator[FlowChange]:
    lines = {(source.where, source.label): source for source in (*new.sources, *old.sources)}
    for where in kinds_of_paths(where for where, _ in lines):
        before, after = old.given(where), new.given(where)
        for label in sorted(before ^ after):
            gone = label in before
            yield FlowChange(label, where, "carried" if gone else "plain", "plain" if gone else "carried", gone, "")
