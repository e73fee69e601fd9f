"""Messages larger than a window, cut to it."""

from hypothesis import given
from hypothesis import strategies as st

from kernos.kernel.excerpts import LEFT_OUT, excerpt, fitted, level
from kernos.kernel.limits import HIGH_WATER
from kernos.kernel.prompts import Line
from tests.kernel.fakes import examples

WINDOW = 400


@given(st.lists(st.integers(0, 500), max_size=9), st.integers(0, 1_000))
@examples(200)
def test_a_level_gives_all_the_room_there_is(sizes: list[int], room: int) -> None:
    most = level(sizes, room)
    given = sum(min(size, most) for size in sizes)
    assert given <= room
    assert given == sum(sizes) or room - given < len(sizes)


@given(st.lists(st.sampled_from(["blah blah. ", "tulips ", "書く。", "\n\n", "x" * 90]), min_size=20, max_size=200), st.integers(150, 300))
@examples(100)
def test_an_excerpt_is_made_of_parts_in_order_and_not_too_long(pieces: list[str], most: int) -> None:
    text = "".join(pieces)
    found = excerpt(text, "tulips", most, len)
    assert found == text or len(found) <= most
    at = 0
    for part in found.split(LEFT_OUT):
        at = text.index(part, at) + len(part)


def test_what_fits_stays_as_it_is() -> None:
    lines = [Line("pinned", "user", "p" * 100, 100, 0), Line("resident", "user", "r" * 900, 900, 1), Line("new", "user", "n" * 200, 200)]
    assert fitted(lines, WINDOW, len) == lines, "the resident one can leave"


def test_only_the_longest_are_cut() -> None:
    lines = [Line("pinned", "user", "p" * 60, 60, 0), Line("new", "system", "be brief", 8), Line("new", "user", "word " * 400, 2_000)]
    pinned, short, long = fitted(lines, WINDOW, len)
    assert (pinned, short) == tuple(lines[:2])
    assert not long.whole
    assert sum(line.tokens for line in (pinned, short, long)) <= HIGH_WATER * WINDOW


def test_pinned_ones_that_fill_the_window_are_not_cut() -> None:
    lines = [Line("pinned", "user", "p" * 500, 500, 0), Line("new", "user", "hi", 2)]
    assert fitted(lines, WINDOW, len) == lines
