"""The vector index against a plain product of matrices."""

import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from kernos.kernel.memory import vectors
from kernos.kernel.memory.vectors import Moments, Similarities, VectorIndex, together
from tests.kernel.fakes import examples

DIM = 16
ROUNDED = 0.01
"""What similarities may be off."""


def random(count: int, seed: int = 0) -> NDArray[np.float16]:
    found = np.random.default_rng(seed).standard_normal((count, DIM))
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float16)


def query(seed: int = 99) -> NDArray[np.float32]:
    return np.asarray(random(1, seed)[0], np.float32)


def found(near: Similarities) -> dict[int, float]:
    return dict(zip(near.pages.tolist(), near.scores.tolist(), strict=True))


def ids(*pages: int) -> NDArray[np.int64]:
    return np.array(pages, np.int64)


steps = st.lists(st.tuples(st.just("add"), st.integers(0, 90)) | st.tuples(st.just("remove"), st.integers(0, 300)), max_size=8)


@given(st.integers(0, 40), steps)
@examples(60)
def test_it_compares_what_was_added_and_not_removed(first: int, steps: list[tuple[str, int]]) -> None:
    every = random(1_000)
    index = VectorIndex(np.arange(first), every[:first])
    there, after = set(range(first)), first
    for what, number in steps:
        if what == "add":
            new = np.arange(after, after + number)
            index.add(new, every[new])
            there.update(new.tolist())
            after += number
        else:
            gone = np.arange(number, number + 20)
            index.remove(gone)
            there.difference_update(gone.tolist())
    near = index.compare(query())
    want = {page: float(every[page].astype(np.float32) @ query()) for page in there}
    assert len(index) == near.usual.count == len(want)
    assert near.complete
    assert found(near) == pytest.approx(want, abs=ROUNDED)
    assert together([near.usual])[0] == pytest.approx(np.mean(list(want.values())) if want else 0, abs=ROUNDED)


def test_a_large_one_compares_the_nearest_and_estimates_what_is_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "ALL", 500)
    monkeypatch.setattr(vectors, "NEAREST", 50)
    every = random(2_000)
    index = VectorIndex(np.arange(480), every[:480])
    index.add(np.arange(480, 2_000), every[480:])
    scores = every.astype(np.float32) @ query()
    near = index.compare(query())
    assert not near.complete
    assert len(near.pages) == 50
    assert scores[near.pages].min() > np.sort(scores)[-50] - ROUNDED
    assert near.usual.count == 2_000
    assert near.usual.mean == pytest.approx(float(scores.mean()), abs=0.05)
    assert near.usual.variance == pytest.approx(float(scores.var()), rel=0.3)


def test_lists_find_nearly_all_of_the_nearest_and_forget(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("FLAT", 1_000), ("ALL", 500), ("NEAREST", 50)):
        monkeypatch.setattr(vectors, name, value)
    centres = random(20, seed=1).astype(np.float32)
    around = centres[np.random.default_rng(2).integers(0, 20, 3_000)] + 0.1 * random(3_000, seed=3)
    every = (around / np.linalg.norm(around, axis=1, keepdims=True)).astype(np.float16)
    index = VectorIndex(np.arange(10_000, 12_900), every[:2_900])
    index.add(np.arange(12_900, 13_000), every[2_900:])
    best = 10_000 + np.argsort(-(every.astype(np.float32) @ query()))[:50]
    assert len(set(best.tolist()) & set(index.compare(query()).pages.tolist())) >= 40
    index.remove(best)
    assert len(index) == 2_950
    assert not set(best.tolist()) & set(index.compare(query()).pages.tolist())
    assert not index.crowded


@pytest.mark.parametrize("all_are_compared", [True, False])
def test_of_a_page_with_several_vectors_the_nearest_counts(monkeypatch: pytest.MonkeyPatch, all_are_compared: bool) -> None:
    monkeypatch.setattr(vectors, "ALL", 2_000 if all_are_compared else 500)
    every, pages = random(1_500), np.repeat(np.arange(500), 3)
    index = VectorIndex(pages[:1_200], every[:1_200])
    index.add(pages[1_200:], every[1_200:])
    index.remove(ids(7))
    best = (every.astype(np.float32) @ query()).reshape(500, 3).max(axis=1)
    best[7] = -1
    near = index.compare(query())
    assert near.complete == all_are_compared
    assert len(set(near.pages.tolist())) == len(near.pages) == (499 if all_are_compared else len(near.pages))
    assert found(near) == pytest.approx({page: best[page] for page in near.pages.tolist()}, abs=ROUNDED)
    assert near.usual.count == pytest.approx(499, abs=1)
    assert near.usual.mean == pytest.approx(float(np.delete(best, 7).mean()), abs=0.03)


def test_one_that_knew_no_vectors_takes_them() -> None:
    index = VectorIndex(ids(), np.empty((0, 0), np.float16))
    assert found(index.compare(query())) == {}
    index.add(ids(7), random(1))
    assert list(found(index.compare(query()))) == [7]
    assert index.nbytes == DIM + 8


def test_it_keeps_no_copy_of_what_it_was_built_from() -> None:
    every = random(50)
    gone = weakref.ref(every)
    index = VectorIndex(np.arange(50), every)
    del every
    assert gone() is None
    assert len(index) == 50


def test_a_flat_one_that_grew_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "FLAT", 100)
    index = VectorIndex(np.arange(90), random(90))
    assert not index.crowded
    index.add(np.arange(90, 190), random(100))
    assert index.crowded


def test_moments_of_parts_are_those_of_the_whole() -> None:
    scores = np.random.default_rng(0).random(100).astype(np.float32)
    mean, deviation = together([Moments.of(scores[:30], 30), Moments.of(scores[30:], 70), Moments.of(scores[:0], 0)])
    assert (mean, deviation) == pytest.approx((float(scores.mean()), float(scores.std())))
    assert together([]) == (0.0, 1.0)
    assert together([Moments.of(np.full(3, 0.5, np.float32), 3)]) == (0.5, 1.0)
