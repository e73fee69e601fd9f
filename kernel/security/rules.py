"""Policy files, read strictly. A file with anything that Casbin would silently ignore is refused whole, with file and line.

A line is `p, subject, object, action, allow|deny` or `g, member, role`; empty lines and lines that begin with `#` are left out.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

_SUBJECT = re.compile(r"(role|user|app|agent|device|admin):([A-Za-z0-9_][A-Za-z0-9_.@-]*|\*)\Z")
_OBJECT = re.compile(r"(\*\*|[A-Za-z0-9_.:@*-]+(/[A-Za-z0-9_.:@*-]+)*)\Z")
_ACTION = re.compile(r"([a-z_]+|\*)\Z")


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
    return Rules(tuple(rules), tuple(roles), digest.hexdigest()[:16])


def _read_file(file: Path, data: bytes, rules: list[Rule], roles: list[tuple[str, str]]) -> None:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PolicyError(f"{file}:1: not UTF-8 ({error.reason} at byte {error.start}). Save the file as UTF-8.") from None
    if not text.endswith("\n"):
        raise PolicyError(f"{file}: the last line has no end; the file may have been cut. End it with a line break.")
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            _read_line(f"{file.name}:{number}", line, rules, roles)


def _read_line(place: str, line: str, rules: list[Rule], roles: list[tuple[str, str]]) -> None:
    kind, *fields = [field.strip() for field in line.split(",")]
    if kind == "p" and len(fields) == 4:
        subject, object_, action, effect = fields
        _expect(place, "subject", subject, _SUBJECT)
        _expect(place, "object", object_, _OBJECT)
        _expect(place, "action", action, _ACTION)
        if effect not in ("allow", "deny"):
            raise PolicyError(f"{place}: the effect is `{effect}`; it must be `allow` or `deny`, in small letters.")
        rules.append(Rule(subject, object_, action, effect, place))
    elif kind == "g" and len(fields) == 2:
        for field in fields:
            _expect(place, "member or role", field, _SUBJECT)
        roles.append((fields[0], fields[1]))
    else:
        raise PolicyError(f"{place}: expected `p, subject, object, action, allow|deny` or `g, member, role`, got `{line.strip()}`.")


def _expect(place: str, what: str, value: str, pattern: re.Pattern[str]) -> None:
    if not pattern.match(value):
        raise PolicyError(f"{place}: `{value}` is not a {what}. See policies/README.md for how one is written.")
