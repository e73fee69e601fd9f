"""What texts are found by, in several languages."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernos.kernel.memory.terms import LONGEST, Language, author_of, language_of, terms, terms_of_day, without_names
from tests.kernel.fakes import examples


def found(text: str) -> list[str]:
    return terms(text, language_of(text))


@pytest.mark.parametrize(
    ("said", "asked"),
    [
        ("I went running with the dogs", "Who runs with a dog?"),
        ("Mel's photos of Zoë's café", "a photo of the cafe, by Mel and Zoe"),
        ("We didn't pay 1,250 dollars on 2023-05-07", "1250 dollar 5 7 2023"),
        ("def getUserName(http_server): ...", "user name server"),
        ("The file is in /var/log/HTTPServer2.txt", "http server txt"),
        ("Ich habe gestern mit den Kindern ein Fahrrad für uns gekauft", "Fahrräder und das Kind, ist das gekauft?"),
        ("Nous avons mangé des gâteaux à l'école avec elle", "le gateau de l'école est à nous"),
        ("Привет, мы купили собак в Москве", "собаки"),
        ("昨天我和卡罗琳一起去了杭州的西湖", "卡罗琳去过西湖吗"),
        ("人工智能操作系统的内存管理", "操作系统"),
        ("我们5月8日去北京", "5月"),
        ("東京で寿司を食べました。", "寿司は東京で?"),
        ("서울에서 김치를 먹었다", "김치"),
        ("สวัสดีครับ", "สวัสดี"),
        ("हिन्दी में लिखा", "हिन्दी"),
    ],
)
def test_a_question_shares_terms_with_what_it_is_about(said: str, asked: str) -> None:
    want = found(asked)
    assert want
    assert sum(term in found(said) for term in want) >= len(want) / 2


@pytest.mark.parametrize("text", ["Who are you?", "Où est-ce que vous êtes, et pour qui ?", "我们是谁", "", "?!… --"])
def test_stop_words_and_signs_are_no_terms(text: str) -> None:
    assert [term for term in found(text) if term not in {"et", "ête", "ete"}] == []


def test_identifiers_give_the_whole_and_the_parts() -> None:
    assert found("HTTPServer_v2") == ["httpserver_v2", "http", "server", "v", "2"]
    assert found("snake_case") == ["snake_cas", "snake", "case"]
    assert found("covid19 v1.2") == ["covid19", "v1", "2"]


def test_the_language_of_a_question_may_be_that_of_what_it_is_asked_of() -> None:
    text = "Die Fahrräder der Kinder sind mit uns"
    assert language_of(text) == Language("german")
    assert language_of("Fahrräder?") == Language("english")
    assert set(terms("Fahrräder?", Language("german"))) <= set(found(text))


def test_a_word_or_two_is_not_yet_another_language() -> None:
    assert language_of("See mail.com, die now").latin == "english"
    assert language_of("東京タワー").han == "japanese"


def test_a_day_is_found_by_its_name_and_numbers() -> None:
    day = terms_of_day(1_683_500_000)
    assert day == ["sunday", "7", "may", "2023", "5月"]
    assert set(found("on Sunday, 7 May 2023")) <= set(day)
    assert "5月" in found("2023年5月7日")


@pytest.mark.parametrize(
    ("text", "author"),
    [
        ("Caroline: Hi!", "caroline"),
        ("  Dr. Anna Šmíd: hello", "dr. anna šmíd"),
        ("http://a.b", ""),
        ("It is what I said: no", ""),
        ("12: no name", ""),
        ("Note:", ""),
    ],
)
def test_authors(text: str, author: str) -> None:
    assert author_of(text) == author


def test_names_are_taken_out_of_a_question() -> None:
    assert without_names("What did Caroline's dog do to Carolines, caroline?", {"caroline"}) == "What did dog do to Carolines, ?"
    assert without_names("Caroline?", {"caroline"}) == "Caroline?"
    assert without_names("Who  is it?", set()) == "Who  is it?"


@given(st.text())
@examples(200)
def test_terms_are_fit_for_the_index(text: str) -> None:
    language = language_of(text)
    for term in terms(text, language):
        assert 0 < len(term) <= LONGEST
        assert not any(char.isspace() or unicodedata.category(char) == "Cc" for char in term)
        assert not any(char.isascii() and not (char.isdigit() or char.islower() or char in "._:") for char in term)
    assert terms(text, language) == terms(text, language)
