"""Calls that are made again, and what is remembered of principals."""

import pytest

from kernos.kernel.limits import IDEMPOTENCY_S
from kernos.kernel.memory import records
from kernos.kernel.memory.connection import Connection
from kernos.kernel.memory.records import Request
from kernos.syscalls.errors import ConflictError
from tests.kernel.memory.storage import NOW, Storage, context, say, texts

CALL = Request("app:a", "key", b"append hello")


def hello(connection: Connection) -> bytes:
    say(connection, context(connection).id, "hello")
    return f"reply {len(texts(connection, context(connection).id))}".encode()


def test_a_call_that_is_made_again_is_answered_and_not_done_again(connection: Connection) -> None:
    assert records.once(CALL, hello, NOW)(connection) == b"reply 1"
    assert records.once(CALL, hello, NOW + 1)(connection) == b"reply 1"
    assert texts(connection, context(connection).id) == ["hello"]


def test_a_call_that_failed_can_be_made_again(storage: Storage) -> None:
    def fails(connection: Connection) -> bytes:
        hello(connection)
        raise ConflictError("Not so.")

    with pytest.raises(ConflictError):
        storage.write(records.once(CALL, fails, NOW))
    assert storage.write(records.once(CALL, hello, NOW)) == b"reply 1"


def test_keys_are_each_principals_own_and_for_one_call(connection: Connection) -> None:
    records.once(CALL, hello, NOW)(connection)
    assert records.once(Request("app:b", "key", b"other"), hello, NOW)(connection) == b"reply 2"
    with pytest.raises(ConflictError, match="another call"):
        records.once(Request("app:a", "key", b"other"), hello, NOW)(connection)


def test_a_reply_is_kept_for_a_day(connection: Connection) -> None:
    records.once(CALL, hello, NOW)(connection)
    assert records.reply_to(connection, CALL, NOW + IDEMPOTENCY_S) == b"reply 1"
    assert records.reply_to(connection, CALL, NOW + IDEMPOTENCY_S + 1) is None
    assert records.once(CALL, hello, NOW + IDEMPOTENCY_S + 1)(connection) == b"reply 2"
    assert records.prune(connection, NOW + IDEMPOTENCY_S + 1) == 0
    assert records.prune(connection, NOW + 3 * IDEMPOTENCY_S) == 1


def test_of_each_principal_the_newest_replies_are_kept(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "IDEMPOTENCY_RECORDS", 2)
    for name in ("app:a", "app:b"):
        for number in range(4):
            records.once(Request(name, str(number), b""), lambda _: b"done", NOW + number)(connection)
    assert records.prune(connection, NOW + 4) == 4
    kept = [records.reply_to(connection, Request("app:b", str(number), b""), NOW) for number in range(4)]
    assert kept == [None, None, b"done", b"done"]


def test_facts_are_set_read_and_forgotten(connection: Connection) -> None:
    records.remember(connection, "process", "app:a", "7", b"old")
    records.remember(connection, "process", "app:a", "7", b"new")
    records.remember(connection, "usage", "app:a", "tokens", b"5")
    assert records.facts(connection, "process") == [("app:a", "7", b"new")]
    records.forget(connection, "process", "app:a", "7")
    assert records.facts(connection, "process") == []
    assert records.facts(connection, "usage") == [("app:a", "tokens", b"5")]
