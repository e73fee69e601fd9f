"""What recall finds, and that it finds nothing out of its reach."""

import math
from sqlite3 import Connection

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from kernos.kernel.memory import keywords, ranking, shelves
from kernos.kernel.memory.branches import Span
from kernos.kernel.memory.ranking import LENGTH, SATURATION, STEPS, Reach, Recalled, around, ends, fit, share
from kernos.kernel.memory.shelves import Shelf, Shelves
from tests.kernel.fakes import examples

from .test_keywords import DAY, database, write

DIM = 32
ALL = 1 << 30


def vector(text: str) -> NDArray[np.float32]:
    """Stands for an encoder: the same text has the same vector, another text one far from it."""
    made = np.random.default_rng(list(text.encode())).standard_normal(DIM)
    return (made / np.linalg.norm(made)).astype(np.float32)


class Memory:
    """Branches of texts; the vector of a text is that of its `meaning` (itself if none is given)."""

    def __init__(self) -> None:
        self.connection: Connection = database()
        self.texts: dict[int, str] = {}
        self.vectors: dict[int, dict[int, NDArray[np.float32]]] = {}
        self.shelves = Shelves(self._load, 1 << 30)

    def append(self, branch: int, text: str, meaning: str | None = None, seq: int | None = None) -> int:
        page = len(self.texts) + 1
        self.texts[page] = text
        own = self.vectors.setdefault(branch, {})
        write(self.connection, branch, page, len(own) if seq is None else seq, text)
        own[page] = vector(meaning or text)
        return page

    def reach(self, *spans: tuple[int, int, int]) -> Reach:
        return Reach(self.shelves, [Span(*span) for span in spans or [(1, 0, ALL)]])

    def _load(self, branch: int) -> Shelf:
        own = self.vectors.get(branch, {})
        pages = np.array(list(own), np.int64)
        rows = np.array(list(own.values()), np.float16).reshape(len(own), DIM)
        return Shelf.of(keywords.entries(self.connection, branch), pages, rows)


def best(memory: Memory, question: str, meaning: str | None = None, reach: Reach | None = None) -> Recalled:
    return next((reach or memory.reach()).rank(memory.connection, question, vector(meaning) if meaning else None))


def talk(memory: Memory, branch: int = 1, count: int = 30) -> None:
    for number in range(count):
        memory.append(branch, f"Something else, number {number}")


def test_a_page_is_found_by_its_words_before_it_has_a_vector() -> None:
    memory = Memory()
    talk(memory)
    page = memory.append(1, "The tulips in the garden are red")
    talk(memory)
    found = best(memory, "Which colour had the tulips?")
    assert found.page == page
    assert found.words > found.meaning == found.author == 0
    assert found.score == found.words


def test_a_page_is_found_by_its_meaning_without_a_common_word() -> None:
    memory = Memory()
    talk(memory)
    page = memory.append(1, "My sister's cat is called Pixel", meaning="pets")
    talk(memory)
    found = best(memory, "How is the kitten named?", meaning="pets")
    assert found.page == page
    assert found.meaning > found.words
    assert found.score == pytest.approx(found.meaning + found.words + found.author)


def test_an_answer_is_found_by_what_it_answers() -> None:
    memory = Memory()
    talk(memory)
    asked = memory.append(1, "When do the tulips bloom?")
    answer = memory.append(1, "Late in April")
    talk(memory)
    order = [found.page for found in memory.reach().rank(memory.connection, "When do the tulips bloom?")]
    assert order[0] == asked
    assert answer in order[1:3]


def test_who_is_named_comes_first_and_is_left_out_of_the_topic() -> None:
    memory = Memory()
    for number in range(10):
        memory.append(1, f"Anna: I like number {number}", meaning=f"{number}")
        memory.append(1, f"Ben: I like number {number}", meaning=f"{number}")
    reach = memory.reach()
    assert reach.topic("What did Ben's sister see?") == "What did sister see?"
    assert reach.topic("What did Carla see?") == "What did Carla see?"
    found = best(memory, "Does Ben like number 8?", reach=reach)
    assert memory.texts[found.page] == "Ben: I like number 8"
    assert found.author > 0


def test_one_note_is_no_author() -> None:
    memory = Memory()
    memory.append(1, "Note: buy milk")
    talk(memory)
    assert memory.reach().topic("Which note?") == "Which note?"


