"""Passes by compiled code (`step.cpp`, built by `compiler`), on a CPU: all layers of a pass without Python, at the speed of memory.

Arithmetic is float32, but for products, which are made of `Numbers`. By default these are float32, too: weights are kept as the model ships
them, so bfloat16 ones take half the memory and half the time to read, and give the same tokens as in float32. With bfloat16 keys and values
are kept in it as well. With 4 bits the head has 8, as what it is tied to are the embeddings, and it decides between tokens. A token depends
on its own sequence to the last bit, whatever else is in the pass.
"""

from ctypes import byref
from typing import Any, Final

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from .checkpoint import Layer, Weights
from .computation import LOOK_UP, Pass
from .driver import GivenUpError
from .kv import KVRows
from .library import LayerWeights, Library, ModelWeights, Numbers, Packer, Tokens
from .shape import Shape

MODES: Final[dict[Numbers, str]] = {
    "float32": "compiled",
    "bfloat16": "compiled bfloat16",
    "int8": "compiled int8",
    "int4": "compiled int4",
}


class Compiled:
    """A `Computation`."""

    def __init__(self, library: Library, shape: Shape, weights: Weights, numbers: Numbers = "float32") -> None:
        self.mode = MODES[numbers]
        self.shape = shape
        self.like = torch.empty(0, dtype=torch.bfloat16 if numbers == "bfloat16" else torch.float32)
        self._library = library
        self._packer = Packer(library)
        self._numbers: Numbers = numbers
        layers = [self._layer(layer) for layer in weights.layers]
        self._depth = len(layers)
        first = layers[0]
        self._room = sum((first.qkv.inputs, first.qkv.outputs, first.out.inputs, first.down.inputs))
        self._model = ModelWeights(
            shape.heads,
            shape.kv_heads,
            shape.head_dim,
            shape.eps,
            (LayerWeights * len(layers))(*layers),
            self._packer.vector(weights.norm),
            self._packer.linear(weights.head, "int8" if numbers == "int4" else numbers),
        )
        self._embedding = None if weights.embedding is weights.head else weights.embedding.clone()
        self._inv_freq = weights.inv_freq
        self._scratch = torch.empty(0)

    @property
    def size(self) -> int:
        """See `Computation`."""
        return self._packer.size + (0 if self._embedding is None else self._embedding.nbytes)

    def logits(self, kv: KVRows, work: Pass) -> Tensor:
        """See `Computation`."""
        x = self._forward(kv, work)[work.ends]
        logits = torch.empty(len(x), self._model.head.outputs)
        self._library.logits(byref(self._model), x.data_ptr(), logits.data_ptr(), len(x), torch.get_num_threads())
        return logits

    def _forward(self, kv: KVRows, work: Pass) -> Tensor:
        """Hidden states [tokens, dim] after the last layer."""
        count = len(work.tokens)
        x = self._embed(torch.tensor(work.tokens))
        row = torch.tensor(work.rows).repeat_interleave(torch.tensor(work.counts))
        position = torch.cat([torch.arange(size) + kv.rows[at].length for at, size in zip(work.rows, work.counts, strict=True)])
        angles = position[:, None].float() * self._inv_freq
        if len(self._scratch) < count * self._room:
            self._scratch = torch.empty(count * self._room)
        tensors = row, position, angles.cos(), angles.sin(), x, self._scratch, *kv.buckets
        narrow = kv.buckets.dtype is torch.bfloat16
        tokens = Tokens(count, torch.get_num_threads(), *(tensor.data_ptr() for tensor in tensors), *kv.buckets.stride()[1:4], narrow)
        for first in range(0, self._depth, LOOK_UP):
            if work.unwanted():
                raise GivenUpError
            self._library.layers(byref(self._model), byref(tokens), first, min(first + LOOK_UP, self._depth))
        return x

    def _embed(self, tokens: Tensor) -> Tensor:
        if self._embedding is not None:
            return F.embedding(tokens, self._embedding).float()
        x = torch.empty(len(tokens), self._model.head.inputs)
        self._library.rows(byref(self._model.head), tokens.data_ptr(), len(tokens), x.data_ptr())
        return x

    def _layer(self, layer: Layer) -> LayerWeights:
        norms = map(self._packer.vector, (layer.norm_in, layer.norm_mid, layer.q_norm, layer.k_norm))
        others = (self._packer.linear(weight, self._numbers) for weight in (layer.out, self._interleaved(layer.gate_up), layer.down))
        return LayerWeights(*norms, self._packer.linear(layer.qkv, self._numbers, layer.qkv_bias), *others)

    def _interleaved(self, gate_up: Tensor) -> Tensor:
        """Half a panel of gates, then what they let through, and so on; zeros where the last are not whole halves."""
        half = self._library.panel // 2
        gates, ups = gate_up.chunk(2)
        gates, ups = (F.pad(rows, (0, 0, 0, -len(rows) % half)).view(-1, half, rows.shape[1]) for rows in (gates, ups))
        return torch.stack((gates, ups), 1).flatten(0, 2)


def supports(library: Library, shape: Shape, config: dict[str, Any], numbers: Numbers) -> bool:
    """Whether the library can compute a model: its heads must come in whole panels, its inputs in words of eight."""
    if numbers == "bfloat16" and not library.pairs:
        return False
    return shape.head_dim % library.panel == 0 and config["hidden_size"] % 8 == config["intermediate_size"] % 8 == 0
