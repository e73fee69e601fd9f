"""Matrix products with weights in the form the processor likes best.

Two forms spare a CPU's products from rearranging a weight each time. Measured on 2 cores, all products of a step of 135M parameters:

- oneDNN's own layout. In bfloat16 26 ms instead of 41 at 8 rows and 57 instead of 85 at 256, bit for bit the same; in float32 55 instead
  of 92 and 331 instead of 379.
- FBGEMM's layout in half precision, multiplied and summed in float32. A step of few rows takes as long as its weights take to be read,
  and these are half as many bytes: 14 ms instead of 27 at 1 row, 25 instead of 41 at 8, 71 instead of 84 at 32, the same at 200. Only for
  float32 weights that lose nothing by it, as those that were shipped in 16 bits.

The operators are no public interface: so they are tried before they are trusted, and weights stay as they are where they fail, on other
devices and in other types.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Product:
    """The product with a weight [out, in], and the sum with a bias."""

    multiply: Callable[[Tensor], Tensor]
    weight: object
    """What is multiplied by: the weight as it was given, or packed."""
    size: int
    """Bytes of it and of the bias in memory."""

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply x [tokens, in]: [tokens, out]."""
        return self.multiply(x)


Form = Callable[[Tensor, Tensor | None], Product]


def pack(weight: Tensor, bias: Tensor | None = None) -> Product:
    """Give the product with a weight [out, in], in the fastest form that can be had of it."""
    return _form(weight)(weight, bias)


def _form(weight: Tensor) -> Form:
    if weight.device.type == "cpu" and weight.dtype is torch.float32 and _fits_half(weight) and _trusted(_half, weight.dtype):
        return _half
    return _blocked if weight.device.type == "cpu" and _trusted(_blocked, weight.dtype) else _plain


def _plain(weight: Tensor, bias: Tensor | None) -> Product:
    return Product(lambda x: F.linear(x, weight, bias), weight, weight.nbytes + _bytes(bias))


def _blocked(weight: Tensor, bias: Tensor | None) -> Product:
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)
    multiply = torch.ops.mkldnn._linear_pointwise
    return Product(lambda x: multiply(x, packed, bias, "none", [], ""), packed, weight.nbytes + _bytes(bias))


_ROWS = 8
"""For so many rows the layout is chosen. Layouts for 1, 8, 64 and 256 rows were equally fast at each of these."""


def _half(weight: Tensor, bias: Tensor | None) -> Product:
    packed = torch.ops.quantized.linear_prepack_fp16(weight, bias)
    multiply = torch.ops.quantized.linear_dynamic_fp16
    return Product(lambda x: multiply(x, packed), packed, weight.numel() * torch.half.itemsize + _bytes(bias))


def _bytes(bias: Tensor | None) -> int:
    return 0 if bias is None else bias.nbytes


def _fits_half(weight: Tensor) -> bool:
    """Whether no weight moves by more than float32 rounds the largest: those of bfloat16 nearest to zero do, by less than that."""
    moved = (weight.half().float() - weight).abs().max()
    return bool(moved <= weight.abs().max() * torch.finfo(torch.float32).eps / 2)


@cache
def _trusted(form: Form, dtype: torch.dtype) -> bool:
    """Whether the operators of a form are there and compute what they should."""
    x, weight, bias = (torch.linspace(-1, 1, size, dtype=torch.bfloat16).to(dtype) for size in (5 * 64, 96 * 64, 96))
    x, weight = x.view(5, 64), weight.view(96, 64)
    wanted = F.linear(x, weight, bias)
    try:
        product = form(weight, bias)(x)
    except (AttributeError, RuntimeError):
        return False
    return torch.allclose(product, wanted, rtol=1e-2 if dtype is torch.bfloat16 else 1e-4)
