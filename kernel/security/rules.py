"""Policy files, read strictly: whatever Casbin would silently ignore is a finding, with file, line and column.

A line is `p, subject, object, action, allow|deny` or `g, member, role`; empty lines and lines that begin with `#` are left out. The last
line of a file is `# end`, so that a file that was cut short, even between two lines, is noticed.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from kernos.syscalls.policy import Finding
from kernos.syscalls.sources import ROLES, RULES, Files

from .questions import ACTIONS, askable

_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.@-]*"
_MEMBER = re.compile(rf"(role|user|app|agent|device|admin):{_NAME}\Z")
_SUBJECT = re.compile(rf"(role:{_NAME}|(user|app|agent|device|admin):({_NAME}|\*))\Z")
_ROLE = re.compile(rf"role:{_NAME}\Z")
_SEGMENT = r"(\*|[A-Za-z0-9_][A-Za-z0-9_.:@-]*)"
_OBJECT = re.compile(rf"(\*\*|{_SEGMENT}(/{_SEGMENT})*(/\*\*)?)\Z")
_ACTION = re.compile(r"([a-z_]+|\*)\Z")
_EFFECT = re.compile(r"(allow|deny)\Z")

_BREAKS = re.compile("[\r\v\f\x1c-\x1e\x85\u2028\u2029]")
"""Where some programs break a line and others do not: a rule could hide behind one in a comment."""

Field = tuple[str, int]
"""What stands in a field of a line, and its column, from 1."""

END: Final = "# end"
"""The last line of a file of rules."""

_WRITTEN: Final = "See policies/README.md for how one is written."


class PolicyError(Exception):
    """A policy cannot be used; the message says why, and begins with `file:line:column` where it is about a line."""


@dataclass(frozen=True)
class Place:
    """Where something stands: the file within the policy, and the line, from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"

    def finding(self, text: str, column: int = 1, severity: str = "error") -> Finding:
        """Something to say about it."""
        return Finding(severity, self.file, self.line, column, text)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Rule:
    """A `p` line and where it stands."""

    subject: str
    object: str
    action: str
    effect: str
    place: Place

    @property
    def text(self) -> str:
        """The line as one would write it."""
        return f"p, {self.subject}, {self.object}, {self.action}, {self.effect}"

    @property
    def says(self) -> tuple[str, str, str]:
        """What it says to those whom it is about."""
        return (self.object, self.action, self.effect)

    def __str__(self) -> str:
        return f"{self.text} ({self.place})"


@dataclass(frozen=True)
class Membership:
    """A `g` line and where it stands."""

    member: str
    role: str
    place: Place

    @property
    def text(self) -> str:
        """The line as one would write it."""
        return f"g, {self.member}, {self.role}"

    def __str__(self) -> str:
        return f"{self.text} ({self.place})"


@dataclass(frozen=True)
class Rules:
    """What the files of a policy say, in their order."""

    rules: tuple[Rule, ...]
    roles: tuple[Membership, ...]


