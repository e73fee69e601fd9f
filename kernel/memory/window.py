"""What a context shows of itself to its model: the messages that are resident, and the pages of those that have left.

Messages from `resident` on are in the window, and so are pinned ones before that. A page is a message, or a part of one that is long; it is
found by keyword at once and by meaning when its sentences have vectors. Pages are made when messages leave, or are searched for before
that; they belong to messages, so that contexts that share a message share its pages, and go with it.
"""

from collections.abc import Iterable, Iterator
from itertools import islice, pairwise
from typing import Final, Literal, NamedTuple

import msgspec

from kernos.syscalls.errors import ConflictError
from kernos.syscalls.model import Role

from . import keywords
from .branches import spans
from .connection import Connection
from .history import note
from .keywords import Entry
from .ranking import Recalled
from .sentences import cuts
from .transcripts import ContextRow, StoredMessage, by_key, find, messages_of, of

PAGE_CHARACTERS: Final = 300
"""The longest page. Some 75 tokens: a few sentences, enough to be understood, and a dozen of them fit what may be recalled."""

_TOLD: Final = 8
"""Pages that are read at a time at the most: half of what usually fits what may be recalled."""

Made = list[tuple[int, Entry]]
"""Pages that were made, and the branch that each is of."""


class Page(msgspec.Struct, frozen=True):
    """Characters `start` to `stop` of message `message`, which is number `seq` of the context that was asked about."""

    id: int
    message: int
    seq: int
    start: int
    stop: int
    model: str | None
    """The model that made its vector; `None`: not embedded yet."""


class Unembedded(msgspec.Struct, frozen=True):
    """A page without a vector, the branch it is of, and its text."""

    id: int
    branch: int
    text: str


class PageText(NamedTuple):
    """What a page says, and which part of which message it is; the sources are those of a summary."""

    seq: int
    role: Role
    start: int
    text: str
    time: float
    labels: str
    source_start: int | None
    source_stop: int | None


class MessageState(msgspec.Struct, frozen=True):
    """Where a message is; `embedded` if it has pages and all of them have vectors."""

    seq: int
    state: Literal["resident", "pinned", "paged"]
    embedded: bool


def resident(connection: Connection, actor: str, id_: str) -> list[StoredMessage]:
    """The messages in the window, in order."""
    row = find(connection, actor, id_, "read")
    pinned = [found for seq in pins(connection, row) if seq < row.resident for found in messages_of(connection, row, seq, seq + 1)]
    return pinned + messages_of(connection, row, row.resident, row.length)


def pin(connection: Connection, actor: str, id_: str, start: int, stop: int) -> None:
    """Keep messages `start` to `stop` in the window, and bring back those that have left."""
    row = find(connection, actor, id_, "own")
    if not 0 <= start < stop <= row.length:
        raise ConflictError(f"The context {row.name} has {row.length} messages; {start} to {stop} are not all among them.")
    connection.executemany("INSERT OR IGNORE INTO pins VALUES (?, ?)", [(row.key, seq) for seq in range(start, stop)])


def unpin(connection: Connection, actor: str, id_: str, start: int, stop: int) -> Made:
    """Let messages leave the window; those before its beginning are out of it at once, with pages to find them by."""
    row = find(connection, actor, id_, "own")
    connection.execute("DELETE FROM pins WHERE context = ? AND seq >= ? AND seq < ?", (row.key, start, stop))
    return _make_pages(connection, row, start, min(stop, row.resident))


def page_out(connection: Connection, actor: str, id_: str, until: int, now: float) -> tuple[ContextRow, Made]:
    """Let the messages before `until` leave the window, but for pinned ones; nothing is lost, and no model is asked."""
    row = find(connection, actor, id_, "append")
    if not row.resident <= until <= row.length:
        raise ConflictError(f"The window of {row.name} begins at {row.resident} and ends at {row.length}; {until} is not within.")
    made = _make_pages(connection, row, row.resident, until)
    connection.execute("UPDATE contexts SET resident = ? WHERE key = ?", (until, row.key))
    gone = by_key(connection, row.key)
    note(connection, gone, actor, "page_out", now, before=row.length, start=row.resident, stop=until)
    return gone, made


def paginate(connection: Connection, branch: int, message: int, seq: int, time: float, text: str) -> Made:
    """Make the pages of a message, which is found in its branch as number `seq`."""
    insert = "INSERT INTO pages (message, start, stop) VALUES (?, ?, ?) RETURNING id"
    made = []
    for start, stop in pairwise(cuts(text, PAGE_CHARACTERS)):
        page = connection.execute(insert, (message, start, stop)).fetchone()[0]
        made.append((branch, keywords.add(connection, branch, page, seq, text[start:stop], time)))
    return made


def unpaged(connection: Connection, owner: str) -> bool:
    """Whether there is anything in an owner's windows that has no page yet."""
    return any(_unpaged(connection, row, row.resident, row.length, 1) for row in of(connection, owner))


