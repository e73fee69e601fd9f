"""The page pools of one decoder: slots of device memory, host memory and the swap file, and copies between them and the rows.

The kernel says which slot holds what; here are the bytes, how many tokens of each slot are filled, and which slots a copy beside the
steps is using. By these two, a mistake of the kernel or a failed order ends in a refusal, never in keys and values of something else.

A page is one piece of memory, [keys and values, layers, heads, PAGE, dim], so that between pools it moves as plain bytes. Of a partial page
only the filled tokens are copied from and to rows: the rest of it is whatever the memory held, possibly NaN.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from .background import Background
from .driver import RefusedError
from .messages import PAGE, Copied, Copy, Failed, Load, Tier
from .swap import SwapFile

_AHEAD_BYTES = 128 << 20
"""Memory of the device pool to be had before it is needed: on a virtual machine that had to ask its host for it, a page of 1.5 MB took
2 ms, where the tokens in it had taken 40."""

_NEIGHBOURS: set[frozenset[Tier]] = {frozenset({"device", "host"}), frozenset({"host", "disk"})}


class PagePool:
    """The slots of all tiers. Used by the thread of the steps only; the swap file alone is left to `background`."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, load: Load, background: Background) -> None:
        self.page_bytes = page_bytes(shape, dtype)
        on_gpu = device.type == "cuda"
        # Empty, not zeros: what is far from any page takes no memory.
        self._device = torch.empty(load.pages, *shape, dtype=dtype, device=device)
        self._host = torch.empty(load.host_pages, *shape, dtype=dtype, pin_memory=on_gpu and load.host_pages > 0)
        self._host_bytes = self._host.view(torch.uint8).flatten(1).numpy()
        self._ahead = 0 if on_gpu else _AHEAD_BYTES // self.page_bytes
        self._ready = self._used_up = 0
        """Device slots whose memory is there, and those up to the last that a page was ever saved to."""
        self._swap = SwapFile(Path(load.swap)) if load.disk_pages else None
        self._filled: dict[Tier, list[int]] = {
            "device": [0] * load.pages,
            "host": [0] * load.host_pages,
            "disk": [0] * load.disk_pages,
        }
        self._used: set[tuple[Tier, int]] = set()  # by copies that run beside the steps
        self._background = background

    def close(self) -> None:
        """Give the swap file back, when the copies that use it are done. Memory goes with the last reference."""
        if self._swap is not None:
            self._background.submit(self._swap.close)

    @torch.inference_mode()
    def save(self, row: Tensor, held: int, first: int, slots: list[int]) -> None:
        """Copy pages of a row that holds `held` tokens into device slots; those past its end hold nothing, and all if RefusedError."""
        self.forget("device", slots)
        self._check("device", slots)
        _check_distinct(slots)
        if first < 0 or first * PAGE >= held:
            raise RefusedError(f"page {first} is not in a row of {held} tokens")
        self._used_up = max([self._used_up, *(slot + 1 for slot in slots)])
        for slot, index in zip(slots, range(first, -(-held // PAGE)), strict=False):
            filled = min(PAGE, held - index * PAGE)
            _copy(row.narrow(-2, index * PAGE, filled), self._device[slot, ..., :filled, :])
            self._filled["device"][slot] = filled

    def prepare(self) -> bool:
        """Have the memory of one more device slot, if those that follow the last used one are too few; False: they are not."""
        if self._ready >= min(len(self._device), self._used_up + self._ahead):
            return False
        if not self._filled["device"][self._ready]:
            self._device[self._ready].zero_()  # the system gives memory when it is written to
        self._ready += 1
        return True

    def check(self, slots: list[int], tokens: int) -> None:
        """Raises RefusedError unless these device slots hold that many tokens of a sequence, from its start."""
        if len(slots) != -(-tokens // PAGE):
            raise RefusedError(f"{tokens} cached tokens do not lie in {len(slots)} pages of {PAGE}")
        self._check("device", slots)
        for index, slot in enumerate(slots):
            needed, filled = min(PAGE, tokens - index * PAGE), self._filled["device"][slot]
            if filled < needed:
                raise RefusedError(f"device slot {slot} holds {filled} tokens of KV, not the {needed} of page {index}")

    @torch.inference_mode()
    def restore(self, row: Tensor, slots: list[int], tokens: int) -> None:
        """Copy pages into an empty row. Pre: `check`, and the row has room."""
        for index, slot in enumerate(slots):
            filled = min(PAGE, tokens - index * PAGE)
            _copy(self._device[slot, ..., :filled, :], row.narrow(-2, index * PAGE, filled))

    def copy(self, order: Copy) -> Copied | None:
        """Copy pages between tiers, None: beside the steps. Raises RefusedError, and then the target slots hold nothing."""
        sources, targets = [pair[0] for pair in order.pairs], [pair[1] for pair in order.pairs]
        filled = [self._filled[order.source][slot] for slot in sources if 0 <= slot < len(self._filled[order.source])]
        self.forget(order.target, targets)
        self._check_copy(order, sources, targets)
        if "disk" in (order.source, order.target):
            self._copy_beside(order, filled)
            return None
        began = time.perf_counter()
        self._copy_at_once(order)
        self._fill(order.target, targets, filled)
        return Copied(order.id, time.perf_counter() - began, len(targets) * self.page_bytes)

    def forget(self, tier: Tier, slots: Iterable[int]) -> None:
        """Take it that these slots hold nothing; those that do not exist are passed over."""
        for slot in slots:
            if 0 <= slot < len(self._filled[tier]):
                self._filled[tier][slot] = 0

    def _fill(self, tier: Tier, slots: list[int], filled: list[int]) -> None:
        for slot, tokens in zip(slots, filled, strict=True):
            self._filled[tier][slot] = tokens

    def _check(self, tier: Tier, slots: Iterable[int]) -> None:
        size = len(self._filled[tier])
        for slot in slots:
            if not 0 <= slot < size:
                raise RefusedError(f"there is no {tier} slot {slot}: the pool has {size}")
            if (tier, slot) in self._used:
                raise RefusedError(f"{tier} slot {slot} is in use by a copy that has not reported yet")

    def _check_copy(self, order: Copy, sources: list[int], targets: list[int]) -> None:
        if frozenset({order.source, order.target}) not in _NEIGHBOURS:
            raise RefusedError(f"pages are not copied from {order.source} to {order.target}; between device and disk they go by the host")
        self._check(order.source, sources)
        self._check(order.target, targets)
        _check_distinct(targets)
        for slot in sources:
            if not self._filled[order.source][slot]:
                raise RefusedError(f"{order.source} slot {slot} holds nothing")

    @torch.inference_mode()
    def _copy_at_once(self, order: Copy) -> None:
        """One copy per page: pages are large and whole, and to gather them first would copy them twice."""
        down = order.source == "device"
        source, target = (self._device, self._host) if down else (self._host, self._device)
        for from_, to in order.pairs:
            target[to].copy_(source[from_], non_blocking=True)
        if self._device.is_cuda:  # the host slots may be read or overwritten by the next order, which does not wait for the stream
            torch.cuda.synchronize(self._device.device)

    def _copy_beside(self, order: Copy, filled: list[int]) -> None:
        used: set[tuple[Tier, int]] = set()
        for from_, to in order.pairs:
            used |= {(order.source, from_), (order.target, to)}
        self._used |= used

        def finish(error: Exception | None, seconds: float) -> Copied | Failed:
            self._used -= used
            if error is not None:
                return Failed(f"{type(error).__name__}: {error}", copy=order.id)
            self._fill(order.target, [pair[1] for pair in order.pairs], filled)
            return Copied(order.id, seconds, len(order.pairs) * self.page_bytes)

        self._background.submit(self._swapping(order), finish)

    def _swapping(self, order: Copy) -> Callable[[], None]:
        """What the other thread does for an order. It owns the slots meanwhile."""
        swap, host = self._swap, self._host_bytes

        def work() -> None:
            for from_, to in order.pairs:
                if swap is None:
                    raise RefusedError("there is no swap file")
                if order.target == "disk":
                    swap.write(to, memoryview(host[from_]))
                else:
                    swap.read(from_, memoryview(host[to]))

        return work


def page_bytes(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    """Size of a page; 0 for a model that has none."""
    return math.prod(shape) * dtype.itemsize if shape else 0


def _copy(source: Tensor, target: Tensor) -> None:
    """On a processor by one thread: torch takes all, and of those one waits for whoever else runs while a turn ends, often 3 ms for 0.2."""
    if target.is_cuda:
        target.copy_(source)
    else:
        target.view(torch.int16).numpy()[...] = source.view(torch.int16).numpy()


def _check_distinct(targets: Sequence[int]) -> None:
    if len(set(targets)) != len(targets):
        raise RefusedError("a slot is the target of two pages")
