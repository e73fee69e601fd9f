"""Choosing the next token from its logits.

A draw is a pure function of (logits, seed, position): the random number is a hash of seed and position, with no generator whose state
would be lost when a turn moves to another device. A torch.Generator seeded per draw would do as well, but gives other numbers on
another kind of device.
"""

import hashlib
import math

import torch
from torch import Tensor

from .driver import RefusedError
from .messages import Sampling


def check(sampling: Sampling) -> None:
    """Refuse values that no distribution has."""
    if not (math.isfinite(sampling.temperature) and sampling.temperature >= 0):
        raise RefusedError(f"temperature must be 0 or more, not {sampling.temperature}")
    if not 0 < sampling.top_p <= 1:
        raise RefusedError(f"top_p must be above 0 and at most 1, not {sampling.top_p}")


def choose(logits: Tensor, how: list[tuple[Sampling, int]]) -> list[int]:
    """One token per row of `logits` [rows, vocab]; `how` gives each row's sampling and the position of its token."""
    tokens: list[int] = logits.argmax(-1).tolist()  # all greedy rows at once, and one copy from the device
    for row, (sampling, position) in enumerate(how):
        if sampling.temperature > 0:
            tokens[row] = _draw(logits[row], sampling, position)
    return tokens


def _draw(logits: Tensor, sampling: Sampling, position: int) -> int:
    """Inverse transform sampling, in float64 so that no token's share is lost in the sum over a large vocabulary."""
    scaled = (logits.double() - logits.max()) / sampling.temperature  # the maximum first: a tiny temperature must not overflow
    shares = torch.softmax(scaled, -1)
    ids = None
    if sampling.top_p < 1:
        shares, ids = shares.sort(descending=True, stable=True)
        shares = shares[: int((shares.cumsum(-1) < sampling.top_p).sum()) + 1]
    mass = shares.cumsum(-1)
    # right=True takes the first token whose mass lies above the point, so one of probability zero is never drawn.
    place = int(torch.searchsorted(mass, mass[-1] * _uniform(sampling.seed, position), right=True))
    place = min(place, len(mass) - 1)
    return place if ids is None else int(ids[place])


def _uniform(seed: int, position: int) -> float:
    """A number in [0, 1) with 53 random bits, the same on every machine."""
    digest = hashlib.blake2b(f"{seed}:{position}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) / (1 << 53)
