"""Contexts: order, totals, grants, closing, deletion; forks, rollbacks and snapshots against a naive copy of everything."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernos.kernel.memory import branches, history, summaries, transcripts, window
from kernos.kernel.memory.connection import Connection
from kernos.kernel.memory.transcripts import ContextRow, NewMessage
from kernos.syscalls.errors import ConflictError, DeniedError, LimitError, NotFoundError, StorageError
from tests.kernel.fakes import examples
from tests.kernel.memory.storage import NOW, OWNER, PAYERS, context, id_of, say, texts

OTHER = "user:bob"


def test_a_message_comes_back_as_it_was(connection: Connection) -> None:
    row = context(connection)
    new = NewMessage("tool", "text\0with\nall 書", 7, ("phi",), b'{"name":"x"}')
    after = transcripts.append(connection, OWNER, row.id, [new], "tiny", NOW)
    (message,) = transcripts.read(connection, OWNER, row.id, 0, 10)
    kept = NewMessage(message.role, message.text, message.tokens, message.labels, message.calls)
    assert (kept, message.seq, message.time, message.tokenizer) == (new, 0, NOW, "tiny")
    assert (after.length, after.tokens, after.bytes, after.labels) == (1, 7, len(new.text.encode()) + len(new.calls), ("phi",))


def test_a_run_of_messages_is_read_by_its_numbers(connection: Connection) -> None:
    row = context(connection)
    say(connection, row.id, *map(str, range(10)))
    assert [message.text for message in transcripts.read(connection, OWNER, row.id, 3, 6)] == ["3", "4", "5"]
    assert transcripts.read(connection, OWNER, row.id, 10, 20) == []
    assert [message.text for message in transcripts.read(connection, OWNER, row.id, -5, 1)] == ["0"]


def test_a_name_is_one_context_of_its_owner(connection: Connection) -> None:
    first = context(connection)
    assert transcripts.open_context(connection, OWNER, "chat", id_of("another"), PAYERS, NOW + 1) == first
    theirs = context(connection, owner=OTHER)
    assert theirs.id != first.id
    assert [row.id for row in transcripts.of(connection, OWNER)] == [first.id]


def test_what_a_context_is_charged(connection: Connection) -> None:
    row = transcripts.open_context(connection, OWNER, "chat", id_of("chat"), PAYERS, NOW)
    say(connection, row.id, "12345", "678")
    assert transcripts.charges(connection) == [(PAYERS, 1, 8)]
    history.rollback(connection, OWNER, row.id, 1, NOW)
    assert (transcripts.find(connection, OWNER, row.id, "own").bytes, transcripts.charges(connection)) == (5, [(PAYERS, 1, 8)])
    assert history.trim(connection, NOW + 1) == [(PAYERS, 3)]
    assert transcripts.charges(connection) == [(PAYERS, 1, 5)]


def test_contexts_that_nobody_uses_expire(connection: Connection) -> None:
    old, used = context(connection, "old"), context(connection, "used")
    say(connection, old.id, "a")
    say(connection, used.id, "b", now=NOW + 10)
    assert [row.id for row in transcripts.expire(connection, NOW + 5)] == [old.id]
    assert [row.id for row in transcripts.of(connection, OWNER)] == [used.id]


def test_a_context_has_a_largest_size(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcripts, "CONTEXT_BYTES", 10)
    row = context(connection)
    say(connection, row.id, "12345", "67890")
    with pytest.raises(LimitError):
        say(connection, row.id, "1")


def test_a_closed_context_takes_nothing_until_it_is_opened(connection: Connection) -> None:
    row = context(connection)
    transcripts.close(connection, OWNER, row.id)
    with pytest.raises(ConflictError, match=r"context\.open"):
        say(connection, row.id, "a")
    assert context(connection).id == row.id
    say(connection, row.id, "a")


def test_labels_and_models_change(connection: Connection) -> None:
    row = context(connection)
    transcripts.append(connection, OWNER, row.id, [NewMessage("user", "a", 1, ("untrusted",))], "tiny", NOW)
    transcripts.label(connection, OWNER, row.id, ["phi", "phi"], ["untrusted"])
    transcripts.attach(connection, OWNER, row.id, "smollm2")
    found = transcripts.find(connection, OWNER, row.id, "own")
    assert (found.labels, found.model) == (("phi",), "smollm2")


def test_a_message_that_was_changed_is_not_read(connection: Connection) -> None:
    row = context(connection)
    say(connection, row.id, "true")
    connection.execute("UPDATE messages SET text = 'false'")
    with pytest.raises(StorageError, match="not what was written"):
        texts(connection, row.id)


# --- grants


def test_nobody_sees_what_is_not_his(connection: Connection) -> None:
    row = context(connection)
    say(connection, row.id, "secret")
    acts: list[Callable[[], object]] = [
        lambda: texts(connection, row.id, OTHER),
        lambda: say(connection, row.id, "x", actor=OTHER),
        lambda: history.fork(connection, OTHER, row.id, "mine", id_of("new"), PAYERS, NOW),
        lambda: history.history(connection, OTHER, row.id),
        lambda: history.snapshots(connection, OTHER, row.id),
        lambda: window.resident(connection, OTHER, row.id),
        lambda: window.pages(connection, OTHER, row.id),
        lambda: window.states(connection, OTHER, row.id, 0, 1),
        lambda: transcripts.delete(connection, OTHER, row.id),
        lambda: transcripts.grant(connection, OTHER, row.id, OTHER, "append"),
    ]
    for act in acts:
        with pytest.raises(NotFoundError):
            act()


@pytest.mark.parametrize("id_", ["", "nothing", "00", "\U0001f4c4", "0" * 24])
def test_an_id_that_was_never_given_is_not_found(connection: Connection, id_: str) -> None:
    with pytest.raises(NotFoundError):
        texts(connection, id_)


def test_a_grant_allows_what_it_says_until_it_ends(connection: Connection) -> None:
    row = context(connection)
    say(connection, row.id, "a")
    transcripts.grant(connection, OWNER, row.id, OTHER, "read")
    assert texts(connection, row.id, OTHER) == ["a"]
    assert [found.id for found in transcripts.granted(connection, OTHER)] == [row.id]
    with pytest.raises(DeniedError, match="read the context chat, and no more"):
        say(connection, row.id, "x", actor=OTHER)
    transcripts.grant(connection, OWNER, row.id, OTHER, "append")
    say(connection, row.id, "b", actor=OTHER)
    with pytest.raises(DeniedError):
        transcripts.delete(connection, OTHER, row.id)
    fork = history.fork(connection, OTHER, row.id, "mine", id_of("new"), PAYERS, NOW)
    transcripts.grant(connection, OWNER, row.id, OTHER, None)
    with pytest.raises(NotFoundError):
        texts(connection, row.id, OTHER)
    assert texts(connection, fork.id, OTHER) == ["a", "b"]
    with pytest.raises(NotFoundError):
        texts(connection, fork.id, OWNER)


# --- history


def test_the_history_tells_all_that_was_done(connection: Connection) -> None:
    row = context(connection)
    say(connection, row.id, "a", "b", now=NOW + 1)
    say(connection, row.id, "c", now=NOW + 2)
    history.snapshot(connection, OWNER, row.id, "here", NOW + 3)
    history.rollback(connection, OWNER, row.id, 1, NOW + 4)
    say(connection, row.id, "d", now=NOW + 5)
    history.restore(connection, OWNER, row.id, "here", NOW + 6)
    window.page_out(connection, OWNER, row.id, 2, NOW + 7)
    say(connection, row.id, "e", now=NOW + 8)
    told = [
        (step.kind, step.time - NOW, step.before, step.after, step.start, step.stop) for step in history.history(connection, OWNER, row.id)
    ]
    assert told == [
        ("append", 1, 0, 3, 0, 3),
        ("snapshot", 3, 3, 3, 0, 3),
        ("rollback", 4, 3, 1, 1, 3),
        ("append", 5, 1, 2, 1, 2),
        ("restore", 6, 2, 3, 3, 3),
        ("page_out", 7, 3, 3, 0, 2),
        ("append", 8, 3, 4, 3, 4),
    ]
    fork = history.fork(connection, OWNER, row.id, "fork", id_of("fork"), PAYERS, NOW + 9)
    say(connection, fork.id, "f", now=NOW + 10)
    forked = history.history(connection, OWNER, fork.id)
    assert [(step.kind, step.before, step.after, step.detail) for step in forked] == [("fork", 0, 4, row.id), ("append", 4, 5, "")]


def test_a_point_that_does_not_exist_is_refused(connection: Connection) -> None:
    row = context(connection)
    say(connection, row.id, "a")
    with pytest.raises(ConflictError, match="has 1 messages, not 2"):
        history.rollback(connection, OWNER, row.id, 2, NOW)
    with pytest.raises(NotFoundError):
        history.restore(connection, OWNER, row.id, "nowhere", NOW)
    with pytest.raises(ConflictError, match="another name"):
        history.fork(connection, OWNER, row.id, "chat", id_of("new"), PAYERS, NOW)


def test_a_long_line_of_forks_is_read_whole(connection: Connection) -> None:
    row = context(connection)
    for number in range(200):
        say(connection, row.id, str(number))
        row = history.fork(connection, OWNER, row.id, f"fork{number}", id_of(number), PAYERS, NOW)
    assert texts(connection, row.id) == [str(number) for number in range(200)]


def test_forks_that_add_nothing_make_no_chain(connection: Connection) -> None:
    row = context(connection)
    say(connection, row.id, "a")
    for number in range(50):
        row = history.fork(connection, OWNER, row.id, f"fork{number}", id_of(number), PAYERS, NOW)
        history.rollback(connection, OWNER, row.id, 1, NOW)
    row = transcripts.find(connection, OWNER, row.id, "own")
    assert len(branches.spans(connection, row.branch, 0, 1)) == 1
    parent = connection.execute("SELECT parent FROM branches WHERE id = ?", (row.branch,)).fetchone()[0]
    assert connection.execute("SELECT parent FROM branches WHERE id = ?", (parent,)).fetchone() == (None,)


@dataclass
class Copy:
    """A context as one that copies everything would keep it."""

    owner: str
    texts: list[str] = field(default_factory=list)
    summaries: dict[str, int] = field(default_factory=dict)
    """Where each one's sources end."""
    snapshots: dict[str, tuple[list[str], dict[str, int]]] = field(default_factory=dict)
    grants: set[str] = field(default_factory=set)


