"""The library of compiled passes as Python sees it: the structures of `step.cpp`, and weights brought into its layout."""

import ctypes
from ctypes import POINTER, byref, c_double, c_int64, c_void_p
from functools import cache
from pathlib import Path
from typing import Final, Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

Numbers = Literal["float32", "bfloat16", "int8", "int4"]
"""What products are made of. `float32`: exact, weights as they are shipped; `bfloat16`: weights and inputs rounded to it, where an
instruction multiplies them (`Library.pairs`); `int8`, `int4`: weights rounded to so many bits with a scale for each few of an output, and
their inputs to 12."""

_FLOAT, _BFLOAT, _PAIRS = range(3)
_INTEGERS: Final = {8: 3, 4: 4}

BITS: Final[dict[Numbers, int]] = {"int8": 8, "int4": 4}
"""Of weights that are integers, which changes answers so much that it is told how much."""


class Linear(ctypes.Structure):
    """A weight in panels, with its scales (integers only) and a bias (or none)."""

    _fields_ = (("weight", c_void_p), ("scale", c_void_p), ("bias", c_void_p), ("inputs", c_int64), ("outputs", c_int64), ("kind", c_int64))


class LayerWeights(ctypes.Structure):
    """Weights of a layer; not every model has the last two norms."""

    _fields_ = (
        *((name, c_void_p) for name in ("norm_in", "norm_mid", "q_norm", "k_norm")),
        *((name, Linear) for name in ("qkv", "out", "gate_up", "down")),
    )


class ModelWeights(ctypes.Structure):
    """All weights, and the numbers that define the model."""

    _fields_ = (
        *((name, c_int64) for name in ("heads", "kv_heads", "head_dim")),
        ("eps", c_double),
        ("layers", POINTER(LayerWeights)),
        ("norm", c_void_p),
        ("head", Linear),
    )


class Tokens(ctypes.Structure):
    """The tokens of a pass, where they go in the buckets, and the strides of those."""

    _fields_ = (
        *((name, c_int64) for name in ("tokens", "threads")),
        *((name, c_void_p) for name in ("row", "position", "cos", "sin", "x", "scratch", "keys", "values")),
        *((name, c_int64) for name in ("of_layer", "of_row", "of_head", "narrow")),
    )


class Library:
    """The functions; raises OSError or AttributeError when they cannot be loaded here."""

    def __init__(self, path: Path) -> None:
        loaded = ctypes.CDLL(str(path))
        self.panel = int(loaded.kernos_panel())
        """Outputs whose weights lie together."""
        self.group = int(loaded.kernos_group())
        """Inputs of an output whose weights have a scale in common, where they are integers."""
        self.pairs = bool(loaded.kernos_pairs())
        """Whether the processor has an instruction for products of bfloat16 by bfloat16."""
        self.pack, self.rows, self.linear = loaded.kernos_pack, loaded.kernos_rows, loaded.kernos_linear
        self.layers, self.logits = loaded.kernos_layers, loaded.kernos_logits
        self.pack.argtypes = (POINTER(Linear), c_void_p)
        self.rows.argtypes = (POINTER(Linear), c_void_p, c_int64, c_void_p)
        self.linear.argtypes = (POINTER(Linear), c_void_p, c_void_p, c_int64, c_int64)
        self.layers.argtypes = (POINTER(ModelWeights), POINTER(Tokens), c_int64, c_int64)
        self.logits.argtypes = (POINTER(ModelWeights), c_void_p, c_void_p, c_int64, c_int64)


