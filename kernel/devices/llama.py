"""Decoders of the Llama shape: Llama, SmolLM, Mistral, Qwen2, Qwen3.

`shape` says which models are of this shape, `checkpoint` reads them, a `Computation` makes the passes; here are the rows of the open
sequences (`kv`), and which of them take part.
"""

import json
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

from .agreement import agreement, best
from .checkpoint import read
from .compiled import Compiled, supports
from .computation import Computation, Pass
from .driver import Work
from .eager import Eager
from .kv import KVRows
from .library import BITS, Library, Numbers
from .shape import read_shape


def load_llama(
    folder: Path, dtype: torch.dtype, device: torch.device, library: Library | None = None, numbers: Numbers = "float32"
) -> "Llama":
    """Read a supported model. With a library (pre: on a CPU) its products are made of `numbers`, if it can compute the model."""
    compiled = None if library is None else load_compiled(folder, library, numbers)
    return Llama(compiled or Eager(*read(folder, dtype, device)))


def load_compiled(folder: Path, library: Library, numbers: Numbers = "float32") -> Compiled | None:
    """The compiled computation of a supported model; None if the library cannot compute it so."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if not supports(library, read_shape(config), config, numbers):
        return None
    compiled = Compiled(library, *read(folder, None, torch.device("cpu")), numbers)
    if numbers in BITS:
        exact = Compiled(library, *read(folder, None, torch.device("cpu")))
        compiled.mode += f", top-1 {agreement(*(best(folder, computation) for computation in (exact, compiled))):.3f}"
    return compiled


class Llama:
    """A `LanguageModel`."""

    def __init__(self, computation: Computation) -> None:
        self._computation = computation
        shape = computation.shape
        self._kv = KVRows(shape.layers, shape.kv_heads, shape.head_dim, like=computation.like)

    @property
    def size(self) -> int:
        """See `LanguageModel`."""
        return self._computation.size

    @property
    def mode(self) -> str:
        """See `LanguageModel`."""
        return self._computation.mode

    @property
    def page_shape(self) -> tuple[int, ...]:
        """See `LanguageModel`."""
        return self._kv.page_shape

    def change(self, computation: Computation) -> None:
        """Compute otherwise from now on. Pre: no sequence is open; caches have the same type."""
        self._computation = computation

    @torch.inference_mode()
    def open(self, seq: int, tokens: int) -> None:
        """See `LanguageModel`."""
        self._kv.open(seq, tokens)

    def close(self, seq: int) -> None:
        """See `LanguageModel`."""
        self._kv.close(seq)

    def row(self, seq: int) -> Tensor:
        """See `LanguageModel`."""
        return self._kv.cache(seq)

    @torch.inference_mode()
    def adopt(self, seq: int, tokens: int) -> Tensor:
        """See `LanguageModel`."""
        self.cut(seq, tokens)
        return self._kv.cache(seq)

    def cut(self, seq: int, tokens: int) -> None:
        """See `LanguageModel`."""
        self._kv.rows[self._kv.find(seq)].length = tokens

    @torch.inference_mode()
    def forward(self, work: list[Work], unwanted: Callable[[], bool] = lambda: False) -> list[Tensor | RuntimeError | None]:
        """See `LanguageModel`."""
        results: dict[int, Tensor | RuntimeError | None] = self._make_room(work)
        able = sorted((piece for piece in work if piece.seq not in results), key=lambda piece: len(piece.tokens) > 1)
        if able:
            results |= self._pass(able, unwanted)
        return [results[piece.seq] for piece in work]

    def _make_room(self, work: list[Work]) -> dict[int, Tensor | RuntimeError | None]:
        """Give what failed. In practice memory runs out here and not in the pass: it is one sequence that is too long."""
        failed: dict[int, Tensor | RuntimeError | None] = {}
        self._kv.settle()
        for piece in work:
            try:
                self._kv.reserve(piece.seq, len(piece.tokens))
            except RuntimeError as error:
                failed[piece.seq] = error
        return failed

    def _pass(self, work: list[Work], unwanted: Callable[[], bool]) -> dict[int, Tensor | RuntimeError | None]:
        """Logits of the wanted. Pre: single tokens come first, and there is room.

        Until the lengths of the rows grow, at the end, what was written behind them is nothing: so a pass can be given up anywhere.
        """
        rows, counts = [self._kv.find(piece.seq) for piece in work], [len(piece.tokens) for piece in work]
        ends = [place for piece, end in zip(work, accumulate(counts), strict=True) for place in range(end - piece.wanted, end)]
        tokens = [token for piece in work for token in piece.tokens]
        logits = self._computation.logits(self._kv, Pass(tokens, rows, counts, ends, unwanted))
        for row, count in zip(rows, counts, strict=True):
            self._kv.rows[row].length += count
        of_each = torch.split(logits, [piece.wanted for piece in work])
        return {piece.seq: found if piece.wanted else None for piece, found in zip(work, of_each, strict=True)}
