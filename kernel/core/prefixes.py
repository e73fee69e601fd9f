"""The names of KV pages: a hash per full page of a list of tokens, chained on the page before. Pure.

Two pages of one name hold the same keys and values, as these depend on all tokens before. The chain begins with a scope, so that those who
must not share never find each other's pages, whatever their tokens are.
"""

import hashlib
from array import array
from collections.abc import Sequence

PageHash = bytes


class Chain:
    """The hashes of a growing list of tokens in pages of `page` tokens; what was hashed once is not hashed again."""

    __slots__ = ("_hashes", "_page", "_scope")

    def __init__(self, scope: str, page: int) -> None:
        self._scope = scope.encode()
        self._page = page
        self._hashes: list[PageHash] = []

    def of(self, tokens: Sequence[int], count: int) -> list[PageHash]:
        """The hashes of the full pages within the first `count` of `tokens`; these begin as in every earlier call."""
        full = count // self._page
        while len(self._hashes) < full:
            start = len(self._hashes) * self._page
            before = self._hashes[-1] if self._hashes else hashlib.blake2b(self._scope, digest_size=32).digest()
            content = array("q", tokens[start : start + self._page]).tobytes()
            self._hashes.append(hashlib.blake2b(content, digest_size=32, key=before).digest())
        return self._hashes[:full]
