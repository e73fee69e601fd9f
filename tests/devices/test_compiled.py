"""Compiled passes: the same answers, whatever else is in a pass; how they come about, and what happens where they cannot."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from transformers import AutoModelForCausalLM

from kernos.kernel.devices import compiler
from kernos.kernel.devices.agreement import agreement, best
from kernos.kernel.devices.checkpoint import read
from kernos.kernel.devices.compiled import Compiled
from kernos.kernel.devices.driver import Work
from kernos.kernel.devices.eager import Eager
from kernos.kernel.devices.library import Library, Numbers, Packer, load_library, multiply
from kernos.kernel.devices.llama import Llama, load_compiled
from kernos.kernel.devices.messages import Load, Loaded, Optimized
from kernos.kernel.devices.shape import page_bytes
from kernos.kernel.devices.torch_driver import TorchDriver

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def library(compiled: Path) -> Library:
    loaded = load_library(compiled)
    assert loaded is not None
    return loaded


@pytest.fixture(scope="module", params=get_args(Numbers))
def model(request: pytest.FixtureRequest, smollm: Path, library: Library) -> Llama:
    computation = load_compiled(smollm, library, request.param)
    if computation is None:
        pytest.skip(f"this processor has no instruction for {request.param}")
    return Llama(computation)


def logits(model: Llama, *pieces: Work) -> list[torch.Tensor]:
    found = model.forward(list(pieces))
    assert all(isinstance(row, torch.Tensor) for row, piece in zip(found, pieces, strict=True) if piece.wanted)
    return [row[-1] for row in found if isinstance(row, torch.Tensor)]


def test_a_token_depends_on_its_sequence_to_the_last_bit(model: Llama, prompts: list[list[int]]) -> None:
    """Alone and at once, in pieces, beside others of every number: the logits are not close but equal."""
    prompt = prompts[0]
    model.open(0, len(prompt) + 1)
    (alone,) = logits(model, Work(0, prompt, wanted=1))
    (after,) = logits(model, Work(0, [7], wanted=1))
    model.close(0)
    for company in (1, 2, 3, 5, 7, 12):
        for seq in range(company + 1):
            model.open(seq, 400)
        for seq in range(1, company + 1):
            model.forward([Work(seq, prompts[seq][: 5 + seq], wanted=0)])
        others = [Work(seq, [seq], wanted=1) for seq in range(1, company + 1)]
        model.forward([*others, Work(0, prompt[:company], wanted=0)])
        *_, found = logits(model, *others, Work(0, prompt[company:], wanted=1))
        assert torch.equal(found, alone)
        found, *_ = logits(model, Work(0, [7], wanted=1), *others)
        assert torch.equal(found, after)
        for seq in range(company + 1):
            model.close(seq)


@pytest.mark.parametrize("rows", [*range(1, 14), 31])
@pytest.mark.parametrize(("outputs", "inputs"), [(96, 64), (100, 40), (7, 200)])
def test_products_are_those_of_torch(library: Library, rows: int, outputs: int, inputs: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    x, weight, bias = (torch.randn(size, generator=generator) for size in ((rows, inputs), (outputs, inputs), (outputs,)))
    trials: list[tuple[torch.Tensor, Numbers, float]] = [
        (weight, "float32", 1e-4),
        (weight.bfloat16(), "float32", 1e-4),
        (weight, "int8", 1.0),
        (weight, "int4", 9.0),
    ]
    for given, numbers, near in trials:
        packer = Packer(library)
        torch.testing.assert_close(
            multiply(library, x, packer.linear(given, numbers, bias)), x @ given.float().T + bias, atol=near, rtol=1e-3
        )


@pytest.mark.parametrize("rows", [1, 5, 31])
@pytest.mark.parametrize("inputs", [8, 64, 200])
def test_products_in_bfloat16_round_their_inputs_and_nothing_else(library: Library, rows: int, inputs: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    x, weight = (torch.randn(size, generator=generator) for size in ((rows, inputs), (100, inputs)))
    packer = Packer(library)
    found = multiply(library, x, packer.linear(weight, "bfloat16"))
    torch.testing.assert_close(found, x.bfloat16().float() @ weight.bfloat16().float().T, atol=1e-4, rtol=1e-3)


def test_agreement_with_float32_in_every_mode(smollm: Path, library: Library) -> None:
    exact = best(smollm, Eager(*read(smollm, torch.float32, CPU)))
    modes = {numbers: load_compiled(smollm, library, numbers) for numbers in get_args(Numbers)}
    compiled, rounded, coarse = modes["float32"], modes["int8"], modes["int4"]
    assert compiled is not None
    assert rounded is not None
    assert coarse is not None
    found = {numbers: agreement(exact, best(smollm, mode)) for numbers, mode in modes.items() if mode is not None}
    assert found["float32"] >= 0.99
    assert found.get("bfloat16", 1.0) >= 0.97
    assert found["int8"] >= 0.96
    assert 0.6 <= found["int4"] < found["int8"], "a small model loses much"
    assert rounded.mode == f"compiled int8, top-1 {found['int8']:.3f}"
    assert coarse.mode == f"compiled int4, top-1 {found['int4']:.3f}"
    assert coarse.size < 0.8 * rounded.size < 0.8 * 0.6 * compiled.size
    assert compiled.size < 0.75 * Eager(*read(smollm, torch.float32, CPU)).size  # which has the embedding twice, once in float32


def test_weights_in_bfloat16_lose_nothing(small_model: Callable[..., Any], tmp_path: Path, library: Library) -> None:
    small_model(tmp_path, "llama", head_dim=32).bfloat16().save_pretrained(tmp_path)
    reference = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, local_files_only=True)
    tokens = list(range(100))
    with torch.inference_mode():
        expected = reference(input_ids=torch.tensor([tokens])).logits[0, -1]
    computation = load_compiled(tmp_path, library)
    assert isinstance(computation, Compiled)
    model = Llama(computation)
    model.open(0, 100)
    torch.testing.assert_close(logits(model, Work(0, tokens, wanted=1))[0], expected, atol=1e-4, rtol=1e-3)


def test_a_model_is_compiled_between_its_sequences(
    compiled: Path, smollm: Path, prompts: list[list[int]], tmp_path: Path, new_bench: Callable[..., Any]
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir(0o755)
    bench = new_bench(smollm, compiled=cache)
    eager = bench.run(prompts[0], 12)
    assert bench.driver.improvable
    shutil.copy(compiled, cache)
    seq = bench.begin(prompts[0], 12)
    assert bench.driver.improve() == [], "a sequence is open"
    bench.drain()
    assert bench.tokens[seq] == eager
    (report,) = bench.driver.improve()
    assert isinstance(report, Optimized)
    assert report.mode == "compiled"
    assert not bench.driver.improvable
    assert bench.run(prompts[0], 12) == eager


def test_without_a_compiler_it_stays_eager(
    smollm: Path, prompts: list[list[int]], tmp_path: Path, new_bench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(compiler.CompilerError, match="no C\\+\\+ compiler"):
        compiler.build(tmp_path / "cache")
    bench = new_bench(smollm, dtype="int8", compiled=tmp_path / "cache")
    assert bench.driver.improvable
    assert bench.driver.improve() == []
    assert not bench.driver.improvable
    assert len(bench.run(prompts[0], 5)) == 5


def test_a_compiler_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "g++"
    broken.write_text("#!/bin/sh\necho 'step.cpp:1: error: not today' >&2; exit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(compiler.CompilerError, match="not today"):
        compiler.build(tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_a_library_that_others_can_write_or_that_is_none_is_not_loaded(compiled: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    copy = tmp_path / compiled.name
    copy.write_bytes(b"no library")
    copy.chmod(0o755)
    assert compiler.find(tmp_path) == copy
    assert load_library(copy) is None
    copy.chmod(0o775)
    assert compiler.find(tmp_path) is None
    copy.chmod(0o755)
    tmp_path.chmod(0o777)
    assert compiler.find(tmp_path) is None


def test_heads_that_make_no_whole_panels_stay_eager(small_model: Callable[..., Any], tmp_path: Path, compiled: Path) -> None:
    small_model(tmp_path, "llama", head_dim=8)
    driver = TorchDriver(CPU, compiled.parent)
    loaded = driver.load(Load("it", str(tmp_path), "decoder", "float32", 4))
    assert isinstance(loaded, Loaded)
    assert loaded.mode == "eager"
    assert [report.mode for report in driver.improve()] == ["eager"]
    assert not driver.improvable


def test_in_bfloat16_too_it_is_compiled_where_an_instruction_makes_its_products(
    smollm: Path, library: Library, prompts: list[list[int]], tmp_path: Path, compiled: Path, new_bench: Callable[..., Any]
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir(0o755)
    bench = new_bench(smollm, dtype="bfloat16", compiled=cache)
    bench.run(prompts[0], 12)
    shutil.copy(compiled, cache)
    (report,) = bench.driver.improve()
    assert report.mode == ("compiled bfloat16" if library.pairs else "eager")
    after = bench.run(prompts[0], 12)
    loaded = TorchDriver(CPU, cache).load(Load("it", str(smollm), "decoder", "auto", 4))
    assert isinstance(loaded, Loaded)
    if library.pairs:
        assert (loaded.dtype, loaded.mode) == ("bfloat16", "compiled bfloat16")
    assert loaded.page_bytes == page_bytes(smollm, loaded.dtype)
    assert new_bench(smollm, dtype="bfloat16", compiled=cache).run(prompts[0], 12) == after