def index(connection: Connection, owner: str, limit: int) -> Made:
    """Make pages for what is still in an owner's windows, so that it can be searched: for some `limit` messages at a time."""
    made: Made = []
    for row in of(connection, owner):
        if len(made) >= limit:
            break
        made += _make_pages(connection, row, row.resident, row.length, limit - len(made))
    return made


def pins(connection: Connection, row: ContextRow) -> list[int]:
    """The pinned messages of a context."""
    return [seq for (seq,) in connection.execute("SELECT seq FROM pins WHERE context = ? ORDER BY seq", (row.key,))]


def states(connection: Connection, actor: str, id_: str, start: int, stop: int) -> list[MessageState]:
    """Where messages `start` to `stop` are."""
    row = find(connection, actor, id_, "read")
    pinned = set(pins(connection, row))
    embedded: dict[int, bool] = {}
    for page in pages(connection, actor, id_, start, stop):
        embedded[page.seq] = embedded.get(page.seq, True) and page.model is not None
    return [
        MessageState(seq, "pinned" if seq in pinned else "resident" if seq >= row.resident else "paged", embedded.get(seq, False))
        for seq in range(max(0, start), min(stop, row.length))
    ]


def pages(connection: Connection, actor: str, id_: str, start: int = 0, stop: int | None = None) -> list[Page]:
    """The pages of messages that this context has let go, in order."""
    row = find(connection, actor, id_, "read")
    query = """
        SELECT pages.id, message, seq, start, stop, model FROM messages JOIN pages ON message = messages.id
        WHERE branch = ? AND seq >= ? AND seq < ? ORDER BY seq, start"""
    end = row.resident if stop is None else min(stop, row.resident)
    parts = spans(connection, row.branch, max(0, start), end)
    pinned = set(pins(connection, row))
    found = [Page(*values) for part in parts for values in connection.execute(query, (part.branch, part.start, part.stop))]
    return [page for page in found if page.seq not in pinned]


def told(connection: Connection, ranked: Iterator[Recalled]) -> Iterator[tuple[Recalled, PageText]]:
    """What pages say, in the order given; those that are gone are passed over. Read as they are asked for, ever more at a time."""
    query = """
        SELECT pages.id, seq, role, start, substr(text, start + 1, stop - start), time, coalesce(labels, '[]'), source_start, source_stop
        FROM json_each(?) JOIN pages ON pages.id = value JOIN messages ON messages.id = message"""
    size = 1  # the best may be all that is wanted: of many contexts that are searched together most give none
    while some := list(islice(ranked, size)):
        rows = connection.execute(query, (str([points.page for points in some]),))
        texts = {page: PageText(*row) for page, *row in rows}
        yield from ((points, texts[points.page]) for points in some if points.page in texts)
        size = min(4 * size, _TOLD)


# --- for the kernel itself, which embeds the pages of everybody ------------------------------------------------------------------


def unembedded(connection: Connection, limit: int) -> list[Unembedded]:
    """Pages that wait for a vector, the oldest first."""
    query = """
        SELECT pages.id, branch, substr(text, start + 1, stop - start)
        FROM pages JOIN messages ON messages.id = message WHERE vector IS NULL ORDER BY pages.id LIMIT ?"""
    return [Unembedded(*found) for found in connection.execute(query, (limit,))]


def embedded(connection: Connection, model: str, found: Iterable[tuple[int, bytes]]) -> None:
    """Keep the vectors of pages, by id, those of a page's sentences one behind the other; what is gone meanwhile is passed over."""
    connection.executemany("UPDATE pages SET model = ?, vector = ? WHERE id = ?", [(model, vector, page) for page, vector in found])


def forget_vectors(connection: Connection, model: str) -> None:
    """Let all pages that another model than this embedded be embedded anew."""
    connection.execute("UPDATE pages SET model = NULL, vector = NULL WHERE model != ?", (model,))


def vectors_of(connection: Connection, branch: int, model: str) -> list[tuple[int, bytes]]:
    """Page and vectors of all pages of a branch that this model has embedded."""
    query = "SELECT pages.id, vector FROM messages JOIN pages ON message = messages.id WHERE branch = ? AND model = ?"
    return connection.execute(query, (branch, model)).fetchall()


def _make_pages(connection: Connection, row: ContextRow, start: int, stop: int, limit: int = -1) -> Made:
    """Pages for messages; one that has left another context before, or was searched for, has its pages already."""
    return [page for found in _unpaged(connection, row, start, stop, limit) for page in paginate(connection, *found)]


def _unpaged(connection: Connection, row: ContextRow, start: int, stop: int, limit: int) -> list[tuple[int, int, int, float, str]]:
    """Messages without pages, `limit` of each branch at the most: branch, id, number, time and text."""
    query = """
        SELECT branch, id, seq, time, text FROM messages WHERE branch = ? AND seq >= ? AND seq < ?
        AND id NOT IN (SELECT message FROM pages WHERE message = messages.id) ORDER BY seq LIMIT ?"""
    parts = spans(connection, row.branch, max(0, start), stop)
    return [found for part in parts for found in connection.execute(query, (part.branch, part.start, part.stop, limit))]
