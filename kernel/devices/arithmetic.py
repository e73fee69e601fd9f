"""In which numbers a device computes fastest, for models that are told no other (`dtype = "auto"`)."""

import time
from functools import cache

import torch
from torch import Tensor

from .linear import linear, pack

_ROWS, _SIZE, _TRIES = 32, 1_024, 3
"""A product as a step has them, large enough to be bound by arithmetic: some milliseconds each on one core."""


@cache
def fastest(device: torch.device) -> torch.dtype:
    """bfloat16 where the device has instructions for it, else float32.

    Tried and not asked for on a CPU: with instructions bfloat16 is 1.5 to 4 times as fast, without them 6 to 10 times as slow, as it is
    then done piece by piece in software; and flags that say which is which differ by maker and torch version.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    return min((torch.bfloat16, torch.float32), key=lambda dtype: _seconds(torch.ones(_ROWS, _SIZE, dtype=dtype, device=device)))


@torch.inference_mode()
def _seconds(x: Tensor) -> float:
    """The best of a few products: others use the machine too."""
    weight = pack(x.new_ones(_SIZE, _SIZE))
    taken = []
    for _ in range(_TRIES):
        began = time.perf_counter()
        linear(x, weight)
        taken.append(time.perf_counter() - began)
    return min(taken)
