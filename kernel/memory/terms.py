"""From text to the terms it is found by.

Words are lower-cased, freed of stop words and accents and cut to their stem (Snowball); identifiers give their parts too. Chinese is cut
into words by a dictionary; Japanese, Korean and the scripts that put no space between words give pairs of characters. A text has a language
for its Latin words and one for its Han characters. What is asked is cut in every language of the texts it is asked of, as a question is
often too short to tell its own.
"""

import unicodedata
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import Final, NamedTuple

import regex
import Stemmer

LONGEST: Final = 64
"""Characters of a term. What is longer is data, not a word; its beginning is enough to find it."""


class Language(NamedTuple):
    """How a text is cut: the language of its Latin words, and that of its Han characters (`chinese` or `japanese`)."""

    latin: str = "english"
    han: str = "chinese"


STOP_WORDS: Final = {
    "english": """a about am an and are as at be been being but by can could did do does for from had has have he her hers him his how i
        if in into is it its me my no not of on or our s she should so t that the their them then there these they this to was we were
        what when where which who whom why will with would you your d ll m re ve aren ca couldn didn
        doesn don hadn hasn haven isn shouldn wasn weren wo won wouldn""",
    "german": """aber als am an auch auf aus bei bin bist da das dass dem den der des die dir doch du ein eine einem einen einer er es
        euch für hat habe haben hast ich ihr ihre im in ist ja kann mein mich mir mit nach nicht noch nur oder sich sie sind so und uns
        vom von war waren was wenn wer wie wir wird wo zu zum zur""",
    "french": """ai as au aux avec ce ces cette c d dans de des du elle elles en es est et eu il ils j je l la le les leur lui m ma mais
        me mes moi mon n ne nous on ont ou où par pas pour qu que quel quelle qui s sa se ses son sont sur t ta te tes toi ton tu un une
        vos votre vous y été était""",
    "spanish": """al como con cuando de del donde dónde e el ella ellas ellos en era es esta está este esto fue ha han hay he la las le
        les lo los me mi mis muy más nos no o para pero por porque que qué quien quién se ser si sin sobre su sus te tu tus un una unos
        y ya yo cuándo cómo""",
    "italian": """a ai al alla alle anche c che chi ci come con cosa da dal dalla dei del della delle di dove e ed era gli ha hai hanno ho
        i il in io l la le lei lo loro lui ma me mi mia mio ne nel nella noi non o per perché più quando questa questo se si sono su sua
        suo ti tu un una uno voi è""",
    "portuguese": """a ao aos as com como da das de do dos e ela elas ele eles em era essa esse esta este eu foi há isso lhe mais mas me
        meu minha muito na nas no nos não o onde os ou para pela pelo por porque quando que quem se sem ser seu sua são também te tem um
        uma você é""",
    "dutch": """aan als bij dat de den der die dit door een en er geen had heb hebben heeft het hij hoe ik in is je kan maar me met mijn
        naar niet nog of om ook op over te toen uit van voor waar was wat we wel wie wij zijn zo""",
    "chinese": """的 了 是 我 你 他 她 它 们 我们 你们 他们 她们 在 和 与 也 都 就 不 没 有 这 那 吗 呢 吧 啊 把 被 很 着 过 到 得 地 什么
        怎么 哪里 谁 为什么 个 一个 会 要 之 而 及 或 但 但是 因为 所以 如果 还 又 再 去 来 说 上 下 里""",
}
"""The commonest words of the languages that are told apart. They say little of what a text is about, and much of its language."""

_STOPPED: Final = {language: frozenset(words.split()) for language, words in STOP_WORDS.items()}

_BY_SCRIPT: Final = {
    "Cyrillic": "russian",
    "Greek": "greek",
    "Arabic": "arabic",
    "Devanagari": "hindi",
    "Armenian": "armenian",
    "Tamil": "tamil",
}
"""Scripts that stand for a language; words of scripts that are not here stay as they are."""

_RUNS: Final = regex.compile(
    r"(?P<number>\d+(?:[.,:]\d+)+(?![\p{L}_]))"
    r"|(?P<month>\d{1,2}月)"
    r"|(?P<han>\p{Han}+)"
    r"|(?P<pairs>[\p{Hiragana}\p{Katakana}ー\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]+)"
    r"|(?P<word>[[\p{L}\p{M}\p{N}_]--[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]]+)",
    regex.VERSION1,
)
_KANA: Final = regex.compile(r"[\p{Hiragana}\p{Katakana}]")
_LATIN: Final = regex.compile(r"\p{Latin}")
_SCRIPTS: Final = {script: regex.compile(rf"\p{{{script}}}") for script in _BY_SCRIPT}
_PARTS: Final = regex.compile(r"\p{Lu}+(?!\p{Ll})|\p{Lu}?[\p{Ll}\p{M}]+|\d+|[^\p{Lu}\p{Ll}\d_]+")
"""Of an identifier: `HTTPServer_v2` is `HTTP`, `Server`, `v`, `2`."""

