"""`limits.toml`: how much of the machine each principal, role and kind may use. Part of the law, and read as strictly.

A file with a table or a limit that nothing would ever look at, or a number that is none, is refused whole. A folder without the file has
the limits that Kernos is shipped with; there is never no limit.
"""

import hashlib
import re
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

import msgspec

from kernos.syscalls.process import Amount, LimitName

from ..core.quotas import NAMES, Limits
from .rules import PolicyError

FILE: Final = "limits.toml"

_TABLE = re.compile(r"(role:[A-Za-z0-9_][A-Za-z0-9_.@-]*|(user|app|agent|device|admin):([A-Za-z0-9_][A-Za-z0-9_.@-]*|\*))\Z")


@dataclass(frozen=True)
class Allowances:
    """The tables of the file, and the hash over its bytes."""

    default: Limits
    tables: dict[str, dict[LimitName, int]]
    hash: str

    def of(self, principal: str, roles: set[str]) -> Limits:
        """The limits of a principal that has these roles."""
        own = self.tables.get(principal, {})
        of_roles = [self.tables[role] for role in roles if role in self.tables]
        of_kind = self.tables.get(principal.partition(":")[0] + ":*", {})
        best: dict[LimitName, int] = {}
        for table in of_roles:
            best |= {name: max(amount, best.get(name, 0)) for name, amount in table.items()}
        return {**self.default, **of_kind, **best, **own}


def read_allowances(folder: Path) -> Allowances:
    """The file in a policy folder; `PolicyError` says what is wrong with it."""
    file = folder / FILE
    try:
        data = file.read_bytes() if file.exists() else (files("kernos.policies") / FILE).read_bytes()
        found = msgspec.convert(tomllib.loads(data.decode("utf-8")), dict[str, dict[LimitName, Amount]])
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise PolicyError(f"{file}: {error}. A table holds whole numbers, 0 or more, of: {', '.join(NAMES)}.") from None
    default = found.pop("default", {})
    if missing := [name for name in NAMES if name not in default]:
        raise PolicyError(f"{file}: [default] has no {', '.join(missing)}. It must name every limit.")
    for name in found:
        if not _TABLE.match(name):
            raise PolicyError(
                f'{file}: [{name}] is not [default], a principal, a role or a kind. Write for instance ["user:*"], in quotes.'
            )
    return Allowances(default, found, hashlib.sha256(data).hexdigest()[:16])
