import os
from pathlib import Path

import pytest

from kernos.kernel.security import identity
from kernos.kernel.security.identity import Holder, Identities, Loan, principal_of
from kernos.kernel.security.liveness import start_time
from kernos.syscalls.errors import ConflictError, KernosError, LimitError
from kernos.syscalls.keys import Key, make_key


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


def badge(known: Identities, key: Key) -> str:
    holder = known.holder(key.public)
    assert holder is not None
    return holder.badge


def test_a_badge_stands_as_long_as_its_key(known: Identities) -> None:
    first, second = make_key("app:shop"), make_key("app:shop")
    known.add(first.principal, first.public)
    old = badge(known, first)
    known.add(first.principal, first.public)
    assert badge(known, first) == old, "the same key again is no rotation"
    known.add(second.principal, second.public)
    assert not known.stands(old)
    assert known.stands(badge(known, second))
    assert principal_of(old) == principal_of(badge(known, second)) == "app:shop"
    known.remove("app:shop")
    known.add("app:shop", make_key("app:shop").public)
    assert not known.stands(old)


def test_a_badge_cannot_be_made_up(known: Identities) -> None:
    assert not known.stands("")
    assert not known.stands("admin:root")
    assert not known.stands("admin:root#1")


@pytest.mark.parametrize("how", ["rotated", "revoked"])
def test_a_key_that_ended_never_counts_again(known: Identities, how: str) -> None:
    old, new = make_key("app:shop"), make_key("app:shop")
    known.keep(old.principal, old.public)
    known.add(old.principal, old.public)
    if how == "rotated":
        known.keep(new.principal, new.public)
        known.add(new.principal, new.public)
    else:
        known.discard("app:shop")
        known.remove("app:shop")
    for identities in (known, Identities(known.folder)):
        assert identities.principal(old.public) is None
        for principal in ("app:shop", "app:other"):
            with pytest.raises(ConflictError, match="never counts again"):
                identities.check(principal, old.public)


def test_a_lent_key_is_one_more_and_ends_with_its_process(known: Identities) -> None:
    enrolled, lent = make_key("app:shop"), make_key("app:shop")
    known.add(enrolled.principal, enrolled.public)
    known.lend("app:shop", lent.public, 4711)
    assert known.holder(lent.public) == Holder("app:shop", badge(known, lent), 4711)
    assert known.principal(enrolled.public) == "app:shop"
    old = badge(known, lent)
    known.end_loans(4711)
    assert known.holder(lent.public) is None
    assert not known.stands(old)
    assert known.stands(badge(known, enrolled))


def test_a_lent_key_cannot_be_enrolled_or_lent_twice(known: Identities) -> None:
    key = make_key("app:shop")
    known.lend("app:shop", key.public, 4711)
    with pytest.raises(ConflictError):
        known.add("app:shop", key.public)
    with pytest.raises(ConflictError):
        known.lend("app:shop", key.public, 4712)


def test_revoking_a_principal_ends_what_was_lent_to_it(known: Identities) -> None:
    one, other = make_key("app:shop"), make_key("app:other")
    known.lend("app:shop", one.public, 1)
    known.lend("app:other", other.public, 2)
    known.remove("app:shop")
    assert known.holder(one.public) is None
    assert known.holder(other.public) is not None


def test_loans_of_living_processes_outlive_the_kernel(known: Identities) -> None:
    living, ended, later = make_key("app:a"), make_key("app:b"), make_key("app:c")
    own = os.getpid()
    known.keep_loan(Loan("app:a", living.public, own, start_time(own)))
    known.keep_loan(Loan("app:b", ended.public, 2**22 + 1, 5))
    (known.folder / "77.loan").write_bytes(b'{"principal": "app')
    known.keep_loan(Loan("app:c", later.public, 1, start_time(1) + 1))
    again = Identities(known.folder)
    assert again.holder(living.public) == Holder("app:a", badge(again, living), own)
    assert again.holder(ended.public) is again.holder(later.public) is None
    assert [file.name for file in known.folder.iterdir()] == [f"{own}.loan"]
    again.discard_loan(own)
    assert list(known.folder.iterdir()) == []


def test_files_are_the_owners_alone(known: Identities) -> None:
    key = make_key("app:shop")
    known.keep(key.principal, key.public)
    assert {file.stat().st_mode & 0o777 for file in known.folder.iterdir()} == {0o600}
