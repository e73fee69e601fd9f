"""Guesses of what a sequence goes on with: what followed when its last tokens stood in it before (prompt lookup).

Answers repeat what they rest on: names, figures, whole sentences of a document, a program with one line changed. A pass over some tokens of
a row takes little longer than one over a single token, as both wait for the weights. So the engine has guesses computed along with the last
token, keeps those that are what it would have chosen, and nothing of the others: what is said does not change. After A. Saxena, "Prompt
Lookup Decoding" (2023). A second, smaller model that guesses was not tried: it would need memory, a tokenizer in common, and time that a
small machine does not have.
"""

from typing import Final

_GRAMS: Final = (3, 2)
"""So many last tokens are looked up; the fewer only where the more were not found."""
_REACH: Final = 8_192
"""Tokens of a prompt that are looked at, the last ones: a few milliseconds' work."""
_FOLLOW: Final = 0.15
"""How fast the share of right guesses is followed."""


class Lookup:
    """The tokens of a sequence, and how well they tell what comes next."""

    def __init__(self, tokens: list[int]) -> None:
        self.likely = 0.5
        """How likely a guess is right if those before it are."""
        self._guesses: list[int] = []
        self._tokens: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}
        """Where what followed some tokens begins, the last time they stood there."""
        self.extend(tokens[-_REACH:])

    def extend(self, tokens: list[int]) -> None:
        """The sequence goes on with these: learn from the guesses that were made, up to the first wrong one, used or not."""
        for guess, token in zip(self._guesses, tokens, strict=False):
            self.likely += _FOLLOW * ((guess == token) - self.likely)
            if guess != token:
                break
        self._guesses = []
        for token in tokens:
            for gram in self._grams():
                self._after[gram] = len(self._tokens)
            self._tokens.append(token)

    def guess(self, count: int) -> list[int]:
        """At most so many tokens that may come next."""
        for gram in self._grams():
            if (begin := self._after.get(gram)) is not None:
                self._guesses = self._tokens[begin : begin + count]
                break
        return self._guesses

    def _grams(self) -> list[tuple[int, ...]]:
        return [tuple(self._tokens[-size:]) for size in _GRAMS if size <= len(self._tokens)]
