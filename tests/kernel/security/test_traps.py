"""Every way that is known in which Casbin lets somebody in whom a policy, as it is written, keeps out.

Each is applied to a running kernel: it is refused with the file and the line, `check` says the same, and the policy in force stays.
"""

from collections.abc import Callable

import pytest

from kernos.kernel.security.patterns import match_path
from kernos.kernel.security.policy import Policy
from kernos.syscalls.errors import DeniedError, PolicyRefusedError
from kernos.syscalls.policy import ApplyPolicy, CheckPolicy, FetchPolicy, GetPolicy
from kernos.syscalls.sources import Files
from kernos.syscalls.system import GetStatus, Ping
from tests.kernel.fakes import ADMIN, App, World, make_world

FILE = "policy.d/50-shop.csv"
DENY = "p, app:shop, system, ping, deny"
LAW = f"# The shop\n{DENY}\n# end\n".encode()
CHAIN = "".join(f"g, role:r{number}, role:r{number + 1}\n" for number in range(9))

Trap = tuple[Callable[[bytes], bytes], str]


def line(text: str) -> Callable[[bytes], bytes]:
    """The deny, written like this."""
    return lambda data: data.replace(DENY.encode(), text.encode())


RULES: dict[str, Trap] = {
    "a misspelt effect": (line("p, app:shop, system, ping, dney"), f"{FILE}:2:28"),
    "an effect in capitals": (line("p, app:shop, system, ping, Deny"), f"{FILE}:2:28"),
    "a comment behind the effect": (line(f"{DENY} # too many"), f"{FILE}:2:28"),
    "a kind of line in capitals": (line(DENY.replace("p,", "P,")), f"{FILE}:2:1"),
    "another policy type": (line(DENY.replace("p,", "p2,")), f"{FILE}:2:1"),
    "quotes": (line('p, "app:shop", system, ping, deny'), f"{FILE}:2:4"),
    "a field too few": (line("p, app:shop, system, deny"), f"{FILE}:2:1"),
    "a field too many": (line(f"{DENY}, deny"), f"{FILE}:2:1"),
    "a misspelt object": (line("p, app:shop, sytem, ping, deny"), f"{FILE}:2:14"),
    "a misspelt action": (line("p, app:shop, system, pign, deny"), f"{FILE}:2:22"),
    "a subject without its kind": (line("p, shop, system, ping, deny"), f"{FILE}:2:4"),
    "a star that is not last": (line("p, app:shop, store/**/x, read, deny"), f"{FILE}:2:14"),
    "a star inside a segment": (line("p, app:shop, sys*, ping, deny"), f"{FILE}:2:14"),
    "a way up": (line("p, app:shop, store/../x, read, deny"), f"{FILE}:2:14"),
    "a regular expression": (line("p, app:shop, store/(a+)+, read, deny"), f"{FILE}:2:14"),
    "a separator that some take for the end of the line": (line(f"# a comment\u2028{DENY}"), f"{FILE}:2:12"),
    "a byte-order mark": (lambda data: b"\xef\xbb\xbf" + data, f"{FILE}:1:1"),
    "another encoding": (lambda data: data.replace(b"The", b"Th\xe9"), f"{FILE}:1:1"),
    "a file that was cut at the end of a line": (lambda data: data.split(b"p,")[0], f"{FILE}:1:1"),
    "a file that was cut in a line": (lambda data: data[:30], f"{FILE}:1:1"),
    "an empty file": (lambda _: b"", f"{FILE}:1:1"),
    "a deny through a role that leads nowhere": (line("g, app:shop, role:muted"), f"{FILE}:2:1"),
    "a deny through roles in a circle": (line("g, role:a, role:b\ng, role:b, role:a\np, role:b, system, ping, deny"), f"{FILE}:2:1"),
    "a deny through ten roles": (line(f"g, app:shop, role:r0\n{CHAIN}p, role:r9, system, ping, deny"), f"{FILE}:2:1"),
}

