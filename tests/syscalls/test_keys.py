"""Keys: made, kept from others, and found again."""

import os
from pathlib import Path

import msgspec
import pytest
from zmq.utils import z85

from kernos.syscalls import Key, Places, keys
from kernos.syscalls.errors import UnreachableError
from kernos.syscalls.keys import administrator, key_file, make_key, own_key, read_key, write_key


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KERNOS_KEY", raising=False)
    monkeypatch.delenv("KERNOS_KEY_FD", raising=False)
    monkeypatch.setattr(keys, "_passed", [], raising=False)


def passed(key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pass a key as `kernos run` does."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb") as file:
        file.write(msgspec.json.encode(key))
    monkeypatch.setenv("KERNOS_KEY_FD", str(reader))


def test_a_key_pair_is_fresh() -> None:
    one, other = make_key("app:a"), make_key("app:a")
    assert len({one.public, one.secret, other.public, other.secret}) == 4
    assert len(z85.decode(one.public)) == len(z85.decode(one.secret)) == 32


def test_a_key_does_not_show_its_secret() -> None:
    key = make_key("app:a")
    assert key.secret not in f"{key} {key!r} {[key]}"


def test_a_key_is_kept(where: Places) -> None:
    key = make_key("app:shop")
    path = write_key(where, key)
    assert path == key_file(where, "app:shop") == where.keys / "app-shop.key"
    assert read_key(path) == key


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077], ids=oct)
def test_a_key_file_is_for_its_owner_alone(where: Places, umask: int) -> None:
    before = os.umask(umask)
    try:
        path = write_key(where, make_key("app:a"))
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o077 == 0


def test_a_new_key_replaces_the_old_one_whole(where: Places) -> None:
    write_key(where, make_key("app:a"))
    key = make_key("app:a")
    assert read_key(write_key(where, key)) == key
    assert [path.name for path in where.keys.iterdir()] == ["app-a.key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601], ids=oct)
def test_a_key_that_others_can_touch_is_refused(where: Places, mode: int) -> None:
    path = write_key(where, make_key("app:a"))
    path.chmod(mode)
    with pytest.raises(UnreachableError, match="chmod 600"):
        read_key(path)


def test_a_missing_key_is_said_to_be(where: Places) -> None:
    with pytest.raises(UnreachableError, match="no key at"):
        read_key(key_file(where, "app:a"))


def test_a_damaged_key_is_said_to_be(where: Places) -> None:
    path = write_key(where, make_key("app:a"))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UnreachableError, match="cannot be read"):
        read_key(path)


def test_the_administrator_needs_no_variable(where: Places, key: Key) -> None:
    write_key(where, make_key("app:a"))
    assert own_key(where) == key


def test_another_administrator_who_is_made_known_here_does_not_take_the_place_of_this_one(where: Places) -> None:
    mine = make_key(administrator())
    for key in (make_key("admin:000"), mine, make_key("admin:zoe")):
        write_key(where, key)
    assert own_key(where) == mine


def test_without_a_key_it_is_said_where_one_was_looked_for(where: Places) -> None:
    with pytest.raises(UnreachableError, match="KERNOS_KEY"):
        own_key(where)


def test_the_variable_comes_before_the_administrators_key(where: Places, key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    other = make_key("app:a")
    monkeypatch.setenv("KERNOS_KEY", str(write_key(where, other)))
    assert own_key(where) == other != key


def test_a_key_that_was_passed_comes_first_and_is_not_passed_on(where: Places, key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    other = make_key("app:a")
    passed(other, monkeypatch)
    assert own_key(where) == other != key
    assert "KERNOS_KEY_FD" not in os.environ


def test_a_key_that_was_passed_serves_every_connection(where: Places, key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    other = make_key("app:a")
    passed(other, monkeypatch)
    assert own_key(where) == own_key(where) == other != key


def test_a_key_outside_the_key_folder_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: Places) -> None:
    path = tmp_path / "mine.key"
    path.touch(0o600)
    key = make_key("app:a")
    path.write_bytes(msgspec.json.encode(key))
    monkeypatch.setenv("KERNOS_KEY", str(path))
    assert own_key(where) == key
