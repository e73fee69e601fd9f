"""Rows of files that people bring: good ones are used, bad ones are told."""

import io
from pathlib import Path
from typing import Annotated

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from kernos.agents.rows import BadRow, InputError, read_rows


class Sale(msgspec.Struct, frozen=True):
    item: Annotated[str, Meta(min_length=1)]
    price: Annotated[float, Meta(gt=0)]
    note: str = "none"


def written(tmp_path: Path, name: str, text: str) -> Path:
    file = tmp_path / name
    file.write_bytes(text.encode())
    return file


def test_csv_and_jsonl_say_the_same(tmp_path: Path) -> None:
    table = written(tmp_path, "a.csv", "price,item,colour,note\r\n4.5,lamp,red,\r\n\r\n9,pot,blue,heavy\r\n")
    lines = written(tmp_path, "a.jsonl", '{"item": "lamp", "price": 4.5, "age": 3}\n\n{"item": "pot", "price": 9, "note": "heavy"}\n')
    assert read_rows(table, Sale).rows == read_rows(lines, Sale).rows == [Sale("lamp", 4.5), Sale("pot", 9.0, "heavy")]


def test_a_bad_row_is_told_by_the_line_on_which_it_begins(tmp_path: Path) -> None:
    text = '\ufeffitem,price\n"a lamp,\nwith a shade",4\npot,cheap\nvase,-1\ncup\n"x"y,3\n,3\nbowl,2\n'
    found = read_rows(written(tmp_path, "a.csv", text), Sale)
    assert found.rows == [Sale("a lamp,\nwith a shade", 4.0), Sale("bowl", 2.0)]
    assert [row.line for row in found.bad] == [4, 5, 6, 7, 8]
    assert "it has 1 cells, and the heading 2" in found.bad[2].reason
    told = io.StringIO()
    found.report(told)
    assert told.getvalue().startswith(f"{found.path}, line 4, is left out: ")


def test_bad_json_is_told_too(tmp_path: Path) -> None:
    found = read_rows(written(tmp_path, "a.jsonl", '{"item": "a", "price": 1}\n{"item": 1, "price": 1}\n{"item"\n'), Sale)
    assert found.rows == [Sale("a", 1.0)]
    assert [row.line for row in found.bad] == [2, 3]
    assert "$.item" in found.bad[0].reason


def test_a_report_names_ten_and_counts_the_rest(tmp_path: Path) -> None:
    found = read_rows(written(tmp_path, "a.csv", "item,price\ncup,1\n" + "cup,\n" * 25), Sale)
    told = io.StringIO()
    found.report(told)
    assert told.getvalue().count("is left out") == 10
    assert "15 more lines" in told.getvalue()


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("a.csv", "", "no column item, price"),
        ("a.csv", "item,cost\ncup,1\n", "no column price"),
        ("a.csv", "item,price\n", "it is empty"),
        ("a.csv", "item,price\ncup,dear\n", "line 2: "),
        ("a.csv", 'it"em,"price\n', "no heading"),
        ("a.jsonl", "", "it is empty"),
        ("a.jsonl", "[]\n", "line 1: "),
    ],
)
def test_a_file_without_a_good_row_is_refused(name: str, text: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=why):
        read_rows(written(tmp_path, name, text), Sale)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    for file in (tmp_path / "a.csv", tmp_path / "none.csv", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            read_rows(file, Sale)


@given(text=st.text(max_size=200))
def test_whatever_a_table_holds_every_line_is_good_or_told(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = written(tmp_path_factory.mktemp("rows"), "a.csv", f"item,price\ncup,1\n{text.encode(errors='ignore').decode()}")
    found = read_rows(file, Sale)
    assert found.rows[0] == Sale("cup", 1.0)
    assert all(isinstance(row, BadRow) and row.line > 2 for row in found.bad)
