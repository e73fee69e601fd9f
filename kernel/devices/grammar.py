"""Decoding constrained by a JSON schema, by llguidance.

`Grammars` belongs to a model and holds what is costly (its vocabulary as a trie, about a second, built when first asked for);
`Grammar` is the state of one sequence. Before each choice `mask` forbids every token that cannot continue a valid text, after it
`accept` moves on.
"""

from pathlib import Path
from typing import Any

import llguidance
import llguidance.numpy
import numpy as np
import torch
from torch import Tensor

from .driver import RefusedError

_COMPACT: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""One spelling per value. With free whitespace a small model can write blanks until its tokens are used up."""


class Grammars:
    """Makes the grammars of one model's sequences."""

    def __init__(self, folder: Path, vocab: int, eos: list[int]) -> None:
        self._tokenizer_json = folder / "tokenizer.json"
        self._vocab = vocab
        self._eos = eos
        self._tokens: Any = None

    def start(self, schema: str, produced: list[int]) -> "Grammar":
        """The grammar of `schema`, having read the tokens that this turn produced elsewhere."""
        if self._tokens is None:
            text = self._tokenizer_json.read_text(encoding="utf-8")
            self._tokens = llguidance.LLTokenizer(text, n_vocab=self._vocab, eos_token=self._eos)
        try:
            text = llguidance.LLMatcher.grammar_from_json_schema(schema, overrides=_COMPACT)
        except ValueError as error:
            raise RefusedError(f"the schema is not JSON: {error}") from error
        grammar = Grammar(llguidance.LLMatcher(self._tokens, text, log_level=0), self._vocab)
        for token in produced:
            grammar.accept(token)
        return grammar


class Grammar:
    """Where one sequence stands in its schema."""

    def __init__(self, matcher: Any, vocab: int) -> None:
        self._matcher = matcher
        self._bits = llguidance.numpy.allocate_token_bitmask(1, vocab)
        self._vocab = vocab
        self._check("the schema cannot be followed")

    @property
    def complete(self) -> bool:
        """Whether nothing may follow any more."""
        return bool(self._matcher.is_stopped())

    def mask(self, logits: Tensor) -> None:
        """Forbid, in place, the tokens that may not come next; `logits` is one row [vocab].

        Should the grammar break down here (it has limits), the next `accept` says so.
        """
        llguidance.numpy.fill_next_token_bitmask(self._matcher, self._bits)
        allowed = np.unpackbits(self._bits.view(np.uint8)[0], count=self._vocab, bitorder="little").view(np.bool_)
        logits.masked_fill_(~torch.from_numpy(allowed).to(logits.device), float("-inf"))

    def accept(self, token: int) -> None:
        """Move on by one token; raises RefusedError when the grammar cannot."""
        self._matcher.consume_token(token)
        self._check("the schema could not be followed to its end")

    def _check(self, what: str) -> None:
        if self._matcher.is_error():
            raise RefusedError(f"{what}: {self._matcher.get_error()}")
