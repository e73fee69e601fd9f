"""Packed weights multiply as plain ones do."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from kernos.kernel.devices import linear as module
from kernos.kernel.devices.linear import pack


@pytest.fixture
def untried() -> Iterator[None]:
    """No form was tried before, nor is what the test tries remembered."""
    module._trusted.cache_clear()
    yield
    module._trusted.cache_clear()


def _random(*size: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(size[0])).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 8, 100])
def test_a_packed_weight_gives_the_same_product(dtype: torch.dtype, rows: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    x, weight, bias = (torch.randn(size, generator=generator).to(dtype) for size in ((rows, 192), (320, 192), (320,)))
    for added in (None, bias):
        torch.testing.assert_close(pack(weight, added)(x), F.linear(x, weight, added))


@pytest.mark.parametrize("shipped", [torch.half, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 8, 100])
def test_so_does_one_that_was_shipped_in_16_bits(shipped: torch.dtype, rows: int) -> None:
    x, weight, bias = _random(rows, 192), _random(320, 192, dtype=shipped).float(), _random(320)
    for added in (None, bias):
        torch.testing.assert_close(pack(weight, added)(x), F.linear(x, weight, added), rtol=1e-5, atol=1e-4)


def test_weights_of_16_bits_take_half_the_memory_of_float32_and_others_keep_all_they_are() -> None:
    if not module._trusted(module._half, torch.float32):
        pytest.skip("this processor's torch has no products in half precision")
    weight = _random(64, 32)
    for shipped in (torch.half, torch.bfloat16):
        assert pack(weight.to(shipped).float()).size == weight.nbytes // 2
    for other in (weight, weight * 1e6, weight.bfloat16().float() * 1e-6, torch.full_like(weight, torch.nan)):
        assert pack(other).size == weight.nbytes


@pytest.mark.usefixtures("untried")
def test_weights_stay_as_they_are_where_the_operators_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise AttributeError("no such operator")

    weight = _random(8, 4).half()
    x = _random(3, 4)
    monkeypatch.setattr(module, "_half", missing)
    monkeypatch.setattr(module, "_blocked", missing)
    for dtype in (torch.float32, torch.bfloat16):
        assert torch.equal(pack(weight.to(dtype))(x.to(dtype)), F.linear(x.to(dtype), weight.to(dtype)))


@pytest.mark.usefixtures("untried")
def test_a_form_that_multiplies_wrongly_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(weight: torch.Tensor, bias: torch.Tensor | None) -> module.Product:
        return module.Product(lambda x: F.linear(x, weight, bias) * 1.001, weight, weight.nbytes)

    monkeypatch.setattr(module, "_half", wrong)
    x, weight = _random(3, 4), _random(8, 4).half().float()
    torch.testing.assert_close(pack(weight)(x), F.linear(x, weight))
