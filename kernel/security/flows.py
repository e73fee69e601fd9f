"""`flows.csv`: where what carries a label may go, and what carries one from the start. Part of the law, and read as strictly.

A line is `flow, label, sink, allow|approve|deny` or `source, where, label`. Sinks and sources are paths, with patterns as in rules:

* `principal/NAME`: agents of or for that principal, its contexts and files, and what is shared with it; NAME can be a role or a kind;
* `tool/NAME`: calls of a tool; `privileged/NAME`: calls of it while it is offered as privileged;
* `message/queue/NAME` and `message/topic/NAME`.

Of the lines that match, the strictest counts: `deny` before `approve` before `allow`. A label that some line names goes nowhere else. One
that no line names stays with its owner: it is most likely misspelt, and a leak would be worse than a refusal that says which line is
missing. `approve` lets a call through that somebody has consented to; it does not stop an agent from reading. A folder without the file
has the flows that Kernos is shipped with.

After Bell and LaPadula's confinement property and the flow control of Flume and Asbestos: labels rise with what is read, and are checked
where something leaves.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Final, Literal

from kernos.syscalls.policy import Finding
from kernos.syscalls.sources import FLOWS as FILE
from kernos.syscalls.sources import Files

from ..limits import DECISIONS
from .patterns import match_path
from .rules import Field, Place, read_lines

Effect = Literal["allow", "approve", "deny"]

EFFECTS: Final[dict[str, Effect]] = {"allow": "allow", "approve": "approve", "deny": "deny"}
"""From the weakest to the strictest."""

_LABEL: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}\Z")
_NAME: Final = r"(\*|[A-Za-z0-9_][A-Za-z0-9_.-]*)"
_PATH: Final = rf"(\*\*|{_NAME}(/{_NAME})*(/\*\*)?)"
_WHO: Final = r"(\*|role:[A-Za-z0-9_][A-Za-z0-9_.@-]*|(user|app|agent|device|admin):(\*|[A-Za-z0-9_][A-Za-z0-9_.@-]*))"
_SINK: Final = re.compile(rf"(\*\*|principal/{_WHO}|(tool|privileged)/{_PATH}|message/(queue|topic)/{_NAME}|message/\*\*)\Z")
_SOURCE: Final = re.compile(rf"(tool/{_PATH}|model/{_NAME}|message/queue/{_NAME})\Z")
_EXPECTED: Final = "expected `flow, label, sink, allow|approve|deny` or `source, where, label`"


@dataclass(frozen=True)
class Flow:
    """A `flow` line and where it stands."""

    label: str
    sink: str
    effect: Effect
    place: Place

    @property
    def says(self) -> tuple[str, ...]:
        """The line, field by field."""
        return ("flow", self.label, self.sink, self.effect)

    @property
    def text(self) -> str:
        """The line as one would write it."""
        return ", ".join(self.says)

    def __str__(self) -> str:
        return f"{self.text} ({self.place})"


@dataclass(frozen=True)
class Source:
    """A `source` line: what comes from there carries the label."""

    where: str
    label: str
    place: Place

    @property
    def says(self) -> tuple[str, ...]:
        """The line, field by field."""
        return ("source", self.where, self.label)


@dataclass(frozen=True)
class Ruling:
    """Whether a label may reach a sink, and the line that says so; None: no line does."""

    effect: Effect
    flow: Flow | None


@dataclass(frozen=True)
class FlowRules:
    """What the file says. Immutable; what it remembers is only a shortcut."""

    flows: tuple[Flow, ...] = ()
    sources: tuple[Source, ...] = ()
    labels: frozenset[str] = frozenset()
    """That some line lets flow, or keeps from it; all others stay with their owners."""
    _rulings: dict[tuple[str, tuple[str, ...]], Ruling] = field(default_factory=dict, compare=False, repr=False)

    def decide(self, label: str, sinks: tuple[str, ...]) -> Ruling:
        """Whether a label may reach a sink that goes by these paths; the strictest line of all that match one of them."""
        ruling = self._rulings.get((label, sinks))
        if ruling is None:
            found = [flow for flow in self.flows if flow.label == label and any(match_path(sink, flow.sink) for sink in sinks)]
            strictest = max(found, key=lambda flow: list(EFFECTS).index(flow.effect), default=None)
            ruling = Ruling(strictest.effect if strictest else "deny", strictest)
            if len(self._rulings) >= DECISIONS:
                self._rulings.clear()
            self._rulings[label, sinks] = ruling
        return ruling

    def given(self, where: str) -> frozenset[str]:
        """What carries labels because it comes from there."""
        return frozenset(source.label for source in self.sources if match_path(where, source.where))


NO_FLOWS: Final = FlowRules()
"""All labels stay with their owners."""


def read_flows(policy: Files) -> tuple[FlowRules, list[Finding]]:
    """The flows of a policy, and what is wrong with them."""
    data = policy[FILE] if FILE in policy else (files("kernos.policies") / FILE).read_bytes()
    flows: list[Flow] = []
    sources: list[Source] = []
    findings: list[Finding] = []
    for place, (kind, *fields) in read_lines(FILE, data, findings):
        if kind[0] == "flow" and len(fields) == 3:
            wrong = [*_expect(place, "label", fields[0], _LABEL), *_expect(place, "sink", fields[1], _SINK), *_effect(place, fields)]
            if not wrong:
                flows.append(Flow(fields[0][0], fields[1][0], EFFECTS[fields[2][0]], place))
        elif kind[0] == "source" and len(fields) == 2:
            wrong = [*_expect(place, "source", fields[0], _SOURCE), *_expect(place, "label", fields[1], _LABEL)]
            if not wrong:
                sources.append(Source(fields[0][0], fields[1][0], place))
        else:
            wrong = [place.finding(f"{_EXPECTED}, got `{', '.join(value for value, _ in (kind, *fields))}`.", kind[1])]
        findings += wrong
    labels = frozenset(flow.label for flow in flows)
    unknown = [source for source in sources if source.label not in labels]
    findings += [source.place.finding(f"no `flow` line is about the label `{source.label}`. Misspelt?") for source in unknown]
    return FlowRules(tuple(flows), tuple(sources), labels), findings


def _expect(place: Place, what: str, value: Field, pattern: re.Pattern[str]) -> Iterable[Finding]:
    if not pattern.match(value[0]):
        yield place.finding(f"`{value[0]}` is not a {what}. See policies/README.md for how one is written.", value[1])


def _effect(place: Place, fields: list[Field]) -> Iterable[Finding]:
    (sink, _), (effect, column) = fields[1:]
    if effect not in EFFECTS:
        yield place.finding(f"the effect is `{effect}`; it must be `allow`, `approve` or `deny`, in small letters.", column)
    elif effect == "approve" and sink.startswith("principal/"):
        yield place.finding("who reads is allowed or not; `approve` is for tools, queues and topics.", column)
