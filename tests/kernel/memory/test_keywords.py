"""The keyword index against a model, and what is left of a page that was deleted."""

from collections import Counter
from pathlib import Path
from sqlite3 import Connection

from hypothesis import given
from hypothesis import strategies as st
from sqlcipher3 import dbapi2

from kernos.kernel.memory import keywords
from kernos.kernel.memory.terms import language_of, terms, terms_of_day
from tests.kernel.fakes import examples

DAY = 1_683_500_000.0
WORDS = ("garden", "12:garden", "2:rose", "花园", "snake_case", "3.14", "it's", '"', "née")


def database(path: str = ":memory:") -> Connection:
    connection: Connection = dbapi2.connect(path, isolation_level=None)  # pyright: ignore[reportAttributeAccessIssue]
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA secure_delete = ON").fetchall()
    connection.execute("CREATE TABLE pages (id INTEGER PRIMARY KEY)")
    connection.executescript(keywords.SCHEMA + keywords.TERMS)
    return connection


def write(connection: Connection, branch: int, page: int, seq: int, text: str) -> keywords.Entry:
    connection.execute("INSERT INTO pages VALUES (?)", (page,))
    return keywords.add(connection, branch, page, seq, text, DAY)


def delete(connection: Connection, page: int) -> None:
    connection.execute("DELETE FROM pages WHERE id = ?", (page,))


def check(connection: Connection) -> None:
    connection.execute("INSERT INTO keyword_index (keyword_index) VALUES ('integrity-check')")


def test_a_page_is_found_by_its_words_and_its_day() -> None:
    connection = database()
    entry = write(connection, 7, 1, 0, "Anna: the garden, my garden")
    assert entry == keywords.Entry(1, 0, 3 + 5, "anna", entry.language)
    assert keywords.holders(connection, 7, "garden").tolist() == [1]
    assert keywords.holders(connection, 7, "may").tolist() == [1]
    assert keywords.holders(connection, 7, "rose").tolist() == []
    assert keywords.entries(connection, 7) == [entry]


def test_branches_do_not_see_each_other() -> None:
    connection = database()
    write(connection, 1, 1, 0, "2:garden 12:garden")
    write(connection, 12, 2, 0, "garden")
    assert keywords.holders(connection, 2, "garden").tolist() == []
    assert keywords.holders(connection, 12, "garden").tolist() == [2]
    assert keywords.holders(connection, 1, "2:garden").tolist() == []
    assert keywords.entries(connection, 2) == []


def test_pages_come_in_the_order_of_their_messages() -> None:
    connection = database()
    entries = [write(connection, 1, page, seq, "garden") for page, seq in ((1, 5), (2, 2), (3, 5), (4, 0))]
    assert keywords.entries(connection, 1) == [entries[3], entries[1], entries[0], entries[2]]


def test_nothing_is_left_of_a_deleted_page(tmp_path: Path) -> None:
    path = tmp_path / "plain.db"  # not encrypted here, so that the file can be searched
    connection = database(str(path))
    write(connection, 1, 1, 0, "the zanzibar garden")
    write(connection, 1, 2, 1, "garden")
    assert b"zanzibar" in path.read_bytes()
    delete(connection, 1)
    assert b"zanzibar" not in path.read_bytes()
    assert keywords.holders(connection, 1, "garden").tolist() == [2]
    check(connection)


texts = st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join) | st.text(max_size=20)
steps = st.lists(st.tuples(st.integers(1, 3), texts) | st.integers(0, 20), max_size=12)


@given(steps)
@examples(60)
def test_the_index_is_what_was_written_and_not_deleted(steps: list[tuple[int, str] | int]) -> None:
    connection = database()
    model: dict[int, tuple[int, Counter[str]]] = {}
    for page, step in enumerate(steps):
        if isinstance(step, int):
            delete(connection, step)
            model.pop(step, None)
        else:
            branch, text = step
            write(connection, branch, page, page, text)
            model[page] = branch, Counter([*terms(text, language_of(text)), *terms_of_day(DAY)])
    check(connection)
    for branch in (1, 2, 3):
        own = {page: counts for page, (of, counts) in model.items() if of == branch}
        assert [(entry.page, entry.length) for entry in keywords.entries(connection, branch)] == [
            (page, counts.total()) for page, counts in own.items()
        ]
        for term in {term for _, counts in model.values() for term in counts}:
            want = [page for page, counts in own.items() if counts[term]]
            assert keywords.holders(connection, branch, term).tolist() == want
            assert keywords.holders(connection, branch, term, since=5).tolist() == [page for page in want if page >= 5]
        held = Counter(term for counts in own.values() for term in counts)
        assert sorted(keywords.common(connection, branch, 1)) == sorted(term for term, count in held.items() if count > 1)
