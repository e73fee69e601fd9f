"""How much a cheaper arithmetic changes: in how many of a text's tokens the most likely next one is the same (top-1 agreement).

Teacher-forced: both see the text, not what they would have written themselves, so that one difference does not become many.
"""

from pathlib import Path
from typing import Final

import torch
from tokenizers import Tokenizer

from .computation import Computation, Pass
from .kv import KVRows

TEXT: Final = Path(__file__).with_name("agreement.txt")
"""A tale, a fact, a talk, a program, and numbers: some 330 tokens."""

_UNCOUNTED: Final = 8
"""First tokens, whose successors anybody could only guess."""


def best(folder: Path, computation: Computation) -> torch.Tensor:
    """The most likely successors of the tokens of the text."""
    tokens = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(TEXT.read_text(encoding="utf-8")).ids
    shape = computation.shape
    kv = KVRows(shape.layers, shape.kv_heads, shape.head_dim, like=computation.like)
    with torch.inference_mode():
        kv.open(0, len(tokens))
        ends = list(range(min(_UNCOUNTED, len(tokens)), len(tokens)))
        return computation.logits(kv, Pass(tokens, [0], [len(tokens)], ends, lambda: False)).argmax(-1)


def agreement(one: torch.Tensor, other: torch.Tensor) -> float:
    """Share of equal tokens; 1 when there are none, as of a vocabulary that knows nothing of the text."""
    return float((one == other).float().mean()) if len(one) else 1.0
