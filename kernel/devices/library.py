"""The library of compiled passes as Python sees it: the structures of `step.cpp`, and weights brought into its layout."""

import ctypes
from ctypes import POINTER, byref, c_double, c_int64, c_void_p
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

_KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}


class Linear(ctypes.Structure):
    """A weight in panels, with its scales (8 bits only) and a bias (or none)."""

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
        *((name, c_int64) for name in ("of_layer", "of_row", "of_head")),
    )


class Library:
    """The functions; raises OSError or AttributeError when they cannot be loaded here."""

    def __init__(self, path: Path) -> None:
        loaded = ctypes.CDLL(str(path))
        self.panel = int(loaded.kernos_panel())
        """Outputs whose weights lie together."""
        self.group = int(loaded.kernos_group())
        """Inputs of an output whose weights in 8 bits have a scale in common."""
        self.unit = int(loaded.kernos_unit())
        """What it takes a one in 8 bits for."""
        self.pack, self.rows, self.linear = loaded.kernos_pack, loaded.kernos_rows, loaded.kernos_linear
        self.layers, self.logits = loaded.kernos_layers, loaded.kernos_logits
        self.pack.argtypes = (POINTER(Linear), c_void_p)
        self.rows.argtypes = (POINTER(Linear), c_void_p, c_int64, c_void_p)
        self.linear.argtypes = (POINTER(Linear), c_void_p, c_void_p, c_int64, c_int64)
        self.layers.argtypes = (POINTER(ModelWeights), POINTER(Tokens), c_int64, c_int64)
        self.logits.argtypes = (POINTER(ModelWeights), c_void_p, c_void_p, c_int64, c_int64)


class Packer:
    """Brings weights into the library's layout and keeps them."""

    def __init__(self, library: Library, *, int8: bool = False) -> None:
        self._library, self._int8 = library, int8
        self._kept: list[Tensor] = []

    @property
    def size(self) -> int:
        """Bytes of all that is kept."""
        return sum(tensor.nbytes for tensor in self._kept)

    def linear(self, weight: Tensor, bias: Tensor | None = None) -> Linear:
        """The weight [out, in], bfloat16 or float32, in panels."""
        (outputs, inputs), scale = weight.shape, None
        if self._int8:
            weight, scale = _rounded(weight, self._library)
        weight = weight.contiguous()
        panels = weight.new_zeros(-(-outputs // self._library.panel), inputs, self._library.panel)
        self._kept.append(panels)
        made = Linear(panels.data_ptr(), self.vector(scale), self.vector(bias), inputs, outputs, _KINDS[weight.dtype])
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
    for given, int8, near in ((weight, False, 1e-4), (weight.bfloat16(), False, 1e-4), (weight, True, 1.0)):
        packer = Packer(library, int8=int8)
        if not torch.allclose(multiply(library, x, packer.linear(given)), F.linear(x, given.float()), atol=near):
            return False
    return True


def _rounded(weight: Tensor, library: Library) -> tuple[Tensor, Tensor]:
    """The weight [out, in] in 8 bits, and a scale of each group of inputs of each output, [panels, groups, panel]."""
    (outputs, inputs), panel, group = weight.shape, library.panel, library.group
    groups = -(-inputs // group)
    padded = F.pad(weight.float(), (0, groups * group - inputs)).view(outputs, groups, group)
    scale = padded.abs().amax(2).clamp_min(1e-12) / 127
    rounded = (padded / scale[:, :, None]).round().to(torch.int8).view(outputs, -1)[:, :inputs]
    scale = F.pad(scale / library.unit, (0, 0, 0, -outputs % panel))
    return rounded, scale.view(-1, panel, groups).transpose(1, 2).contiguous()
