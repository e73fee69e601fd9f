"""Boxes and topics, against a naive post office, and across a restart."""

from collections import deque
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernos.kernel.memory import mail
from kernos.kernel.memory.connection import Connection
from kernos.kernel.memory.mail import Letter
from kernos.syscalls.errors import BusyError
from tests.kernel.fakes import examples
from tests.kernel.memory.storage import NOW, Storage


def letter(id_: str, to: str = "queue/x", *, time: float = NOW) -> Letter:
    return Letter(id_, "app:a", 7, "user:ada", to, ("phi",), time, f"text of {id_}")


def test_a_letter_comes_back_as_it_was(connection: Connection) -> None:
    mail.send(connection, letter("m1"))
    assert mail.take(connection, "queue/x") == letter("m1")
    assert mail.take(connection, "queue/x") is None


def test_mail_survives_a_restart(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "state")
    for id_ in ("m1", "m2"):
        storage.write(lambda connection, id_=id_: mail.send(connection, letter(id_)))  # type: ignore[misc]
    storage.write(lambda connection: mail.subscribe(connection, "topic/t", "queue/x"))
    assert storage.write(lambda connection: mail.take(connection, "queue/x")) == letter("m1")
    storage.close()
    again = Storage(tmp_path / "state")
    assert again.write(lambda connection: mail.publish(connection, letter("m3", "topic/t"))) == ["queue/x"]
    assert [again.write(lambda connection: mail.take(connection, "queue/x")) for _ in range(3)] == [
        letter("m2"),
        letter("m3", "topic/t"),
        None,
    ]
    again.close()


def test_a_topic_gives_each_subscriber_a_copy_and_keeps_one(connection: Connection) -> None:
    assert mail.publish(connection, letter("m0", "topic/t")) == []
    for box in ("queue/x", "queue/y", "queue/x"):
        mail.subscribe(connection, "topic/t", box)
    assert mail.publish(connection, letter("m1", "topic/t")) == ["queue/x", "queue/y"]
    assert connection.execute("SELECT count(*) FROM mails").fetchone() == (1,)
    assert mail.take(connection, "queue/x") == mail.take(connection, "queue/y") == letter("m1", "topic/t")
    assert connection.execute("SELECT count(*) FROM mails").fetchone() == (0,)
    mail.unsubscribe(connection, "topic/t", "queue/x")
    assert mail.publish(connection, letter("m2", "topic/t")) == ["queue/y"]


def test_a_full_subscriber_holds_a_topic_back(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail, "MAILBOX", 1)
    for box in ("queue/x", "queue/y"):
        storage.write(lambda connection, box=box: mail.subscribe(connection, "topic/t", box))  # type: ignore[misc]
    storage.write(lambda connection: mail.send(connection, letter("m1", "queue/y")))
    with pytest.raises(BusyError, match="queue/y"):
        storage.write(lambda connection: mail.publish(connection, letter("m2", "topic/t")))
    assert storage.read(mail.boxes) == [("queue/y", 1)]


def test_boxes_are_cleared_and_old_letters_expire(connection: Connection) -> None:
    for number, time in enumerate((NOW, NOW + 1, NOW + 2)):
        mail.send(connection, letter(f"m{number}", time=time))
    assert mail.expire(connection, NOW + 1) == 1
    assert mail.take(connection, "queue/x") == letter("m1", time=NOW + 1)
    mail.subscribe(connection, "topic/t", "queue/x")
    assert mail.clear(connection, "queue/x") == 1
    assert (mail.boxes(connection), mail.publish(connection, letter("m9", "topic/t"))) == ([], [])


@examples(100)
@given(st.lists(st.tuples(st.sampled_from(("send", "send", "take", "clear")), st.sampled_from("xyz")), max_size=40))
def test_against_a_naive_post_office(connection: Connection, steps: list[tuple[str, str]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mail, "MAILBOX", 3)
        patch.setattr(mail, "MAILBOXES", 2)
        connection.execute("SAVEPOINT example")
        _compare(connection, steps)
        connection.execute("ROLLBACK TO example")
        connection.execute("RELEASE example")


def _compare(connection: Connection, steps: list[tuple[str, str]]) -> None:
    boxes: dict[str, deque[Letter]] = {}
    for number, (step, box) in enumerate(steps):
        inside = boxes.setdefault(box, deque())
        new = letter(f"m{number}", box)
        if step == "send" and (len(inside) >= 3 or (not inside and sum(map(bool, boxes.values())) >= 2)):
            connection.execute("SAVEPOINT job")
            with pytest.raises(BusyError):
                mail.send(connection, new)
            connection.execute("ROLLBACK TO job")
        elif step == "send":
            mail.send(connection, new)
            inside.append(new)
        elif step == "take":
            assert mail.take(connection, box) == (inside.popleft() if inside else None)
        else:
            assert mail.clear(connection, box) == len(inside)
            inside.clear()
        assert mail.boxes(connection) == sorted((name, len(kept)) for name, kept in boxes.items() if kept)
        assert connection.execute("SELECT count(*) FROM mails").fetchone()[0] == sum(map(len, boxes.values()))
