"""`limits.toml`: whose limits count, and what is refused."""

from pathlib import Path

import pytest

from kernos.kernel.core.quotas import NAMES
from kernos.kernel.security.allowances import Allowances, read_allowances
from kernos.kernel.security.policy import load_policy
from kernos.kernel.security.rules import PolicyError
from tests.kernel.fakes import make_policy

DEFAULT = "[default]\n" + "".join(f"{name} = 10\n" for name in NAMES)

TABLES = """
["user:*"]
turns = 1
calls = 1
files = 1
bytes = 1
["role:clerk"]
turns = 2
calls = 2
files = 5
["role:boss"]
turns = 3
calls = 3
files = 4
["user:anna"]
turns = 0
"""


def read(text: str) -> Allowances:
    return read_allowances({"limits.toml": text.encode()})


def test_each_limit_is_looked_up_by_itself() -> None:
    limits = read(DEFAULT + TABLES).of("user:anna", {"role:clerk", "role:boss", "role:nobody"})
    assert limits == dict.fromkeys(NAMES, 10) | {"turns": 0, "calls": 3, "files": 5, "bytes": 1}


def test_another_kind_has_the_default() -> None:
    assert read(DEFAULT + TABLES).of("app:shop", set()) == dict.fromkeys(NAMES, 10)


def test_roles_of_roles_count(tmp_path: Path) -> None:
    folder = make_policy(tmp_path, "p, app:*, system, ping, allow\ng, user:carla, role:lead\ng, role:lead, role:clerk\n")
    (folder / "limits.toml").write_text(DEFAULT + TABLES, "utf-8")
    policy = load_policy(folder)
    assert policy.limits("user:carla")["turns"] == 2
    assert policy.limits("user:ben")["turns"] == 1


def test_the_hash_covers_the_file(tmp_path: Path) -> None:
    folder = make_policy(tmp_path, "p, app:*, system, ping, allow\n")
    shipped = load_policy(folder).hash
    (folder / "limits.toml").write_text(DEFAULT, "utf-8")
    assert load_policy(folder).hash != shipped


def test_without_a_file_the_shipped_limits_hold(tmp_path: Path) -> None:
    folder = make_policy(tmp_path, "p, app:*, system, ping, allow\n")
    limits = load_policy(folder).limits("app:shop")
    assert set(limits) == set(NAMES)
    assert limits["tokens_per_minute"] == 1_000_000


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", r"\[default\] has no tokens_per_minute"),
        (DEFAULT.replace("turns = 10\n", ""), r"\[default\] has no turns"),
        (DEFAULT + "speed = 3\n", "speed"),
        (DEFAULT.replace("turns = 10", "turns = -1"), ">= 0"),
        (DEFAULT.replace("turns = 10", "turns = 1.5"), "Expected `int`"),
        (DEFAULT.replace("turns = 10", "turns = true"), "Expected `int`"),
        (DEFAULT.replace("turns = 10", "turns = '10'"), "Expected `int`"),
        (DEFAULT + "[shop]\nturns = 1\n", r"\[shop\] is not"),
        (DEFAULT + "['*']\nturns = 1\n", r"\[\*\] is not"),
        (DEFAULT + "['role:*']\nturns = 1\n", "is not"),
        (DEFAULT + "['App:shop']\nturns = 1\n", "is not"),
        (DEFAULT + "[user.anna]\nturns = 1\n", "anna"),
        (DEFAULT + "turns = 10\n", "overwrite"),
        ("turns = 1\n" + DEFAULT, "Expected"),
        (DEFAULT + "[", "Invalid initial character"),
    ],
)
def test_a_file_with_a_mistake_is_refused_whole(tmp_path: Path, text: str, says: str) -> None:
    folder = make_policy(tmp_path, "p, app:*, system, ping, allow\n")
    (folder / "limits.toml").write_text(text, "utf-8")
    with pytest.raises(PolicyError, match=says) as caught:
        load_policy(folder)
    assert str(caught.value).startswith("limits.toml:")
