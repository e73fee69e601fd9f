import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernos.kernel.stop import StopText
from tests.kernel.fakes import examples


def before_first(text: str, stops: list[str]) -> str:
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]


stop_texts = st.lists(st.text("ab", min_size=1, max_size=4), max_size=3)
pieces = st.lists(st.text("abc", max_size=5), max_size=12)


@examples(500)
@given(stop_texts, pieces)
def test_the_text_before_the_first_stop_however_it_is_cut(stops: list[str], parts: list[str]) -> None:
    whole = "".join(parts)
    stop = StopText(stops)
    # The stream ends where the stop is found: the first moment at which some stop text is whole.
    seen = shown = ""
    for part in parts:
        seen += part
        shown += stop.push(part)
        assert before_first(whole, stops).startswith(shown) or before_first(seen, stops) == shown
        assert stop.hit == any(text in seen for text in stops)
        if stop.hit:
            break
    if stop.hit:
        assert shown == before_first(seen, stops)
        assert stop.flush() == ""
        assert stop.push("more") == ""
    else:
        assert shown + stop.flush() == whole


@examples(300)
@given(stop_texts, st.text("abc", max_size=30))
def test_letter_by_letter_no_piece_of_a_stop_is_ever_shown(stops: list[str], text: str) -> None:
    stop = StopText(stops)
    seen = shown = ""
    for letter in text:
        seen += letter
        shown += stop.push(letter)
        if stop.hit:
            break
        open_ = max((n for n in range(len(seen) + 1) if any(s.startswith(seen[len(seen) - n :]) for s in stops)), default=0) if stops else 0
        assert shown == seen[: len(seen) - open_], "shown as early as can be, and no earlier"


@pytest.mark.parametrize(
    ("stops", "parts", "shown"),
    [
        ([], ["abc", "def"], ["abc", "def"]),
        (["\n\n"], ["a\n", "\nb"], ["a", ""]),
        (["\n\n"], ["a\n", "b"], ["a", "\nb"]),
        (["END"], ["xEN", "EN", "D!"], ["x", "EN", ""]),
        (["aab"], ["aa", "a", "b"], ["", "a", ""]),
        (["bc", "abcd"], ["xab", "c"], ["x", "a"]),
        (["User:", "\nUser"], ["Hi\nUs", "er"], ["Hi", ""]),
        (["👍"], ["ok ", "👍", "more"], ["ok ", "", ""]),
    ],
)
def test_examples(stops: list[str], parts: list[str], shown: list[str]) -> None:
    stop = StopText(stops)
    assert [stop.push(part) for part in parts] == shown


def test_what_was_held_back_comes_with_the_flush_once() -> None:
    stop = StopText(["END"])
    assert stop.push("the EN") == "the "
    assert (stop.flush(), stop.flush()) == ("EN", "")