def test_headings_of_thousands_of_notes_are_no_authors() -> None:
    memory = Memory()
    for number in range(40):
        memory.append(1, f"{chr(97 + number % 26)}{chr(97 + number // 26)}: a note")
    for _ in range(4):
        memory.append(1, "Anna: hello")
    assert memory.reach().topic("Did Anna or aa say so?") == "Did or aa say so?"


def test_of_a_long_question_the_beginning_and_the_end_count() -> None:
    memory = Memory()
    talk(memory)
    pages = []
    for word in ("tulips", "roses", "daisies"):
        pages.append(memory.append(1, word))
        talk(memory)
    first, middle, last = pages
    filler = " ".join(f"w{number}" for number in range(5_000))
    found = {page.page: page.words for page in memory.reach().rank(memory.connection, f"tulips {filler} roses {filler} daisies")}
    assert found[first] > 0 < found[last]
    assert found[middle] < found[first]
    assert ends("abcdef", 4) == "abef"
    assert ends("abcd", 4) == "abcd"


def test_a_day_is_found() -> None:
    memory = Memory()
    talk(memory)
    memory.connection.execute("INSERT INTO pages VALUES (500)")
    keywords.add(memory.connection, 1, 500, 500, "We met", DAY + 40 * 86_400)
    assert best(memory, "What was on 16 June 2023?").page == 500


def test_chinese_questions_find_chinese_pages() -> None:
    memory = Memory()
    talk(memory)
    page = memory.append(1, "昨天我和卡罗琳一起去了杭州的西湖")
    talk(memory)
    assert best(memory, "谁去过西湖").page == page


def test_a_short_question_is_cut_as_what_it_is_asked_of() -> None:
    memory = Memory()
    page = memory.append(1, "Die Fahrräder der Kinder sind bei uns im Keller")
    talk(memory)
    assert best(memory, "Fahrrad?").page == page


def test_a_context_reads_the_part_of_a_branch_that_it_stands_on() -> None:
    memory = Memory()
    shared = [memory.append(1, f"tulips {number}") for number in range(3)]
    later = [memory.append(1, "tulips later") for _ in range(3)]
    own = [memory.append(2, "tulips of a fork", seq=3 + number) for number in range(2)]
    fork = memory.reach((1, 0, 3), (2, 3, 5))
    assert fork.pages.tolist() == shared + own
    found = {page.page for page in fork.rank(memory.connection, "tulips", vector("tulips later"))}
    assert found == set(shared + own)
    assert memory.reach().pages.tolist() == shared + later


def test_only_what_is_allowed_comes() -> None:
    memory = Memory()
    talk(memory)
    found = memory.reach().rank(memory.connection, "number 7", vector("x"), allowed=np.array([3, 5, 999]))
    assert {page.page for page in found} == {3, 5}


def test_nothing_is_in_an_empty_reach() -> None:
    memory = Memory()
    assert list(memory.reach().rank(memory.connection, "tulips", vector("tulips"))) == []
    assert list(Reach(memory.shelves, []).rank(memory.connection, "tulips", vector("tulips"))) == []
    assert memory.reach().topic("tulips") == "tulips"


def test_common_terms_are_known_at_once_and_only_new_pages_are_asked_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelves, "_COMMON", 10)
    memory, asked = Memory(), list[tuple[str, int]]()

    def holders(connection: Connection, branch: int, term: str, since: int) -> NDArray[np.int64]:
        asked.append((term, since))
        return keywords.holders(connection, branch, term, since)

    talk(memory, count=20)
    memory.append(1, "The tulips number seven")
    memory.shelves.get(1).learn(memory.connection, 1)
    monkeypatch.setattr(shelves, "holders", holders)
    first, second = (list(memory.reach().rank(memory.connection, "number of tulips")) for _ in range(2))
    assert first == second
    assert asked == [("tulip", 1), ("tulip", 1)]
    page = memory.append(1, "A number")
    memory.shelves.add(1, [entry for entry in keywords.entries(memory.connection, 1) if entry.page == page])
    asked.clear()
    third = list(memory.reach().rank(memory.connection, "number"))
    assert asked == [("number", page)]
    memory.shelves.drop(1)
    assert list(memory.reach().rank(memory.connection, "number")) == third