OPERATIONS = (
    "append",
    "append",
    "append",
    "fork",
    "rollback",
    "snapshot",
    "restore",
    "drop",
    "delete",
    "page_out",
    "trim",
    "grant",
    "revoke",
    "summarize",
)
LINES = ("append", "fork", "rollback", "snapshot", "restore", "delete", "trim", "summarize", "summarize", "summarize")
"""Of these, what makes lines and summaries."""
PRINCIPALS = [f"user:p{number}" for number in range(20)]
Step = tuple[str, int, int, str]
who = st.sampled_from(PRINCIPALS)
steps = st.lists(st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 5), st.integers(0, 9), who), min_size=1, max_size=40)
few = st.lists(st.tuples(st.sampled_from(LINES), st.integers(0, 1), st.integers(0, 4), st.just(OWNER)), min_size=8, max_size=16)


@examples(150)
@given(steps)
def test_against_copies(connection: Connection, steps: list[Step]) -> None:
    _run_against_copies(connection, steps)


@examples(150)
@given(few)
def test_summaries_against_copies(connection: Connection, steps: list[Step]) -> None:
    _run_against_copies(connection, [("append", 0, 0, OWNER), ("append", 0, 2, OWNER), *steps])


def _run_against_copies(connection: Connection, steps: list[Step]) -> None:
    connection.execute("SAVEPOINT example")
    try:
        model: dict[str, Copy] = {}
        for number, step in enumerate(steps):
            _step(connection, model, number, *step)
            _compare(connection, model)
        for id_ in list(model):
            transcripts.delete(connection, model.pop(id_).owner, id_)
            _compare(connection, model)
        left = [connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("branches", "messages", "pages", "pins")]
        assert left == [0, 0, 0, 0]
    finally:
        connection.execute("ROLLBACK TO example")
        connection.execute("RELEASE example")


