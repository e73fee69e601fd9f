import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from zmq.utils import z85

from kernos.kernel.security.identity import Identities, principal_of
from kernos.kernel.security.zap import answer_zap, peer_pid, same_user
from kernos.syscalls.keys import Key, make_key
from tests.kernel.fakes import examples

HERE = f"localhost:{os.getuid()}:{os.getgid()}:4711"


@pytest.fixture(scope="module")
def key() -> Key:
    return make_key("app:shop")


@pytest.fixture
def identities(tmp_path: Path, key: Key) -> Identities:
    known = Identities(tmp_path / "principals")
    known.add(key.principal, key.public)
    return known


def request(public: str, *, address: str = HERE, version: bytes = b"1.0", mechanism: bytes = b"CURVE") -> list[bytes]:
    return [version, b"42", b"kernos", address.encode(), b"", mechanism, z85.decode(public.encode())]


def test_a_known_key_gets_its_badge(identities: Identities, key: Key) -> None:
    badge = answer_zap(request(key.public), identities)[4]
    assert answer_zap(request(key.public), identities) == [b"1.0", b"42", b"200", b"OK", badge, b""]
    assert principal_of(badge.decode()) == "app:shop"
    assert identities.stands(badge.decode())


def test_a_lent_key_is_taken_from_its_process_alone(identities: Identities) -> None:
    lent = make_key("app:shop")
    identities.lend("app:shop", lent.public, 4711)
    assert answer_zap(request(lent.public), identities)[2] == b"200"
    for address in (HERE.replace("4711", "4712"), HERE.replace("4711", "47110"), "127.0.0.1", ""):
        assert answer_zap(request(lent.public, address=address), identities)[2] == b"400"


def test_an_unknown_key_is_refused(identities: Identities) -> None:
    assert answer_zap(request(make_key("app:shop").public), identities) == [b"1.0", b"42", b"400", b"unknown key", b"", b""]


def test_a_removed_key_is_refused(identities: Identities, key: Key) -> None:
    identities.remove(key.principal)
    assert answer_zap(request(key.public), identities)[2] == b"400"


def test_a_replaced_key_is_refused(identities: Identities, key: Key) -> None:
    successor = make_key(key.principal)
    identities.add(successor.principal, successor.public)
    assert answer_zap(request(key.public), identities)[2] == b"400"
    assert answer_zap(request(successor.public), identities)[4].startswith(b"app:shop#")


def test_another_unix_user_is_refused_even_with_a_known_key(identities: Identities, key: Key) -> None:
    address = f"localhost:{os.getuid() + 1}:0:4711"
    assert answer_zap(request(key.public, address=address), identities)[2:4] == [b"400", b"another Unix user"]


def test_a_uid_that_begins_with_ours_is_another(identities: Identities, key: Key) -> None:
    address = f"localhost:{os.getuid()}0:0:4711" if os.getuid() else "localhost:00:0:4711"
    assert answer_zap(request(key.public, address=address), identities)[2] == b"400"


def test_other_mechanisms_and_versions_are_refused(identities: Identities, key: Key) -> None:
    assert answer_zap(request(key.public, mechanism=b"NULL"), identities)[2] == b"400"
    assert answer_zap(request(key.public, mechanism=b"PLAIN"), identities)[2] == b"400"
    assert answer_zap(request(key.public, version=b"2.0"), identities)[2] == b"400"


@pytest.mark.parametrize("length", range(7))
def test_a_cut_request_is_refused(identities: Identities, key: Key, length: int) -> None:
    reply = answer_zap(request(key.public)[:length], identities)
    assert (len(reply), reply[2]) == (6, b"400")


def test_frames_too_many_are_refused(identities: Identities, key: Key) -> None:
    assert answer_zap([*request(key.public), b""], identities)[2] == b"400"


@examples(150)
@given(frames=st.lists(st.one_of(st.binary(max_size=40), st.sampled_from([b"1.0", b"CURVE"])), max_size=9))
def test_any_frames_are_answered_and_none_let_in(frames: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> None:
    reply = answer_zap(frames, Identities(tmp_path_factory.getbasetemp() / "nobody"))
    assert len(reply) == 6
    assert reply[2] == b"400"
    assert reply[4] == b""


def test_addresses() -> None:
    assert same_user(HERE)
    assert same_user("127.0.0.1")
    assert not same_user(f"localhost:{os.getuid() + 1}:0:1")
    assert peer_pid(HERE) == 4711
    assert peer_pid("127.0.0.1") == 0
    assert peer_pid("localhost:0:0:x") == 0
