"""Files that are searched: what is text, and that it goes with its version."""

import pytest

from kernos.kernel.memory import filestore, library
from kernos.kernel.memory.connection import Connection
from kernos.kernel.memory.filestore import FileRow
from kernos.kernel.memory.library import SEARCHED_BYTES, text_of

ANNA = "user:anna"


def put(connection: Connection, path: str, data: bytes) -> FileRow:
    return filestore.put(connection, ANNA, ANNA, path, data, None, (ANNA,), 0.0)


def rows(connection: Connection) -> list[int]:
    """Messages, pages, keyword rows and terms of the keyword index."""
    tables = ("messages", "pages", "keyword_pages", "keyword_terms")
    return [connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"a\tb\r\nc\f", "a\tb\r\nc\f"),
        ("grün 花".encode(), "grün 花"),
        (b"\xef\xbb\xbfmarked", "marked"),
        (b"", ""),
        (b"zero\0", ""),
        (b"\x1b[1mbold", ""),
        ("grün".encode("latin-1"), ""),
        ("花".encode("utf-16"), ""),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3", ""),
    ],
)
def test_what_is_text(data: bytes, text: str) -> None:
    assert text_of(data, whole=True) == text


@pytest.mark.parametrize("cut", range(5))
def test_a_beginning_may_end_within_a_character(cut: int) -> None:
    whole = "ab𝄞".encode()
    assert text_of(whole[: 2 + cut], whole=False) == ("ab𝄞" if cut == 4 else "ab")
    assert bool(text_of(whole[: 2 + cut], whole=True)) == (cut in (0, 4))


def test_of_a_large_file_the_beginning_is_searched(connection: Connection) -> None:
    file = put(connection, "large", ("ü" * SEARCHED_BYTES).encode())
    library.shelve(connection, file)
    assert connection.execute("SELECT length(text) FROM messages").fetchone()[0] == SEARCHED_BYTES // 2


def test_the_text_of_a_version_goes_with_it(connection: Connection) -> None:
    first = library.shelve(connection, put(connection, "notes", b"tulips " * 300))
    assert len(first.made) > 1
    assert not first.gone
    second = library.shelve(connection, put(connection, "notes", b"roses"))
    assert second.gone == [entry.page for _, entry in first.made]
    assert len(second.made) == 1
    assert rows(connection)[:3] == [1, 1, 1]
    binary = library.shelve(connection, put(connection, "notes", b"\0"))
    assert binary.gone == [entry.page for _, entry in second.made]
    assert rows(connection) == [0, 0, 0, 0]


def test_a_deleted_file_leaves_nothing(connection: Connection) -> None:
    for path in ("a", "b"):
        library.shelve(connection, put(connection, path, b"tulips"))
    file = filestore.find(connection, ANNA, ANNA, "a")
    assert len(library.removal(connection, file).gone) == 1
    filestore.delete(connection, ANNA, ANNA, "a")
    assert rows(connection)[:3] == [1, 1, 1]
    filestore.delete(connection, ANNA, ANNA, "b")
    assert rows(connection) == [0, 0, 0, 0]


def test_runs_of_files_are_one_span_unless_others_lie_between(connection: Connection) -> None:
    keys = [library.shelve(connection, put(connection, path, b"x")) and filestore.find(connection, ANNA, ANNA, path).key for path in "abcd"]
    filestore.put(connection, "user:ben", "user:ben", "between", b"x", None, ("user:ben",), 0.0)
    keys.append(put(connection, "e", b"x").key)
    branch = library.branch_of(connection, ANNA)
    assert branch is not None

    def found(*chosen: int) -> list[tuple[int, int]]:
        return [(span.start, span.stop) for span in library.spans(connection, ANNA, branch, chosen)]

    assert found(*keys) == [(keys[0], keys[-1] + 1)]
    assert found(keys[0], keys[1], keys[3]) == [(keys[0], keys[1] + 1), (keys[3], keys[3] + 1)]
    assert found() == []
