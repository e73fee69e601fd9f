"""Packed weights multiply as plain ones do."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from kernos.kernel.devices import linear as module
from kernos.kernel.devices.linear import linear, pack


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 8, 100])
def test_a_packed_weight_gives_the_same_product(dtype: torch.dtype, rows: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    x, weight, bias = (torch.randn(size, generator=generator).to(dtype) for size in ((rows, 192), (320, 192), (320,)))
    packed = pack(weight)
    for added in (None, bias):
        torch.testing.assert_close(linear(x, packed, added), F.linear(x, weight, added))


def test_weights_stay_as_they_are_where_the_operators_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise AttributeError("no such operator")

    weight = torch.randn(8, 4)
    assert pack(weight.half()).dtype == torch.half
    monkeypatch.setattr(module, "_pack", missing)
    module._trusted.cache_clear()
    assert pack(weight) is weight
    module._trusted.cache_clear()