class _Reader:
    """Collects the lines of all files, and what is wrong with them."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []
        self.roles: list[Membership] = []
        self.findings: list[Finding] = []

    def read(self, file: str, data: bytes) -> None:
        """Take in a file."""
        for place, (kind, *fields) in read_lines(file, data, self.findings):
            if kind[0] == "p" and len(fields) == 4:
                self._rule(place, fields)
            elif kind[0] == "g" and len(fields) == 2:
                self._membership(place, fields)
            else:
                line = ", ".join(value for value, _ in (kind, *fields))
                text = f"expected `p, subject, object, action, allow|deny` or `g, member, role`, got `{line}`."
                self._find(place, text, kind[1])

    def _rule(self, place: Place, fields: list[tuple[str, int]]) -> None:
        subject, object_, action, effect = (value for value, _ in fields)
        sound = self._expect(place, "subject", fields[0], _SUBJECT) and self._expect(place, "object", fields[1], _OBJECT)
        sound = self._expect(place, "action", fields[2], _ACTION) and sound and self._expect_known(place, fields[1], fields[2])
        if not _EFFECT.match(effect):
            self._find(place, f"the effect is `{effect}`; it must be `allow` or `deny`, in small letters.", fields[3][1])
        elif sound:
            self.rules.append(Rule(subject, object_, action, effect, place))

    def _membership(self, place: Place, fields: list[tuple[str, int]]) -> None:
        if self._expect(place, "member", fields[0], _MEMBER) and self._expect(place, "role", fields[1], _ROLE):
            self.roles.append(Membership(fields[0][0], fields[1][0], place))

    def _expect(self, place: Place, what: str, field: tuple[str, int], pattern: re.Pattern[str]) -> bool:
        if pattern.match(field[0]):
            return True
        self._find(place, f"`{field[0]}` is not {'an' if what[0] in 'aeo' else 'a'} {what}. {_WRITTEN}", field[1])
        return False

    def _expect_known(self, place: Place, object_: tuple[str, int], action: tuple[str, int]) -> bool:
        """A rule that no call ever asks about is a slip of the pen, and a `deny` of that kind denies nothing."""
        if askable(object_[0], action[0]):
            return True
        head = object_[0].partition("/")[0]
        if head not in ("*", "**", *ACTIONS):
            self._find(place, f"no call is about `{object_[0]}`. Objects begin with one of: {', '.join(sorted(ACTIONS))}.", object_[1])
        elif not askable(object_[0], "*"):
            self._find(place, f"no call is about `{object_[0]}`. docs/syscalls.md lists the object of every call.", object_[1])
        else:
            known = sorted({entry for actions in ACTIONS.values() for entry in actions if askable(object_[0], entry)})
            self._find(place, f"nothing does `{action[0]}` to `{object_[0]}`. There are: {', '.join(known)}.", action[1])
        return False

    def _find(self, place: Place, text: str, column: int = 1) -> None:
        self.findings.append(place.finding(text, column))


def in_toml(file: str, text: str) -> Finding:
    """What a TOML reader says about a file, at the line and column that it names, if it does."""
    found = re.search(r"\(at line (\d+), column (\d+)\)", text)
    return Place(file, int(found[1]) if found else 1).finding(text, int(found[2]) if found else 1)


def read_lines(file: str, data: bytes, findings: list[Finding]) -> Iterator[tuple[Place, list[Field]]]:
    """The lines of a file that say something, cut into their fields; what is wrong with the file itself goes to `findings`."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        place = Place(file, 1 + data[: error.start].count(b"\n"))
        findings.append(place.finding(f"not UTF-8 ({error.reason}). Save the file as UTF-8."))
        return
    lines = text.split("\n")
    if lines.pop() or not lines or lines[-1].rstrip("\r") != END:
        text = f"the last line is not `{END}`; the file may have been cut. Put `{END}` on a line of its own at its end."
        findings.append(Place(file, max(1, len(lines))).finding(text))
    for number, line in enumerate(lines, 1):
        place = Place(file, number)
        if found := _BREAKS.search(line.removesuffix("\r")):
            text = "a character in it breaks the line for some programs only. Retype the line."
            findings.append(place.finding(text, found.start() + 1))
        elif line.strip() and not line.lstrip().startswith("#"):
            yield place, list(_cut(line.removesuffix("\r")))


def _cut(line: str) -> Iterator[Field]:
    """The fields of a line without the spaces around them."""
    start = 0
    for part in line.split(","):
        yield part.strip(), start + len(part) - len(part.lstrip()) + 1
        start += len(part) + 1


def read_rules(files: Files) -> tuple[Rules, list[Finding]]:
    """All rules and roles, `policy.d` before `roles.d`, files in the order of their names; and what is wrong with them."""
    reader = _Reader()
    for folder in (RULES, ROLES):
        for file in sorted(name for name in files if name.startswith(folder + "/")):
            reader.read(file, files[file])
    if not reader.rules and not reader.findings:
        reader.findings.append(Place(RULES, 0).finding("there are no rules. Nobody could do anything; restore the shipped policies."))
    return Rules(tuple(reader.rules), tuple(reader.roles)), reader.findings
