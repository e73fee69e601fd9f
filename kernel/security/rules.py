"""Policy files, read strictly. A file with anything that Casbin would silently ignore is refused whole, with file and line.

A line is `p, subject, object, action, allow|deny` or `g, member, role`; empty lines and lines that begin with `#` are left out.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from kernos.syscalls.table import TABLE

_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.@-]*"
_MEMBER = re.compile(rf"(role|user|app|agent|device|admin):{_NAME}\Z")
_SUBJECT = re.compile(rf"(role:{_NAME}|(user|app|agent|device|admin):({_NAME}|\*))\Z")
_ROLE = re.compile(rf"role:{_NAME}\Z")
_SEGMENT = r"(\*|[A-Za-z0-9_.:@-]+)"
_OBJECT = re.compile(rf"(\*\*|{_SEGMENT}(/{_SEGMENT})*(/\*\*)?)\Z")
_ACTION = re.compile(r"([a-z_]+|\*)\Z")

_BREAKS = re.compile("[\r\v\f\x1c-\x1e\x85\u2028\u2029]")
"""Where some programs break a line and others do not: a rule could hide behind one in a comment."""

_ACTIONS: dict[str, set[str]] = {}
"""The actions there are, by the first segment of the objects they are done to."""
for _row in TABLE:
    for _object, _action in _row.needs:
        _ACTIONS.setdefault(_object.partition("/")[0], set()).add(_action)

ROLE_DEPTH = 9
"""Casbin follows a chain of roles so far and no further."""


class PolicyError(Exception):
    """A policy file cannot be used; the message begins with `file:line`."""


@dataclass(frozen=True)
class Rule:
    """A `p` line and where it stands."""

    subject: str
    object: str
    action: str
    effect: str
    place: str

    def __str__(self) -> str:
        return f"p, {self.subject}, {self.object}, {self.action}, {self.effect} ({self.place})"


@dataclass(frozen=True)
class Rules:
    """What the files of a policy say, and the hash over their bytes."""

    rules: tuple[Rule, ...]
    roles: tuple[tuple[str, str], ...]
    hash: str


def read_rules(folder: Path) -> Rules:
    """All files of `policy.d` in the order of their names; `PolicyError` for the first thing that is not right."""
    rules: list[Rule] = []
    roles: list[tuple[str, str]] = []
    digest = hashlib.sha256()
    for file in sorted((folder / "policy.d").glob("*.csv")):
        data = file.read_bytes()
        digest.update(file.name.encode() + b"\0" + data + b"\0")
        _read_file(file, data, rules, roles)
    if not rules:
        raise PolicyError(f"{folder / 'policy.d'}: no rules. Nobody could do anything; restore the shipped policies.")
    _check_depth(folder, roles)
    return Rules(tuple(rules), tuple(roles), digest.hexdigest()[:16])


def _read_file(file: Path, data: bytes, rules: list[Rule], roles: list[tuple[str, str]]) -> None:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PolicyError(f"{file}:1: not UTF-8 ({error.reason} at byte {error.start}). Save the file as UTF-8.") from None
    lines = text.split("\n")
    if lines.pop() or not lines:
        raise PolicyError(f"{file.name}:{len(lines) + 1}: the last line has no end; the file may have been cut. End it with a line break.")
    for number, line in enumerate(lines, 1):
        if _BREAKS.search(line.removesuffix("\r")):
            raise PolicyError(f"{file.name}:{number}: a character in it breaks the line for some programs only. Retype the line.")
        if line.strip() and not line.lstrip().startswith("#"):
            _read_line(f"{file.name}:{number}", line, rules, roles)


def _read_line(place: str, line: str, rules: list[Rule], roles: list[tuple[str, str]]) -> None:
    kind, *fields = [field.strip() for field in line.split(",")]
    if kind == "p" and len(fields) == 4:
        subject, object_, action, effect = fields
        _expect(place, "subject", subject, _SUBJECT)
        _expect(place, "object", object_, _OBJECT)
        _expect(place, "action", action, _ACTION)
        _expect_known(place, object_, action)
        if effect not in ("allow", "deny"):
            raise PolicyError(f"{place}: the effect is `{effect}`; it must be `allow` or `deny`, in small letters.")
        rules.append(Rule(subject, object_, action, effect, place))
    elif kind == "g" and len(fields) == 2:
        _expect(place, "member", fields[0], _MEMBER)
        _expect(place, "role", fields[1], _ROLE)
        roles.append((fields[0], fields[1]))
    else:
        raise PolicyError(f"{place}: expected `p, subject, object, action, allow|deny` or `g, member, role`, got `{line.strip()}`.")


def _expect(place: str, what: str, value: str, pattern: re.Pattern[str]) -> None:
    if not pattern.match(value):
        raise PolicyError(f"{place}: `{value}` is not a {what}. See policies/README.md for how one is written.")


def _expect_known(place: str, object_: str, action: str) -> None:
    """A rule that no call ever asks about is a slip of the pen, and a `deny` of that kind denies nothing."""
    head = object_.partition("/")[0]
    known = set().union(*_ACTIONS.values()) if head in ("*", "**") else _ACTIONS.get(head)
    if known is None:
        raise PolicyError(f"{place}: no call is about `{object_}`. Objects begin with one of: {', '.join(sorted(_ACTIONS))}.")
    if action != "*" and action not in known:
        raise PolicyError(f"{place}: nothing does `{action}` to `{object_}`. There are: {', '.join(sorted(known))}.")


def _check_depth(folder: Path, roles: list[tuple[str, str]]) -> None:
    above: dict[str, set[str]] = {}
    for member, role in roles:
        above.setdefault(member, set()).add(role)
    for member in above:
        level, seen = {member}, {member}
        for _ in range(ROLE_DEPTH + 1):
            level = set().union(*(above.get(name, set()) for name in level)) - seen
            seen |= level
        if level:
            raise PolicyError(f"{folder / 'policy.d'}: {member} has roles of roles more than {ROLE_DEPTH} deep. Make the chain shorter.")
