"""Summaries: found beside their sources, by those who stand on all of them, and gone with any of them."""

from collections.abc import Iterator

import pytest

from kernos.kernel.memory import history, summaries, transcripts, window
from kernos.kernel.memory.connection import Connection
from kernos.kernel.memory.recall import Found, Memory
from kernos.kernel.memory.transcripts import NewMessage
from kernos.syscalls.context import Source
from kernos.syscalls.errors import ConflictError, DeniedError, LimitError, NotFoundError
from tests.kernel.memory.storage import NOW, OWNER, PAYERS, context, id_of, say

OTHER = "user:bob"
TEXT = "They planned a journey to Iceland."


@pytest.fixture
def chat(connection: Connection) -> str:
    row = context(connection)
    say(connection, row.id, *(f"message number {n}" for n in range(6)))
    return row.id


def summarize(connection: Connection, id_: str, start: int = 0, stop: int = 4, text: str = TEXT, actor: str = OWNER) -> None:
    summaries.summarize(connection, actor, id_, start, stop, text, (), NOW)


def recalled(connection: Connection, id_: str, actor: str = OWNER, *, whole: bool = True) -> list[Found]:
    """The summaries that are found."""
    memory = Memory("", 0, 1 << 20)
    return [page for page in memory.rank(connection, actor, id_, "Iceland", None, whole=whole) if page.source is not None]


def fork(connection: Connection, id_: str, name: str = "fork", owner: str = OWNER) -> str:
    return history.fork(connection, owner, id_, name, id_of(owner, name), PAYERS, NOW).id


def test_it_is_recalled_when_its_sources_have_left_and_points_at_them(connection: Connection, chat: str) -> None:
    summarize(connection, chat)
    window.page_out(connection, OWNER, chat, 3, NOW)
    assert recalled(connection, chat, whole=False) == []
    assert len(recalled(connection, chat)) == 1, "a search finds it before"
    window.page_out(connection, OWNER, chat, 4, NOW)
    (page,) = recalled(connection, chat, whole=False)
    assert (page.text, page.seq, page.source, page.time) == (TEXT, 0, Source(0, 4), NOW)


def test_it_takes_nothings_place(connection: Connection, chat: str) -> None:
    before = transcripts.read(connection, OWNER, chat, 0, 9)
    summarize(connection, chat)
    assert transcripts.read(connection, OWNER, chat, 0, 9) == window.resident(connection, OWNER, chat) == before
    window.page_out(connection, OWNER, chat, 4, NOW)
    assert [page.seq for page in window.pages(connection, OWNER, chat)] == [0, 1, 2, 3]
    found = Memory("", 0, 1 << 20).rank(connection, OWNER, chat, "message", None)
    assert sorted(page.seq for page in found if page.source is None) == [0, 1, 2, 3]


def test_several_of_one_run_are_kept(connection: Connection, chat: str) -> None:
    for number in range(3):
        summarize(connection, chat, text=f"Iceland {number}")
    assert sorted(page.text for page in recalled(connection, chat)) == ["Iceland 0", "Iceland 1", "Iceland 2"]


def test_a_long_one_has_pages_and_is_embedded_as_they_are(connection: Connection, chat: str) -> None:
    summarize(connection, chat, text="Iceland is far away. " * 40)
    assert len(recalled(connection, chat)) == len(window.unembedded(connection, 9)) == 3


@pytest.mark.parametrize(("start", "stop"), [(4, 4), (3, 2), (0, 7), (6, 7)])
def test_it_is_of_messages_that_there_are(connection: Connection, chat: str, start: int, stop: int) -> None:
    with pytest.raises(ConflictError, match="has 6 messages"):
        summarize(connection, chat, start, stop)


def test_it_is_the_owners_to_write(connection: Connection, chat: str) -> None:
    with pytest.raises(NotFoundError):
        summarize(connection, chat, actor=OTHER)
    transcripts.grant(connection, OWNER, chat, OTHER, "append")
    with pytest.raises(DeniedError):
        summarize(connection, chat, actor=OTHER)
    summarize(connection, chat)
    assert len(recalled(connection, chat, OTHER)) == 1, "whoever may read the context reads it"


def test_it_has_the_labels_and_the_time_of_its_sources(connection: Connection, chat: str) -> None:
    new = [NewMessage("user", "a", 1, ("phi",), time=NOW - 50), NewMessage("user", "b", 1, ("pets",), time=NOW - 60)]
    transcripts.append(connection, OWNER, chat, [*new, NewMessage("user", "c", 1, ("later",))], "tiny", NOW)
    summaries.summarize(connection, OWNER, chat, 6, 8, TEXT, ["untrusted"], NOW)
    (page,) = recalled(connection, chat)
    assert (page.labels, page.time) == ('["pets","phi","untrusted"]', NOW - 50)
    assert "untrusted" in transcripts.find(connection, OWNER, chat, "own").labels


