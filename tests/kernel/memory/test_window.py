"""What is in the window, what has left it, and what was embedded of that."""

import string
from collections.abc import Iterator

import pytest

from kernos.kernel.memory import history, transcripts, window
from kernos.kernel.memory.connection import Connection
from kernos.kernel.memory.ranking import Recalled
from kernos.syscalls.errors import ConflictError
from tests.kernel.memory.storage import NOW, OWNER, PAYERS, context, id_of, say


def shown(connection: Connection, id_: str) -> list[str]:
    return [message.text for message in window.resident(connection, OWNER, id_)]


@pytest.fixture
def chat(connection: Connection) -> str:
    row = context(connection)
    say(connection, row.id, *"abcdef")
    return row.id


def test_what_is_paged_out_leaves_the_window_and_has_pages(connection: Connection, chat: str) -> None:
    assert shown(connection, chat) == list("abcdef")
    window.page_out(connection, OWNER, chat, 4, NOW)
    assert shown(connection, chat) == ["e", "f"]
    assert [(page.seq, page.start, page.stop, page.model) for page in window.pages(connection, OWNER, chat)] == [
        (seq, 0, 1, None) for seq in range(4)
    ]
    assert [message.text for message in transcripts.read(connection, OWNER, chat, 0, 9)] == list("abcdef")


@pytest.mark.parametrize("until", [1, 7])
def test_a_window_only_moves_forward_within_the_context(connection: Connection, chat: str, until: int) -> None:
    window.page_out(connection, OWNER, chat, 2, NOW)
    with pytest.raises(ConflictError):
        window.page_out(connection, OWNER, chat, until, NOW)


def test_pinned_messages_stay_and_come_back(connection: Connection, chat: str) -> None:
    window.pin(connection, OWNER, chat, 1, 2)
    window.page_out(connection, OWNER, chat, 4, NOW)
    assert shown(connection, chat) == ["b", "e", "f"]
    window.pin(connection, OWNER, chat, 0, 1)
    assert shown(connection, chat) == ["a", "b", "e", "f"]
    window.unpin(connection, OWNER, chat, 0, 2)
    assert shown(connection, chat) == ["e", "f"]
    assert [page.seq for page in window.pages(connection, OWNER, chat)] == [0, 1, 2, 3]
    with pytest.raises(ConflictError):
        window.pin(connection, OWNER, chat, 5, 7)


def test_states_say_where_each_message_is(connection: Connection, chat: str) -> None:
    window.pin(connection, OWNER, chat, 1, 2)
    window.page_out(connection, OWNER, chat, 4, NOW)
    first = window.unembedded(connection, 1)[0]
    window.embedded(connection, "minilm", [(first.id, b"vector")])
    found = [(state.state, state.embedded) for state in window.states(connection, OWNER, chat, 0, 9)]
    assert found == [("paged", True), ("pinned", False), ("paged", False), ("paged", False), ("resident", False), ("resident", False)]


def test_a_large_message_is_cut_into_pages(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "PAGE_CHARACTERS", 12)
    row = context(connection)
    say(connection, row.id, "before", "One. Two two. Threethreethree", "after")
    window.page_out(connection, OWNER, row.id, 3, NOW)
    assert [page.text for page in window.unembedded(connection, 9)] == ["before", "One. Two ", "two. Threeth", "reethree", "after"]


def test_pages_say_what_they_hold_in_the_order_asked_and_none_is_read_before(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window, "PAGE_CHARACTERS", 12)
    row = context(connection)
    say(connection, row.id, *(f"Letter {char}. And more" for char in string.ascii_lowercase))
    window.page_out(connection, OWNER, row.id, 26, NOW)
    pages = [page.id for page in window.pages(connection, OWNER, row.id)]
    asked = list[int]()

    def ranked() -> Iterator[Recalled]:
        for page in (pages[50], 9_999, *pages[:50], pages[51]):
            asked.append(page)
            yield Recalled(page, 0, 0, 0, 0)

    found = window.told(connection, ranked())
    points, page = next(found)
    assert (points.page, page.seq, page.start, page.text) == (pages[50], 25, 0, "Letter z. ")
    assert asked == [pages[50]]
    rest = [(points.page, page.text) for points, page in found]
    assert [page for page, _ in rest] == [*pages[:50], pages[51]]
    assert [text for _, text in rest][:2] == ["Letter a. ", "And more"]


def test_vectors_come_with_their_model_and_are_made_anew_for_another(connection: Connection, chat: str) -> None:
    window.page_out(connection, OWNER, chat, 2, NOW)
    waiting = window.unembedded(connection, 9)
    window.embedded(connection, "minilm", [(page.id, page.text.encode()) for page in waiting] + [(9_999, b"gone")])
    assert window.unembedded(connection, 9) == []
    branch = waiting[0].branch
    assert [vector for _, vector in window.vectors_of(connection, branch, "minilm")] == [b"a", b"b"]
    assert window.vectors_of(connection, branch, "other") == []
    window.forget_vectors(connection, "other")
    assert len(window.unembedded(connection, 9)) == 2


def test_forks_share_pages_and_windows_part(connection: Connection, chat: str) -> None:
    window.pin(connection, OWNER, chat, 0, 1)
    window.page_out(connection, OWNER, chat, 3, NOW)
    fork = history.fork(connection, OWNER, chat, "fork", id_of("fork"), PAYERS, NOW)
    assert shown(connection, fork.id) == shown(connection, chat) == list("adef")
    window.page_out(connection, OWNER, fork.id, 5, NOW)
    assert (shown(connection, fork.id), shown(connection, chat)) == (list("af"), list("adef"))
    window.page_out(connection, OWNER, chat, 4, NOW)
    ids = [[page.id for page in window.pages(connection, OWNER, id_)] for id_ in (chat, fork.id)]
    assert ids[0] == ids[1][:3]
    transcripts.delete(connection, OWNER, chat)
    assert [page.id for page in window.pages(connection, OWNER, fork.id)] == ids[1]


def test_a_deleted_context_leaves_no_page(connection: Connection, chat: str) -> None:
    window.page_out(connection, OWNER, chat, 4, NOW)
    transcripts.delete(connection, OWNER, chat)
    assert connection.execute("SELECT count(*) FROM pages").fetchone() == (0,)
    assert window.unembedded(connection, 9) == []


def test_a_rollback_moves_the_window_and_drops_pins(connection: Connection, chat: str) -> None:
    window.pin(connection, OWNER, chat, 0, 1)
    window.pin(connection, OWNER, chat, 3, 4)
    window.page_out(connection, OWNER, chat, 5, NOW)
    row = history.rollback(connection, OWNER, chat, 2, NOW)
    assert (row.resident, window.pins(connection, row)) == (2, [0])
    say(connection, chat, "new")
    assert shown(connection, chat) == ["a", "new"]
