"""In which numbers a device computes fastest, for models that are told no other (`dtype = "auto"`)."""

import time
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from .library import Library, Packer, multiply
from .linear import pack

_ROWS, _SIZE, _TRIES = 32, 1_024, 3
"""A product as a step has them, large enough to be bound by arithmetic: some milliseconds each on one core."""


_MARGIN = 2
"""How many times as fast torch's products must be in bfloat16 for giving up compiled passes, which are then in float32, and save all else
that a step of few rows consists of."""


@cache
def fastest(device: torch.device, library: Library | None = None) -> torch.dtype:
    """bfloat16 where the device has instructions for it, else float32.

    A library of compiled passes knows whether it has them. Else, on a CPU, it is tried and not asked for: with instructions torch is 1.5 to
    4 times as fast in bfloat16, without them 6 to 10 times as slow, as it is then done piece by piece in software; and flags that say which
    is which differ by maker and torch version.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if library is not None and library.pairs:
        return torch.bfloat16
    x, weight = torch.ones(_ROWS, _SIZE, device=device), torch.ones(_SIZE, _SIZE, device=device)
    of_bfloat, of_float = (_seconds(pack(weight.to(dtype)), x.to(dtype)) for dtype in (torch.bfloat16, torch.float32))
    if library is not None:
        packer = Packer(library)
        given = packer.linear(weight.bfloat16(), "float32")
        of_float = _seconds(lambda x: multiply(library, x, given), x) / _MARGIN
    return torch.bfloat16 if of_bfloat < of_float else torch.float32


@torch.inference_mode()
def _seconds(product: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """The best of a few products: others use the machine too."""
    taken = []
    for _ in range(_TRIES):
        began = time.perf_counter()
        product(x)
        taken.append(time.perf_counter() - began)
    return min(taken)
