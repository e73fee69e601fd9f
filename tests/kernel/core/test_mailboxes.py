from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernos.kernel.core import mailboxes
from kernos.kernel.core.mailboxes import FullError, Mailboxes
from tests.kernel.fakes import examples

T = TypeVar("T")

BOXES = ("x", "y", "z")
operations = st.lists(
    st.tuples(st.sampled_from(("send", "send", "send", "take", "wait", "give_up", "close")), st.sampled_from(BOXES), st.integers(0, 5)),
    max_size=80,
)


@examples(200)
@given(operations)
def test_against_a_naive_post_office(steps: list[tuple[str, str, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mailboxes, "MAILBOX", 3)
        patch.setattr(mailboxes, "MAILBOXES", 2)
        _compare(steps)


def _compare(steps: list[tuple[str, str, int]]) -> None:  # noqa: C901  (a branch per operation)
    office: Mailboxes[int, str] = Mailboxes()
    mails: list[tuple[str, int]] = []
    readers: list[tuple[str, str]] = []
    for number, (step, box, which) in enumerate(steps):
        inside = [mail for place, mail in mails if place == box]
        waiting = [reader for place, reader in readers if place == box]
        if step == "send" and waiting:
            assert office.send(box, number) == waiting[0]
            readers.remove((box, waiting[0]))
        elif step == "send":
            full = len(inside) >= 3 or (not inside and len({place for place, _ in mails}) >= 2)
            if full:
                with pytest.raises(FullError):
                    office.send(box, number)
            else:
                assert office.send(box, number) is None
                mails.append((box, number))
        elif step == "take":
            assert office.take(box) == (inside[0] if inside else None)
            if inside:
                mails.remove((box, inside[0]))
        elif step == "wait" and not inside:
            office.wait(box, f"reader {number}")
            readers.append((box, f"reader {number}"))
        elif step == "give_up":
            reader = waiting[which % len(waiting)] if waiting else "nobody"
            office.give_up(box, reader)
            if waiting:
                readers.remove((box, reader))
        elif step == "close":
            office.close(box)
            mails = [(place, mail) for place, mail in mails if place != box]
        assert {place: list(held) for place, held in office.boxes.items()} == _grouped(mails)
        assert {place: list(held) for place, held in office.readers.items()} == _grouped(readers)
        assert all(office.count(place) == len([1 for at, _ in mails if at == place]) for place in BOXES)


def _grouped(pairs: list[tuple[str, T]]) -> dict[str, list[T]]:
    found: dict[str, list[T]] = {}
    for place, thing in pairs:
        found.setdefault(place, []).append(thing)
    return found


def test_a_full_office_still_takes_mail_for_boxes_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailboxes, "MAILBOXES", 1)
    office: Mailboxes[str, str] = Mailboxes()
    office.send("x", "first")
    office.send("x", "second")
    with pytest.raises(FullError, match="1 boxes"):
        office.send("y", "third")
    assert [office.take("x"), office.take("x"), office.take("x")] == ["first", "second", None]
    office.send("y", "third")
