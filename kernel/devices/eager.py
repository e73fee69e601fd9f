"""Passes by torch's operations, one after another: on every device, in every type, at once.

One forward pass serves prefill and decode. The arithmetic follows transformers' step by step, so that greedy tokens agree.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from .checkpoint import Layer, Weights
from .computation import LOOK_UP, Pass
from .driver import GivenUpError
from .kv import Attention, KVRows, attention
from .linear import linear, pack
from .shape import Shape

MODE = "eager"


class Eager:
    """A `Computation`."""

    mode = MODE

    def __init__(self, shape: Shape, weights: Weights) -> None:
        self.shape = shape
        self._layers = [_packed(layer) for layer in weights.layers]
        self._weights = replace(weights, head=pack(weights.head))

    @property
    def size(self) -> int:
        """See `Computation`."""
        layers = [getattr(layer, name) for layer in self._layers for name in Layer.__slots__]
        tensors = [self._weights.embedding, self._weights.norm, self._weights.head, *layers]
        return sum({id(tensor): tensor.nbytes for tensor in tensors if tensor is not None}.values())

    @property
    def like(self) -> Tensor:
        """See `Computation`."""
        return self._weights.embedding

    def logits(self, kv: KVRows, work: Pass) -> Tensor:
        """See `Computation`."""
        hidden = self._forward(work, attention(kv, work.rows, work.counts))[work.ends]
        if not work.ends:
            return hidden
        return linear(_norm(hidden, self._weights.norm, self.shape.eps), self._weights.head).float()

    def _forward(self, work: Pass, attend: Attention) -> Tensor:
        """Hidden states [tokens, dim] after the last layer."""
        weights, eps = self._weights, self.shape.eps
        x = F.embedding(torch.tensor(work.tokens, device=weights.embedding.device), weights.embedding)
        angles = attend.positions[:, None].float() * weights.inv_freq
        turn = angles.cos().to(x.dtype)[:, None], angles.sin().to(x.dtype)[:, None]
        for index, layer in enumerate(self._layers):
            if index % LOOK_UP == 0 and work.unwanted():
                raise GivenUpError
            q, k, v = self._heads(layer, _norm(x, layer.norm_in, eps), turn)
            x = x + linear(attend(index, q, k, v).flatten(1), layer.out)
            gate, up = linear(_norm(x, layer.norm_mid, eps), layer.gate_up).chunk(2, -1)
            x = x + linear(F.silu(gate) * up, layer.down)
        return x

    def _heads(self, layer: Layer, x: Tensor, turn: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values by head; the first two normalised where the model does so, and rotated."""
        shape = self.shape
        fused = linear(x, layer.qkv, layer.qkv_bias).view(len(x), -1, shape.head_dim)
        q, k, v = torch.split(fused, [shape.heads, shape.kv_heads, shape.kv_heads], 1)
        if layer.q_norm is not None and layer.k_norm is not None:
            q, k = _norm(q, layer.q_norm, shape.eps), _norm(k, layer.k_norm, shape.eps)
        return _rotate(q, *turn), _rotate(k, *turn), v


def _packed(layer: Layer) -> Layer:
    return replace(layer, qkv=pack(layer.qkv), out=pack(layer.out), gate_up=pack(layer.gate_up), down=pack(layer.down))


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return F.rms_norm(x, weight.shape, weight, eps)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding: dimension i is paired with i + half."""
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)
