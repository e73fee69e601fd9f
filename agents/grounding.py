"""Grounding: what the model is asked, and which of its sentences people get to see.

A small model makes things up even with the right text before it. So it is given little text and a plain task, its answer is cut into
sentences, and a sentence passes only if it says little that the text does not. This catches inventions, not every misreading.
"""

import re
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

_SHARE: Final = 0.75
"""Share of the longer words that a sentence adds to the question which must come from one fact."""

_WORD: Final = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+")
_END: Final = re.compile(r"(?<=[.!?])\s+(?=\S)|\n+")
_NEGATIONS: Final = {"no", "not", "never", "cannot", "without"}


class Fact(NamedTuple):
    """A text that an answer may rest on, and the name by which the answer refers to it."""

    name: str
    text: str


def prompt_for(question: str, facts: list[Fact]) -> str:
    """The whole task on one small page: small models follow the end of it, and copy well."""
    text = "\n".join(fact.text for fact in facts)
    return f"Answer the question with the text below. Be brief.\n\n{text}\n\nQuestion: {question}"


async def sentences(pieces: AsyncIterator[str]) -> AsyncIterator[str]:
    """The sentences of a streamed text, each as soon as it is complete."""
    open_text = ""
    async for piece in pieces:
        *complete, open_text = _END.split(open_text + piece)
        for sentence in complete:
            if sentence.strip():
                yield sentence.strip()
    if open_text.strip():
        yield open_text.strip()


def source_of(sentence: str, question: str, facts: list[Fact]) -> Fact | None:
    """The fact that supports a sentence by itself; a sentence that it takes two facts to support is most often a mixture of them."""
    return next((fact for fact in facts if _supports(fact, sentence, question)), None)


def _supports(fact: Fact, sentence: str, question: str) -> bool:
    # As far as words tell: what a finished sentence adds to the question must come from the fact, numbers and negations without exception.
    known, said = _words(fact.text), _words(sentence)
    exact = {word for word in said if word[0].isdigit() or word in _NEGATIONS}
    added = {word for word in said - _words(question) if len(word) > 3}
    return sentence.endswith((".", "!")) and exact <= known and bool(added) and len(added & known) >= _SHARE * len(added)


def _words(text: str) -> set[str]:
    return {word.lower() for word in _WORD.findall(text)}