def test_it_is_charged_until_it_is_gone(connection: Connection, chat: str) -> None:
    before = transcripts.find(connection, OWNER, chat, "own")
    summarize(connection, chat)
    after = transcripts.find(connection, OWNER, chat, "own")
    assert (after.charged, after.bytes, after.tokens) == (before.charged + len(TEXT), before.bytes, before.tokens)
    history.rollback(connection, OWNER, chat, 3, NOW)
    history.trim(connection, NOW + 1)
    row = transcripts.find(connection, OWNER, chat, "own")
    assert row.charged == row.bytes


def test_those_of_a_context_are_bounded_with_it(connection: Connection, chat: str, monkeypatch: pytest.MonkeyPatch) -> None:
    size = transcripts.find(connection, OWNER, chat, "own").bytes
    monkeypatch.setattr(transcripts, "CONTEXT_BYTES", size + 2 * len(TEXT))
    summarize(connection, chat)
    summarize(connection, chat)
    with pytest.raises(LimitError):
        summarize(connection, chat)


def test_a_closed_context_takes_none(connection: Connection, chat: str) -> None:
    transcripts.close(connection, OWNER, chat)
    with pytest.raises(ConflictError, match=r"context\.open"):
        summarize(connection, chat)


def test_a_rollback_into_its_sources_hides_it_and_a_restore_brings_it_back(connection: Connection, chat: str) -> None:
    summarize(connection, chat)
    history.snapshot(connection, OWNER, chat, "all", NOW)
    history.rollback(connection, OWNER, chat, 4, NOW)
    assert len(recalled(connection, chat)) == 1
    history.rollback(connection, OWNER, chat, 3, NOW)
    say(connection, chat, "another", "and another")
    assert recalled(connection, chat) == []
    history.restore(connection, OWNER, chat, "all", NOW)
    assert len(recalled(connection, chat)) == 1


def test_a_fork_has_those_that_there_were_of_all_that_it_holds(connection: Connection, chat: str) -> None:
    summarize(connection, chat)
    inside = history.rollback(connection, OWNER, fork(connection, chat, "inside"), 3, NOW).id
    whole = fork(connection, chat, "whole")
    summarize(connection, chat, text="Later: Iceland was too cold.")
    assert [page.text for page in recalled(connection, whole)] == [TEXT]
    assert recalled(connection, inside) == []
    assert len(recalled(connection, chat)) == 2
    assert len(recalled(connection, fork(connection, chat, "latest"))) == 2


def test_what_is_written_of_shared_messages_stays_with_its_owner(connection: Connection, chat: str) -> None:
    transcripts.grant(connection, OWNER, chat, OTHER, "read")
    theirs = fork(connection, chat, owner=OTHER)
    summarize(connection, theirs, text="Bob: Iceland", actor=OTHER)
    summarize(connection, chat)
    assert [page.text for page in recalled(connection, chat)] == [TEXT]
    assert [page.text for page in recalled(connection, theirs, OTHER)] == ["Bob: Iceland"]
    again = fork(connection, theirs, "again", OTHER)
    assert [page.text for page in recalled(connection, again, OTHER)] == ["Bob: Iceland"], "nothing was appended in between"
    transcripts.delete(connection, OWNER, chat)
    assert [page.text for page in recalled(connection, theirs, OTHER)] == ["Bob: Iceland"]


@pytest.fixture(params=["delete", "trim", "expire"])
def erased(request: pytest.FixtureRequest, connection: Connection, chat: str) -> Iterator[None]:
    """A context whose summary is gone, with its sources."""
    summarize(connection, chat)
    if request.param == "delete":
        transcripts.delete(connection, OWNER, chat)
    elif request.param == "expire":
        transcripts.expire(connection, NOW + 1)
    else:
        history.rollback(connection, OWNER, chat, 3, NOW)
        history.trim(connection, NOW + 1)
    yield


@pytest.mark.usefixtures("erased")
def test_it_is_erased_with_its_sources(connection: Connection) -> None:
    for query in ("SELECT count(*) FROM messages WHERE seq < 0", "SELECT count(*) FROM pages", "SELECT count(*) FROM keyword_pages"):
        assert connection.execute(query).fetchone() == (0,), query


def test_the_history_tells_of_it(connection: Connection, chat: str) -> None:
    fork(connection, chat)
    summarize(connection, chat, 1, 5)
    say(connection, chat, "after", now=NOW + 5)
    told = [
        (step.kind, step.time - NOW, step.before, step.after, step.start, step.stop) for step in history.history(connection, OWNER, chat)
    ]
    assert told == [("append", 0, 0, 6, 0, 6), ("summarize", 0, 6, 6, 1, 5), ("append", 5, 6, 7, 6, 7)]