def _step(connection: Connection, model: dict[str, Copy], number: int, kind: str, which: int, point: int, who: str) -> None:  # noqa: C901  (a branch per operation)
    if len(model) <= which and kind not in ("fork", "trim"):
        row = context(connection, f"c{number}", who)
        model[row.id] = Copy(who)
        return
    if not model:
        return
    id_ = sorted(model)[which % len(model)]
    copy = model[id_]
    length = min(point, len(copy.texts))
    match kind:
        case "append":
            added = [f"{number}.{index} of {copy.owner}" for index in range(point % 3 + 1)]
            say(connection, id_, *added, actor=copy.owner)
            copy.texts += added
        case "fork":
            if who not in copy.grants | {copy.owner}:
                with pytest.raises(NotFoundError):
                    history.fork(connection, who, id_, f"f{number}", id_of(number), PAYERS, NOW)
                return
            model[history.fork(connection, who, id_, f"f{number}", id_of(number), PAYERS, NOW).id] = Copy(
                who, [*copy.texts], {**copy.summaries}
            )
        case "rollback":
            history.rollback(connection, copy.owner, id_, length, NOW)
            del copy.texts[length:]
            copy.summaries = {text: stop for text, stop in copy.summaries.items() if stop <= length}
        case "snapshot":
            history.snapshot(connection, copy.owner, id_, f"s{point % 2}", NOW)
            copy.snapshots[f"s{point % 2}"] = ([*copy.texts], {**copy.summaries})
        case "restore" if f"s{point % 2}" in copy.snapshots:
            history.restore(connection, copy.owner, id_, f"s{point % 2}", NOW)
            said, kept = copy.snapshots[f"s{point % 2}"]
            copy.texts, copy.summaries = [*said], {**kept}
        case "drop" if f"s{point % 2}" in copy.snapshots:
            history.drop_snapshot(connection, copy.owner, id_, f"s{point % 2}")
            del copy.snapshots[f"s{point % 2}"]
        case "delete":
            transcripts.delete(connection, copy.owner, id_)
            del model[id_]
        case "page_out":
            resident = transcripts.find(connection, copy.owner, id_, "own").resident
            window.page_out(connection, copy.owner, id_, max(length, resident), NOW)
        case "trim":
            history.trim(connection, NOW + 1)
        case "grant":
            transcripts.grant(connection, copy.owner, id_, who, "read")
            copy.grants.add(who)
        case "revoke":
            transcripts.grant(connection, copy.owner, id_, who, None)
            copy.grants.discard(who)
        case "summarize" if length:
            summaries.summarize(connection, copy.owner, id_, 0, length, f"summary {number}", (), NOW)
            copy.summaries[f"summary {number}"] = length


