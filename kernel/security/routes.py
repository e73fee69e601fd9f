"""Where labels would go, as far as that can be told of a call that nobody makes: for explanations and tests of policies.

Whoever carries a label must be one whom it may reach; and what a call takes away must be let go where the object says that it goes. What
only the running kernel knows is left out: who receives the mail to an agent, who serves a tool, whether it is offered as privileged.
"""

from collections.abc import Sequence
from typing import NamedTuple

from kernos.syscalls.policy import FlowExplanation, Flowing

from .flows import Flow, FlowRules
from .index import Index
from .policy import Policy


class Route(NamedTuple):
    """A sink by all the paths that it goes by, the first of them its own."""

    name: str
    paths: tuple[str, ...]
    own: bool
    """It stays with its owner."""


def to_principal(index: Index, principal: str, *, own: bool) -> Route:
    """What a principal reads, as itself and by its roles."""
    paths = tuple(f"principal/{name}" for name in index.names(principal))
    return Route(paths[0], paths, own)


def routes(index: Index, subject: str, object_: str, action: str, *, privileged: bool = False) -> list[Route]:
    """Where labels go if a subject that carries them does this: to the subject itself, and where it takes them."""
    found = [to_principal(index, subject, own=True)]
    head, _, rest = object_.partition("/")
    if head == "tool" and action == "call":
        name, paths = (f"privileged/{rest}", (object_, f"privileged/{rest}")) if privileged else (object_, (object_,))
        found.append(Route(name, paths, False))
    elif object_.startswith(("message/queue/", "message/topic/")) and action == "send":
        found.append(Route(object_, (object_,), False))
    elif head in ("context", "principal") and ":" in rest:  # somebody else's, or on their behalf
        found.append(to_principal(index, rest, own=rest == subject))
    return found


def judge(rules: FlowRules, label: str, route: Route) -> tuple[Flowing, Flow | None]:
    """What the law says of a label on a route, and the line that says so."""
    if label not in rules.labels:
        return "own", None
    ruling = rules.decide(label, route.paths)
    return ruling.effect, ruling.flow


def passes(effect: Flowing, route: Route) -> bool:
    """Whether it may go without anybody's consent."""
    return effect == "allow" or (effect == "own" and route.own)


def explain_flows(policy: Policy, subject: str, object_: str, action: str, labels: Sequence[str]) -> list[FlowExplanation]:
    """Each label on each route; one that is judged otherwise where the tool is offered as privileged has that route too."""
    plain, marked = (routes(policy.index, subject, object_, action, privileged=privileged) for privileged in (False, True))
    found = []
    for label in labels:
        others = [two for one, two in zip(plain, marked, strict=True) if judge(policy.flows, label, one) != judge(policy.flows, label, two)]
        found += _explain(policy.flows, label, [*plain, *others])
    return found


def _explain(rules: FlowRules, label: str, taken: list[Route]) -> list[FlowExplanation]:
    """One label on all routes. If it stays with its owner so far, and shall go further, its owner needs a line from then on too."""
    judged = [(route, *judge(rules, label, route)) for route in taken]
    stopped = any(not passes(effect, route) for route, effect, _ in judged)
    found = []
    for route, effect, flow in judged:
        missing = flow is None and stopped
        line = f"flow, {label}, {route.paths[0]}, allow" if missing else ""
        found.append(FlowExplanation(label, route.name, effect, passes(effect, route), str(flow or ""), line))
    return found
