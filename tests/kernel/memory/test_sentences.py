"""How texts are cut into pages and sentences."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernos.kernel.memory.sentences import LEAST, cuts, sentences
from tests.kernel.fakes import examples

texts = st.text(alphabet="ab .!?\n。", max_size=200)


@given(texts, st.integers(2, 20))
@examples(100)
def test_cuts_lose_nothing(text: str, size: int) -> None:
    points = cuts(text, size)
    assert (points[0], points[-1]) == (0, len(text))
    assert all(0 < stop - start <= size for start, stop in pairwise(points)) or not text


@pytest.mark.parametrize("end", [". ", "! ", "? ", "。", "\n\n"])
def test_a_text_is_cut_behind_a_sentence_rather_than_a_word(end: str) -> None:
    text = f"one two three{end}four five six seven"
    assert cuts(text, 22)[1] == len(f"one two three{end}")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", [""]),
        (" \n", [" \n"]),
        ("Oh, really?", ["Oh, really?"]),
        ("The bus was late again. Clara adopted a kitten! Who would have thought it?", None),
        ("The bus was late again.\nClara adopted a kitten", None),
        ("Oh, really? Clara adopted a kitten.", ["Oh, really? Clara adopted a kitten."]),
        ("It was version 3.14 of the program that failed. We use another one now.", None),
        ("他的妹妹从收容所领养了一只灰色的小猫大家都很喜欢它。我们在葡萄牙的海滩上结了婚而且那天的天气非常好。", None),
    ],
)
def test_a_text_is_its_sentences(text: str, found: list[str] | None) -> None:
    if found is None:
        marked = text.replace("。", "。|").replace(". ", ".| ").replace("! ", "!| ").replace("\n", "|")
        found = [part.strip() for part in marked.split("|") if part]
    assert sentences(text) == found


@given(texts)
@examples(100)
def test_sentences_lose_only_space_and_are_not_too_many(text: str) -> None:
    parts = sentences(text)
    assert "".join("".join(parts).split()) == "".join(text.split())
    assert 1 <= len(parts) <= max(1, len(text) // LEAST)
