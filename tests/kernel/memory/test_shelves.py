"""Shelves: the order of pages, and the budget."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernos.kernel.memory import vectors
from kernos.kernel.memory.keywords import Entry
from kernos.kernel.memory.shelves import Shelf, Shelves, places_of
from kernos.kernel.memory.terms import Language
from tests.kernel.fakes import examples

DIM = 8


def entry(page: int, seq: int, author: str = "") -> Entry:
    return Entry(page, seq, 3, author, Language())


def shelf(count: int) -> Shelf:
    return Shelf.of([entry(page, page) for page in range(count)], np.arange(count), np.ones((count, DIM), np.float16))


def make_shelves(budget: int) -> tuple[Shelves, list[int]]:
    """A branch has as many pages as its number says."""
    loaded: list[int] = []

    def load(branch: int) -> Shelf:
        loaded.append(branch)
        return shelf(branch)

    return Shelves(load, budget), loaded


@given(st.lists(st.integers(0, 30), max_size=20), st.integers(0, 20))
@examples(100)
def test_pages_stand_in_the_order_of_messages_however_they_came(seqs: list[int], cut: int) -> None:
    entries = [entry(page, seq) for page, seq in enumerate(seqs)]
    made = Shelf.of(entries[:cut], np.empty(0, np.int64), np.empty((0, DIM), np.float16))
    made.add(entries[cut:])
    assert list(zip(made.places.seq.tolist(), made.places.page.tolist(), strict=True)) == sorted(
        (seq, page) for page, seq in enumerate(seqs)
    )


@given(st.lists(st.integers(0, 60), unique=True, max_size=30), st.lists(st.integers(0, 60), max_size=30))
@examples(60)
def test_places_of_pages(among: list[int], pages: list[int]) -> None:
    found = places_of(np.array(pages, np.int64), np.array(among, np.int64))
    assert found.tolist() == [among.index(page) if page in among else -1 for page in pages]


def test_authors_have_numbers() -> None:
    made = shelf(0)
    made.add([entry(0, 0, "anna"), entry(1, 1), entry(2, 2, "anna")])
    assert [made.authors[number] for number in made.places.author] == ["anna", "", "anna"]
    assert made.number_of("ben") == -1


def test_what_was_deleted_is_forgotten() -> None:
    shelves, _ = make_shelves(1 << 20)
    before = shelves.get(10).nbytes
    shelves.remove(10, np.array([2, 3, 99]))
    assert shelves.get(10).places.page.tolist() == [0, 1, 4, 5, 6, 7, 8, 9]
    assert 3 not in shelves.get(10).vectors.compare(np.ones(DIM, np.float32)).pages
    assert shelves.bytes < before
    shelves.remove(11, np.array([1]))


def test_the_least_recently_used_goes_first() -> None:
    shelves, loaded = make_shelves(3 * shelf(10).nbytes)
    for branch in (10, 9, 8, 10, 7):
        shelves.get(branch)
    assert [branch in shelves for branch in (10, 9, 8, 7)] == [True, False, True, True]
    assert loaded == [10, 9, 8, 7]
    shelves.get(9)
    assert loaded[-1] == 9


def test_one_beyond_the_budget_serves_once() -> None:
    shelves, loaded = make_shelves(100)
    assert len(shelves.get(50).places.page) == 50
    assert 50 not in shelves
    assert shelves.bytes == 0
    shelves.get(50)
    assert loaded == [50, 50]


@given(st.lists(st.tuples(st.sampled_from(["get", "grow", "drop"]), st.integers(1, 6)), max_size=30))
@examples(60)
def test_the_budget_holds_always(steps: list[tuple[str, int]]) -> None:
    shelves, _ = make_shelves(4 * shelf(6).nbytes)
    for number, (what, branch) in enumerate(steps, 100):
        match what:
            case "get":
                shelves.get(branch)
            case "drop":
                shelves.drop(branch)
            case _:
                shelves.add(branch, [entry(number, number)])
                shelves.embed(branch, np.array([number]), np.ones((1, DIM), np.float16))
        assert 0 <= shelves.bytes <= 4 * shelf(6).nbytes
    for branch in range(1, 7):
        shelves.drop(branch)
    assert shelves.bytes == 0


def test_one_that_outgrew_its_kind_is_built_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "FLAT", 20)
    shelves, _ = make_shelves(1 << 20)
    shelves.get(19)
    shelves.embed(19, np.arange(100, 110), np.ones((10, DIM), np.float16))
    assert 19 not in shelves