FLOWS: dict[str, Trap] = {
    "a misspelt effect": (lambda data: data.replace(b"privileged/**, approve", b"privileged/**, aprove"), "flows.csv:12:33"),
    "an effect in capitals": (lambda data: data.replace(b"privileged/**, approve", b"privileged/**, Approve"), "flows.csv:12:33"),
    "a comment behind it": (lambda data: data.replace(b"**, approve", b"**, approve # by Carla"), "flows.csv:12:33"),
    "a misspelt sink": (lambda data: data.replace(b"privileged/**", b"priviledged/**"), "flows.csv:12:18"),
    "a misspelt label of a source": (lambda data: data.replace(b"mcp_bridge/**, untrusted", b"mcp_bridge/**, untrused"), "flows.csv:15:1"),
    "a file that was cut": (lambda data: data.split(b"# What other")[0], "flows.csv:13:1"),
}

OTHERS: dict[str, tuple[Callable[[Files], Files], str]] = {
    "an effect of the model that denies nothing": (
        lambda files: files | {"model.conf": files["model.conf"].replace(b" && !some(where (p.eft == deny))", b"")},
        "model.conf:1:1",
    ),
    "a matcher of the model that cannot be read": (
        lambda files: files | {"model.conf": files["model.conf"].replace(b"path(r.obj", b"paht(r.obj")},
        "model.conf:1:1",
    ),
    "a section of the model that is not closed": (
        lambda files: files | {"model.conf": files["model.conf"].replace(b"[matchers]", b"[matchers")},
        "model.conf:1:1",
    ),
    "no model": (lambda files: {name: data for name, data in files.items() if name != "model.conf"}, "model.conf:1:1"),
    "no rules": (lambda files: {name: data for name, data in files.items() if not name.startswith("policy.d/")}, "policy.d:0:1"),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A kernel under the shipped policy and a deny."""
    made = make_world(tmp_path_factory.mktemp("traps"), policy=None)
    root = made.connect(ADMIN)
    root.call(ApplyPolicy(files=root.call(FetchPolicy()).files | {FILE: LAW}, reason="the deny"))
    return made


def refused(world: World, change: Callable[[Files], Files], place: str) -> None:
    root = world.connect(ADMIN)
    before, files = root.call(GetPolicy()), root.call(FetchPolicy()).files
    draft = change(files)
    assert draft != files
    seen = root.call(CheckPolicy(files=draft))
    assert not seen.sound
    assert any(str(finding).startswith(place) and finding.severity == "error" for finding in seen.findings), seen.findings
    error = root.refused(ApplyPolicy(files=draft, reason="a trap"))
    assert isinstance(error, PolicyRefusedError)
    assert place.split(":")[0] in error.message
    after = root.call(GetPolicy())
    assert (after.hash, after.generation) == (before.hash, before.generation)
    assert place.split(":")[0] in after.alarm
    shop: App = world.connect("app:shop")
    assert isinstance(shop.refused(Ping()), DeniedError), "the deny holds"
    shop.call(GetStatus())


@pytest.mark.parametrize(("write", "place"), RULES.values(), ids=RULES.keys())
def test_a_deny_that_would_not_count(world: World, write: Callable[[bytes], bytes], place: str) -> None:
    refused(world, lambda files: files | {FILE: write(files[FILE])}, place)


@pytest.mark.parametrize(("write", "place"), FLOWS.values(), ids=FLOWS.keys())
def test_a_flow_that_would_not_count(world: World, write: Callable[[bytes], bytes], place: str) -> None:
    refused(world, lambda files: files | {"flows.csv": write(files["flows.csv"])}, place)


@pytest.mark.parametrize(("change", "place"), OTHERS.values(), ids=OTHERS.keys())
def test_a_policy_that_could_not_be_read_as_it_is_meant(world: World, change: Callable[[Files], Files], place: str) -> None:
    refused(world, change, place)


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("model/axb", "model/a.b"),
        ("model/a\n", "model/a"),
        ("model/ab", "model/a*"),
        ("model/a/b", "model/*"),
        ("modelx", "model/**"),
    ],
)
def test_what_matchers_of_casbin_take_for_the_same_is_not(path: str, pattern: str) -> None:
    assert not match_path(path, pattern)


def test_nobody_is_let_in_by_saying_nothing(world: World) -> None:
    policy: Policy = world.system.law.policy
    assert not any(
        policy.allows(subject, object_, action) for subject in ("", ":", "app:") for object_ in ("", "system") for action in ("", "*")
    )