class Packer:
    """Brings weights into the library's layout and keeps them."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._kept: list[Tensor] = []

    @property
    def size(self) -> int:
        """Bytes of all that is kept."""
        return sum(tensor.nbytes for tensor in self._kept)

    def linear(self, weight: Tensor, numbers: Numbers, bias: Tensor | None = None) -> Linear:
        """The weight [out, in], bfloat16 or float32, in panels."""
        (outputs, inputs), scale, width = weight.shape, None, weight.shape[1]
        if bits := BITS.get(numbers):
            weight, scale = _rounded(weight, bits, self._library)
            kind, width = _INTEGERS[bits], inputs * bits // 8
        elif numbers == "bfloat16":
            weight, kind = weight.bfloat16(), _PAIRS
        else:
            kind = _BFLOAT if weight.dtype is torch.bfloat16 else _FLOAT
        weight = weight.contiguous()
        panels = weight.new_zeros(-(-outputs // self._library.panel), width, self._library.panel)
        self._kept.append(panels)
        made = Linear(panels.data_ptr(), self.vector(scale), self.vector(bias), inputs, outputs, kind)
        self._library.pack(byref(made), weight.data_ptr())
        return made

    def vector(self, vector: Tensor | None) -> int | None:
        """Where a vector of floats is."""
        if vector is None:
            return None
        self._kept.append(vector.float().clone())
        return self._kept[-1].data_ptr()


def multiply(library: Library, x: Tensor, weight: Linear) -> Tensor:
    """The product [tokens, out] of x [tokens, in] and a packed weight."""
    y = x.new_empty(len(x), weight.outputs)
    library.linear(byref(weight), x.data_ptr(), y.data_ptr(), len(x), torch.get_num_threads())
    return y


@cache
def load_library(path: Path) -> Library | None:
    """The library, if it can be loaded here and multiplies as torch does."""
    try:
        library = Library(path)
    except (OSError, AttributeError):
        return None
    return library if _is_right(library) else None


def _is_right(library: Library) -> bool:
    generator = torch.Generator().manual_seed(1)
    x, weight = (torch.randn(size, 64, generator=generator) for size in (7, 100))
    for given, numbers, near in _TRIALS:
        packed = Packer(library)
        made = packed.linear(weight.to(given), numbers)
        if not torch.allclose(multiply(library, x, made), F.linear(x, weight.to(given).float()), atol=near):
            return False
    return True


_TRIALS: Final[tuple[tuple[torch.dtype, Numbers, float], ...]] = (
    (torch.float32, "float32", 1e-4),
    (torch.bfloat16, "float32", 1e-4),
    (torch.bfloat16, "bfloat16", 0.2),
    (torch.float32, "int8", 1.0),
    (torch.float32, "int4", 6.0),
)
"""How a weight is given, in what it is multiplied, and how near the product must be."""

_BEYOND: Final = {8: (0.0,), 4: (-1.0, -0.5, 0.0, 0.5, 1.0)}
"""Where the largest weight of a group may come to lie, beyond the most negative integer: with few of these, cutting it off can be best."""
_ROWS: Final = 4_096
"""Outputs that are rounded at a time, so that what it takes is little beside the weight."""
_TINY: Final = 1e-12


def _rounded(weight: Tensor, bits: int, library: Library) -> tuple[Tensor, Tensor]:
    """The weight [out, in] in so many bits, a byte each, and a scale of each group of inputs of each output, [panels, groups, panel]."""
    (outputs, inputs), panel, group = weight.shape, library.panel, library.group
    pieces = [_nearest(F.pad(part.float(), (0, -inputs % group)).view(len(part), -1, group), bits) for part in torch.split(weight, _ROWS)]
    integers, scales = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    scales = F.pad(scales, (0, 0, 0, -outputs % panel))
    return integers.view(outputs, -1)[:, :inputs], scales.view(-1, panel, scales.shape[1]).transpose(1, 2).contiguous()


def _nearest(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Integers [outputs, groups, group] and scales [outputs, groups], the best of some, that give a weight [outputs, groups, group]."""
    most = 2.0 ** (bits - 1)
    largest = weight.gather(2, weight.abs().argmax(2, keepdim=True))
    scales = torch.stack([largest / -(most + beyond) for beyond in _BEYOND[bits]])
    scales = torch.where(scales.abs() < _TINY, _TINY, scales)
    errors = torch.stack([(_integers(weight, scale, most) * scale - weight).square().sum(2, keepdim=True) for scale in scales])
    best = scales.gather(0, errors.argmin(0, keepdim=True))[0]
    return _integers(weight, best, most).to(torch.int8), best[:, :, 0]


def _integers(weight: Tensor, scale: Tensor, most: float) -> Tensor:
    return (weight / scale).round().clamp(-most, most - 1)
