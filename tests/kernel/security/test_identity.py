from pathlib import Path

import pytest

from kernos.kernel.security import identity
from kernos.kernel.security.identity import Identities
from kernos.syscalls.errors import KernosError, LimitError
from kernos.syscalls.keys import make_key


@pytest.fixture
def known(tmp_path: Path) -> Identities:
    return Identities(tmp_path / "principals")


def test_what_is_kept_is_known_after_a_restart(known: Identities) -> None:
    keys = [make_key(name) for name in ("app:customer-service", "user:anna@example.org", "admin:a-b-c", "device:kernel")]
    for key in keys:
        known.keep(key.principal, key.public)
    again = Identities(known.folder)
    assert [again.principal(key.public) for key in keys] == [key.principal for key in keys]
    assert all(again.knows(key.principal) for key in keys)


def test_what_is_only_added_is_forgotten(known: Identities) -> None:
    key = make_key("device:decoder")
    known.add(key.principal, key.public)
    assert known.principal(key.public) == "device:decoder"
    assert Identities(known.folder).principal(key.public) is None


def test_a_principal_has_one_key(known: Identities) -> None:
    first, second = make_key("app:shop"), make_key("app:shop")
    known.add(first.principal, first.public)
    known.add(second.principal, second.public)
    assert known.principal(first.public) is None
    assert known.principal(second.public) == "app:shop"


def test_removing(known: Identities) -> None:
    key = make_key("app:shop")
    known.add(key.principal, key.public)
    known.remove("app:shop")
    known.remove("app:nobody")
    assert known.principal(key.public) is None
    assert not known.knows("app:shop")


def test_writing_leaves_no_parts_behind(known: Identities) -> None:
    key = make_key("app:shop.v2")
    known.keep(key.principal, key.public)
    assert [file.name for file in known.folder.iterdir()] == ["app-shop.v2.pub"]


def test_the_folder_is_the_owners_alone(known: Identities) -> None:
    assert known.folder.stat().st_mode & 0o777 == 0o700


def test_the_number_is_bounded(known: Identities, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "PRINCIPALS", 2)
    known.add("app:a", "key a")
    known.add("app:b", "key b")
    with pytest.raises(LimitError):
        known.add("app:c", "key c")


def test_a_key_can_be_replaced_at_the_bound(known: Identities, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "PRINCIPALS", 1)
    known.add("app:a", "key a")
    known.add("app:a", "another")
    assert known.principal("another") == "app:a"


def test_a_key_belongs_to_one_principal(known: Identities) -> None:
    known.add("app:a", "key")
    with pytest.raises(KernosError):
        known.add("app:b", "key")
    assert known.principal("key") == "app:a"
