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
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        turn = torch.cat((cos, cos), -1)[:, None], torch.cat((-sin, sin), -1)[:, None]
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
        sizes = [shape.heads, shape.kv_heads]
        turned, v = torch.split(fused, [sum(sizes), shape.kv_heads], 1)
        if layer.q_norm is not None and layer.k_norm is not None:
            q, k = torch.split(turned, sizes, 1)
            turned = torch.cat((_norm(q, layer.q_norm, shape.eps), _norm(k, layer.k_norm, shape.eps)), 1)
        q, k = torch.split(_rotate(turned, *turn), sizes, 1)
        return q, k, v


def _packed(layer: Layer) -> Layer:
    return replace(layer, qkv=pack(layer.qkv), out=pack(layer.out), gate_up=pack(layer.gate_up), down=pack(layer.down))


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return F.rms_norm(x, weight.shape, weight, eps)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding: dimension i is paired with i + half, and the sines of the first half are negative."""
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat((b, a), -1) * sin