def test_new_pages_and_vectors_are_seen_at_once() -> None:
    memory = Memory()
    talk(memory)
    memory.reach()
    page = 900
    entry = write(memory.connection, 1, page, 900, "tulips")
    memory.shelves.add(1, [entry])
    assert best(memory, "tulips").page == page
    memory.shelves.embed(1, np.array([page]), vector("flowers")[None].astype(np.float16))
    assert best(memory, "Is there any bouquet?", meaning="flowers").page == page


WORDS = ("tulips", "garden", "red", "Anna: tulips", "昨天", "never")
branches = st.lists(st.tuples(st.integers(1, 3), st.sampled_from(WORDS)), max_size=15)
spans = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 4), st.integers(0, 8)), max_size=3, unique_by=lambda span: span[0])


@given(branches, spans, st.sampled_from(WORDS))
@examples(80)
def test_every_page_in_reach_comes_once_and_no_other(
    texts: list[tuple[int, str]], spans: list[tuple[int, int, int]], question: str
) -> None:
    memory = Memory()
    for branch, text in texts:
        memory.append(branch, text)
    want = [page for branch, start, stop in spans for seq, page in enumerate(memory.vectors.get(branch, {})) if start <= seq < stop]
    reach = Reach(memory.shelves, [Span(*span) for span in spans])
    ranked = list(reach.rank(memory.connection, question, vector(question)))
    assert reach.pages.tolist() == want
    assert sorted(page.page for page in ranked) == sorted(want)
    assert [page.score for page in ranked] == sorted((page.score for page in ranked), reverse=True)
    assert all(math.isfinite(value) for page in ranked for value in page)


holders = st.lists(st.lists(st.integers(0, 1), min_size=6, max_size=6), max_size=3)


@given(holders, st.lists(st.integers(1, 9), min_size=6, max_size=6))
@examples(100)
def test_the_share_of_words_is_that_of_the_formula(holders: list[list[int]], lengths: list[int]) -> None:
    kernel = {0: 1.0, **{sign * step: worth for step, worth in enumerate(STEPS, 1) for sign in (1, -1)}}

    def spread(values: list[int], at: int) -> float:
        return sum(worth * values[at + step] for step, worth in kernel.items() if 0 <= at + step < len(values))

    usual = sum(spread(lengths, at) for at in range(6)) / 6
    rarities = [math.log(1 + (6 - held + 0.5) / (held + 0.5)) for held in map(sum, holders)]
    want = []
    for at in range(6):
        room = SATURATION * (1 - LENGTH + LENGTH * spread(lengths, at) / usual)
        points = sum(rarity * spread(held, at) / (spread(held, at) + room) for rarity, held in zip(rarities, holders, strict=True))
        want.append(points / (sum(rarities) + math.log(1 + 6.5 / 0.5)))
    found = share((np.array(held, np.float32) for held in holders), np.array(lengths, np.float32))
    assert found.tolist() == pytest.approx(want, rel=1e-4, abs=1e-6)
    assert all(0 <= value <= 1 for value in found)


def test_a_common_word_proves_little() -> None:
    memory = Memory()
    talk(memory)
    found = best(memory, "Something?")
    assert 0 < found.words < 1


def test_neighbours_count_less_with_each_step() -> None:
    assert around(np.array([0, 0, 0, 1, 0, 0], np.float32), 0.2).tolist() == pytest.approx([0, 0.05, 0.1, 1, 0.1, 0.05])
    assert around(np.ones(1, np.float32), 1).tolist() == [1]
    assert around(np.empty(0, np.float32), 1).tolist() == []


@given(st.lists(st.integers(0, 5), max_size=40), st.integers(1, 40), st.sets(st.integers(0, 39)))
@examples(100)
def test_places_come_by_their_points_and_equal_ones_in_order(points: list[int], best: int, wanted: set[int]) -> None:
    among = sorted(place for place in wanted if place < len(points))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "_BEST", best)
        found = list(ranking.descending(np.array(points, np.float32), np.array(among, np.intp)))
    assert found == sorted(among, key=lambda place: -points[place])


def test_a_budget_is_filled_with_the_best_that_fit() -> None:
    pages = [Recalled(page, 0, 0, 0, 0) for page in (5, 1, 4, 2)]
    assert [page.page for page in fit(pages, lambda page: page, 8)] == [5, 1, 2]
    assert list(fit(pages, lambda page: page, 0)) == []
