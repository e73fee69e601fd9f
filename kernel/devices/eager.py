"""Passes by torch's operations, one after another: on every device, in every type, at once.

One forward pass serves prefill and decode. The arithmetic follows transformers' step by step, so that greedy tokens agree.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from .checkpoint import Layer, Weights
from .computation import LOOK_UP, Pass
from .driver import GivenUpError
from .kv import Attention, KVRows, attention
from .linear import Product, pack
from .shape import Shape

MODE = "eager"


@dataclass(frozen=True, slots=True)
class _Layer:
    """A layer of a checkpoint with its products packed."""

    norm_in: Tensor
    qkv: Product
    q_norm: Tensor | None
    k_norm: Tensor | None
    out: Product
    norm_mid: Tensor
    gate_up: Product
    down: Product


def _packed(layer: Layer) -> _Layer:
    return _Layer(
        layer.norm_in,
        pack(layer.qkv, layer.qkv_bias),
        layer.q_norm,
        layer.k_norm,
        pack(layer.out),
        layer.norm_mid,
        pack(layer.gate_up),
        pack(layer.down),
    )


class Eager:
    """A `Computation`."""

    mode = MODE

    def __init__(self, shape: Shape, weights: Weights) -> None:
        self.shape = shape
        self._embedding, self._norm, self._inv_freq = weights.embedding, weights.norm, weights.inv_freq
        self._layers = [_packed(layer) for layer in weights.layers]
        self._head = pack(weights.head)

    @property
    def size(self) -> int:
        """See `Computation`."""
        parts = [getattr(layer, name) for layer in self._layers for name in _Layer.__slots__]
        held: dict[int, int] = {}
        for part in (self._embedding, self._norm, self._head, *parts):
            if isinstance(part, Product):
                held[id(part.weight)] = part.size
            elif part is not None:
                held[id(part)] = part.nbytes
        return sum(held.values())

    @property
    def like(self) -> Tensor:
        """See `Computation`."""
        return self._embedding

    def logits(self, kv: KVRows, work: Pass) -> Tensor:
        """See `Computation`."""
        hidden = self._forward(work, attention(kv, work.rows, work.counts))[work.ends]
        if not work.ends:
            return hidden
        return self._head(_norm(hidden, self._norm, self.shape.eps)).float()

    def _forward(self, work: Pass, attend: Attention) -> Tensor:
        """Hidden states [tokens, dim] after the last layer."""
        eps = self.shape.eps
        x = F.embedding(torch.tensor(work.tokens, device=self._embedding.device), self._embedding)
        angles = attend.positions[:, None].float() * self._inv_freq
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        turn = torch.cat((cos, cos), -1)[:, None], torch.cat((-sin, sin), -1)[:, None]
        for index, layer in enumerate(self._layers):
            if index % LOOK_UP == 0 and work.unwanted():
                raise GivenUpError
            q, k, v = self._heads(layer, _norm(x, layer.norm_in, eps), turn)
            x = x + layer.out(attend(index, q, k, v).flatten(1))
            gate, up = layer.gate_up(_norm(x, layer.norm_mid, eps)).chunk(2, -1)
            x = x + layer.down(F.silu(gate) * up)
        return x

    def _heads(self, layer: _Layer, x: Tensor, turn: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values by head; the first two normalised where the model does so, and rotated."""
        shape = self.shape
        fused = layer.qkv(x).view(len(x), -1, shape.head_dim)
        sizes = [shape.heads, shape.kv_heads]
        turned, v = torch.split(fused, [sum(sizes), shape.kv_heads], 1)
        if layer.q_norm is not None and layer.k_norm is not None:
            q, k = torch.split(turned, sizes, 1)
            turned = torch.cat((_norm(q, layer.q_norm, shape.eps), _norm(k, layer.k_norm, shape.eps)), 1)
        q, k = torch.split(_rotate(turned, *turn), sizes, 1)
        return q, k, v


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return F.rms_norm(x, weight.shape, weight, eps)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding: dimension i is paired with i + half, and the sines of the first half are negative."""
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat((b, a), -1) * sin
