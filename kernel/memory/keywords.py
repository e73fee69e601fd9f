"""The keyword index: which pages hold a term, and where in their branch they are.

It is one FTS5 table for all, private by construction: each term is written with the branch in front (`12:garden`), so that an entry of one
branch cannot be read by asking for another, and how rare a term is never depends on what others wrote. FTS5 tells who holds a term; that
is scored in `ranking.py`, because FTS5's own bm25() counts over the whole table. How often it stands on a page is not asked: a page is a
few sentences, and to read each occurrence takes four times as long.

A row of `keyword_pages` is written and deleted together with its page; triggers carry both over to FTS5. It holds the terms once more, as
FTS5 must be told what to take out. With `secure-delete` it then takes the entries out at once, not when it next merges.
"""

from typing import TYPE_CHECKING, Final, NamedTuple

from .terms import Language, author_of, language_of, terms, terms_of_day

if TYPE_CHECKING:
    from sqlite3 import Connection  # or sqlcipher3's, which has no types of its own

    import numpy as np
    from numpy.typing import NDArray

SCHEMA: Final = """
CREATE TABLE keyword_pages (
    page INTEGER PRIMARY KEY REFERENCES pages (id) ON DELETE CASCADE,
    branch INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    length INTEGER NOT NULL,
    author TEXT NOT NULL,
    latin TEXT NOT NULL,
    han TEXT NOT NULL,
    terms TEXT NOT NULL
);
CREATE INDEX keyword_pages_of ON keyword_pages (branch, seq, page);

CREATE VIRTUAL TABLE keyword_index USING fts5 (terms, content = '', columnsize = 0, tokenize = "ascii tokenchars ':._'");
INSERT INTO keyword_index (keyword_index, rank) VALUES ('secure-delete', 1);
CREATE VIRTUAL TABLE keyword_entries USING fts5vocab (keyword_index, instance);

CREATE TRIGGER keyword_pages_written AFTER INSERT ON keyword_pages BEGIN
    INSERT INTO keyword_index (rowid, terms) VALUES (new.page, replace(new.terms, ' ', ' ' || new.branch || ':'));
END;
CREATE TRIGGER keyword_pages_deleted AFTER DELETE ON keyword_pages BEGIN
    INSERT INTO keyword_index (keyword_index, rowid, terms)
    VALUES ('delete', old.page, replace(old.terms, ' ', ' ' || old.branch || ':'));
END;
"""
"""Needs a table `pages` with an `id`, and `PRAGMA foreign_keys = ON` for the cascade. A row is never updated."""

TERMS: Final = """
DROP TABLE keyword_entries;
CREATE VIRTUAL TABLE keyword_terms USING fts5vocab (keyword_index, row);
"""
"""In place of single occurrences, which nobody reads any more, on how many pages each term stands."""


class Entry(NamedTuple):
    """A page as the index knows it: `seq` is the place of its message in the context, `length` its number of terms."""

    page: int
    seq: int
    length: int
    author: str
    language: Language


def add(connection: "Connection", branch: int, page: int, seq: int, text: str, time: float) -> Entry:
    """Write a page into the index. `time`, in seconds since 1970, is when its message was said."""
    language = language_of(text)
    found = [*terms(text, language), *terms_of_day(time)]
    entry = Entry(page, seq, len(found), author_of(text), language)
    row = (page, branch, seq, entry.length, entry.author, *language, "".join(f" {term}" for term in found))
    connection.execute("INSERT INTO keyword_pages VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
    return entry


def entries(connection: "Connection", branch: int) -> list[Entry]:
    """The pages of a branch, in order."""
    query = "SELECT page, seq, length, author, latin, han FROM keyword_pages WHERE branch = ? ORDER BY seq, page"
    rows = connection.execute(query, (branch,))
    return [Entry(page, seq, length, author, Language(latin, han)) for page, seq, length, author, latin, han in rows]


def holders(connection: "Connection", branch: int, term: str, since: int = 0) -> "NDArray[np.int64]":
    """The pages of a branch that hold a term, from page `since` on, int64, in the order of their ids."""
    import numpy as np

    # One row of text instead of thousands of numbers: ten times faster to read.
    query = "SELECT json_group_array(rowid) FROM keyword_index WHERE keyword_index MATCH ? AND rowid >= ?"
    (found,) = connection.execute(query, (f'"{branch}:{term}"', since)).fetchone()
    return np.fromstring(found[1:-1], dtype=np.int64, sep=",")


def common(connection: "Connection", branch: int, least: int) -> list[str]:
    """The terms that stand on more than `least` pages of a branch, the commonest last. Reads all its terms, 10 ms for 10,000 pages."""
    query = "SELECT term FROM keyword_terms WHERE term >= ? AND term < ? AND doc > ? ORDER BY doc"
    prefix, behind = f"{branch}:", f"{branch};"  # a semicolon comes after a colon
    return [term.removeprefix(prefix) for (term,) in connection.execute(query, (prefix, behind, least))]