_AUTHOR: Final = regex.compile(r"\s*(\p{L}[\p{L}\p{M}.'\u2019-]*(?: \p{L}[\p{L}\p{M}.'\u2019-]*){0,2}):\s")
_MONTHS: Final = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December")
_DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def language_of(text: str) -> Language:
    """Whose stop words it uses most (English unless there are two of another), and whether there is kana among its Han characters."""
    words = {match.group() for match in _RUNS.finditer(text.lower()) if match.lastgroup == "word"}
    counts = {name: len(words & stopped) for name, stopped in _STOPPED.items() if name != "chinese"}
    latin = max(counts, key=lambda name: counts[name])  # the first of equals is English
    return Language(latin if counts[latin] > 1 else "english", "japanese" if _KANA.search(text) else "chinese")


def terms(text: str, language: Language) -> list[str]:
    """The terms of a text in order, repeated as often as they stand there."""
    return [term[:LONGEST] for run in _RUNS.finditer(unicodedata.normalize("NFKC", text)) for term in _of_run(run, language) if term]


def terms_of_day(time: float) -> list[str]:
    """What a day is called in English and its numbers, as terms: a text is also found by when it was said. `time` in seconds since 1970."""
    day = datetime.fromtimestamp(time, UTC)
    return terms(f"{_DAYS[day.weekday()]} {day.day} {_MONTHS[day.month - 1]} {day.year} {day.month}月", Language())


def author_of(text: str) -> str:
    """The name at the beginning of a text that looks like `NAME: …`, lower-cased; empty if there is none."""
    found = _AUTHOR.match(text)
    return found.group(1).lower() if found else ""


def without_names(text: str, names: set[str]) -> str:
    """A text without these words, for the embedding: it would be near to all that these people said, whatever it was about."""
    if not names:
        return text
    words = "|".join(map(regex.escape, sorted(names)))
    left = regex.sub(rf"(?<!\w)(?:{words})(?:['\u2019]s)?(?!\w)", " ", text, flags=regex.IGNORECASE)
    return " ".join(left.split()) if regex.search(r"\w", left) else text


def _of_run(run: "regex.Match[str]", language: Language) -> Iterator[str]:
    text = run.group()
    match run.lastgroup:
        case "number":
            yield text.replace(",", "")
        case "month":
            yield text.lstrip("0")
        case "pairs":
            yield from _pairs(text)
        case "han" if language.han == "japanese":
            yield from _pairs(text)
        case "han":
            yield from (word for word in _chinese()(text) if word not in _STOPPED["chinese"])
        case _:
            yield from _of_word(text, language.latin)


def _of_word(text: str, latin: str) -> Iterator[str]:
    """The stem of a word; an identifier gives that of the whole and of its parts."""
    whole = text.strip("_")
    yield _stem(whole.lower(), latin)
    parts = _PARTS.findall(whole)
    if len(parts) > 1 and (any(part[0].isupper() for part in parts[1:]) or "_" in whole):
        yield from (_stem(part.lower(), latin) for part in parts)


@cache
def _chinese() -> Callable[[str], list[str]]:
    # Its dictionary takes 0.1 s and 35 MB, so it is loaded when the first Chinese text comes.
    import rjieba

    return lambda text: list(rjieba.cut_for_search(text))


def _pairs(text: str) -> list[str]:
    return [text] if len(text) == 1 else [text[at : at + 2] for at in range(len(text) - 1)]


@lru_cache(maxsize=1 << 16)
def _stem(word: str, latin: str) -> str:
    """Its stem without accents; empty for a stop word."""
    if _LATIN.search(word):
        language: str | None = latin
    else:
        language = next((name for script, name in _BY_SCRIPT.items() if _SCRIPTS[script].search(word)), None)
    if language is None:
        return word.lstrip("0") or word
    if word in _STOPPED.get(language, ()):
        return ""
    stem: str = _stemmer(language).stemWord(word)
    return _without_accents(stem) if language == latin else stem


@cache
def _stemmer(language: str) -> "Stemmer.Stemmer":
    return Stemmer.Stemmer(language)


def _without_accents(word: str) -> str:
    if word.isascii():
        return word
    return "".join(char for char in unicodedata.normalize("NFD", word) if not unicodedata.combining(char)).casefold()