def _summaries(connection: Connection, row: ContextRow) -> list[str]:
    """The summaries that can be recalled in a context when all of it has left the window."""
    query = """
        SELECT text FROM keyword_pages AS entry JOIN pages ON entry.page = pages.id JOIN messages ON message = messages.id
        WHERE messages.seq < 0 AND entry.branch = ? AND entry.seq >= ? AND entry.seq < ?"""
    parts = branches.reach(connection, row.branch, row.length)
    return [text for part in parts for (text,) in connection.execute(query, (part.branch, part.start, part.stop))]


def _compare(connection: Connection, model: dict[str, Copy]) -> None:
    for id_, copy in model.items():
        row = transcripts.find(connection, copy.owner, id_, "own")
        assert texts(connection, id_, copy.owner) == copy.texts
        assert (row.length, row.tokens) == (len(copy.texts), len(copy.texts))
        assert row.bytes == sum(len(text) for text in copy.texts) <= row.charged
        assert {shot.name: shot.length for shot in history.snapshots(connection, copy.owner, id_)} == {
            name: len(said) for name, (said, _) in copy.snapshots.items()
        }
        assert [page.seq for page in window.pages(connection, copy.owner, id_)] == list(range(row.resident))
        assert len(window.resident(connection, copy.owner, id_)) == row.length - row.resident
        assert sorted(_summaries(connection, row)) == sorted(copy.summaries)
        history.history(connection, copy.owner, id_)
        _compare_access(connection, id_, copy)


def _compare_access(connection: Connection, id_: str, copy: Copy) -> None:
    """Everybody sees what is his or granted to him; of the others, one is tried each time."""
    for who in copy.grants:
        assert texts(connection, id_, who) == copy.texts
    stranger = PRINCIPALS[hashlib.sha256(id_.encode()).digest()[0] % 20]
    if stranger not in copy.grants | {copy.owner}:
        with pytest.raises(NotFoundError):
            texts(connection, id_, stranger)
