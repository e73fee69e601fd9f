"""`limits.toml`: how much of the machine each principal, role and kind may use. Part of the law, and read as strictly.

A file with a table or a limit that nothing would ever look at, or a number that is none, is refused whole. A folder without the file has
the limits that Kernos is shipped with; there is never no limit.
"""

import re
import tomllib
from dataclasses import dataclass
from importlib.resources import files

import msgspec

from kernos.syscalls.process import Amount, LimitName
from kernos.syscalls.sources import LIMITS as FILE
from kernos.syscalls.sources import Files

from ..core.quotas import NAMES, Limits
from .rules import PolicyError

_TABLE = re.compile(r"(role:[A-Za-z0-9_][A-Za-z0-9_.@-]*|(user|app|agent|device|admin):([A-Za-z0-9_][A-Za-z0-9_.@-]*|\*))\Z")


@dataclass(frozen=True)
class Allowances:
    """The tables of the file."""

    default: Limits
    tables: dict[str, dict[LimitName, int]]

    def of(self, principal: str, roles: set[str]) -> Limits:
        """The limits of a principal that has these roles."""
        own = self.tables.get(principal, {})
        of_roles = [self.tables[role] for role in roles if role in self.tables]
        of_kind = self.tables.get(principal.partition(":")[0] + ":*", {})
        best: dict[LimitName, int] = {}
        for table in of_roles:
            best |= {name: max(amount, best.get(name, 0)) for name, amount in table.items()}
        return {**self.default, **of_kind, **best, **own}


def read_allowances(policy: Files) -> Allowances:
    """The limits of a policy; `PolicyError` says what is wrong with them."""
    try:
        data = policy[FILE] if FILE in policy else (files("kernos.policies") / FILE).read_bytes()
        found = msgspec.convert(tomllib.loads(data.decode("utf-8")), dict[str, dict[LimitName, Amount]])
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise PolicyError(f"{error}. A table holds whole numbers, 0 or more, of: {', '.join(NAMES)}.") from None
    default = found.pop("default", {})
    if missing := [name for name in NAMES if name not in default]:
        raise PolicyError(f"[default] has no {', '.join(missing)}. It must name every limit.")
    for name in found:
        if not _TABLE.match(name):
            raise PolicyError(f'[{name}] is not [default], a principal, a role or a kind. Write for instance ["user:*"], in quotes.')
    return Allowances(default, found)
