"""Decoders of the Llama shape: Llama, SmolLM, Mistral, Qwen2, Qwen3.

The weights have a layout of our own (fused projections), and one forward pass serves prefill and decode. `checkpoint` reads them,
`shape` says which models are of this shape; `kv` holds the caches. The arithmetic follows transformers' step by step, so that greedy
tokens agree.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from .driver import GivenUpError, Work
from .kv import Attention, KVRows, attention
from .linear import linear, pack
from .shape import Shape

_LOOK_UP = 4
"""Every so many layers it is asked whether the pass is still wanted: a few milliseconds apart, and a few microseconds each."""


@dataclass(frozen=True, slots=True)
class Layer:
    """Weights of one layer; q, k, v are one matrix, gate and up another: fewer and larger products."""

    norm_in: Tensor
    qkv: Tensor
    qkv_bias: Tensor | None
    q_norm: Tensor | None
    k_norm: Tensor | None
    out: Tensor
    norm_mid: Tensor
    gate_up: Tensor
    down: Tensor


@dataclass(frozen=True, slots=True)
class Weights:
    """All weights; `head` is `embedding` where the model ties them (until it is packed, which looking up tokens cannot read)."""

    embedding: Tensor
    layers: list[Layer]
    norm: Tensor
    head: Tensor
    inv_freq: Tensor
    """Angle per position of each pair of dimensions, float32."""


class Llama:
    """A `LanguageModel`."""

    def __init__(self, shape: Shape, weights: Weights) -> None:
        for index, layer in enumerate(weights.layers):  # in place, so that memory holds but one of them twice
            weights.layers[index] = _packed(layer)
        self._shape = shape
        self._weights = replace(weights, head=pack(weights.head))
        self._kv = KVRows(shape.layers, shape.kv_heads, shape.head_dim, like=weights.embedding)

    @property
    def size(self) -> int:
        """Bytes of weights in memory; what is shared counts once."""
        layers = [getattr(layer, name) for layer in self._weights.layers for name in Layer.__slots__]
        tensors = [self._weights.embedding, self._weights.norm, self._weights.head, *layers]
        return sum({id(tensor): tensor.nbytes for tensor in tensors if tensor is not None}.values())

    @property
    def page_shape(self) -> tuple[int, ...]:
        """See `LanguageModel`."""
        return self._kv.page_shape

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
        self._kv.rows[self._kv.find(seq)].length = tokens
        return self._kv.cache(seq)

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
        hidden = self._forward([token for piece in work for token in piece.tokens], attention(self._kv, rows, counts), unwanted)
        for row, count in zip(rows, counts, strict=True):
            self._kv.rows[row].length += count
        results: dict[int, Tensor | RuntimeError | None] = {piece.seq: None for piece in work}
        ends = [end - 1 for piece, end in zip(work, accumulate(counts), strict=True) if piece.wanted]
        if ends:
            wanted = [piece.seq for piece in work if piece.wanted]
            results |= zip(wanted, self._logits(hidden[ends]), strict=True)
        return results

    def _forward(self, tokens: list[int], attend: Attention, unwanted: Callable[[], bool]) -> Tensor:
        """Hidden states [tokens, dim] after the last layer."""
        weights, eps = self._weights, self._shape.eps
        x = F.embedding(torch.tensor(tokens, device=weights.embedding.device), weights.embedding)
        angles = attend.positions[:, None].float() * weights.inv_freq
        turn = angles.cos().to(x.dtype)[:, None], angles.sin().to(x.dtype)[:, None]
        for index, layer in enumerate(weights.layers):
            if index % _LOOK_UP == 0 and unwanted():
                raise GivenUpError
            q, k, v = self._heads(layer, _norm(x, layer.norm_in, eps), turn)
            x = x + linear(attend(index, q, k, v).flatten(1), layer.out)
            gate, up = linear(_norm(x, layer.norm_mid, eps), layer.gate_up).chunk(2, -1)
            x = x + linear(F.silu(gate) * up, layer.down)
        return x

    def _heads(self, layer: Layer, x: Tensor, turn: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values by head; the first two normalised where the model does so, and rotated."""
        shape = self._shape
        fused = linear(x, layer.qkv, layer.qkv_bias).view(len(x), -1, shape.head_dim)
        q, k, v = torch.split(fused, [shape.heads, shape.kv_heads, shape.kv_heads], 1)
        if layer.q_norm is not None and layer.k_norm is not None:
            q, k = _norm(q, layer.q_norm, shape.eps), _norm(k, layer.k_norm, shape.eps)
        return _rotate(q, *turn), _rotate(k, *turn), v

    def _logits(self, hidden: Tensor) -> Tensor:
        return linear(_norm(hidden, self._weights.norm, self._shape.eps), self._weights.head).float()


def _packed(layer: Layer) -> Layer:
    return replace(layer, qkv=pack(layer.qkv), out=pack(layer.out), gate_up=pack(layer.gate_up), down=pack(layer.down))


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return F.rms_norm(x, weight.shape, weight, eps)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding: dimension i is paired with i + half."""
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)
