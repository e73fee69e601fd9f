"""The fast path computes what transformers computes."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from kernos.kernel.devices import linear
from kernos.kernel.devices.driver import Work
from kernos.kernel.devices.generic import Generic
from kernos.kernel.devices.library import load_library
from kernos.kernel.devices.llama import load_llama
from kernos.kernel.devices.messages import PAGE
from kernos.kernel.devices.shape import supports

ALONE = 20 if os.environ.get("KERNOS_PROVE") else 2
CLOSE = 1e-4
"""Where the two best logits are this close, rounding decides, and either token is right."""


@pytest.fixture(scope="module")
def reference(smollm: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(smollm, dtype=torch.float32, local_files_only=True)


@torch.inference_mode()
def agreed(reference: Any, prompt: list[int], tokens: list[int]) -> int:
    """How many of `tokens` were compared with the reference's greedy choice, all of them equal.

    The reference sees our own tokens: its choice at each place, given the same text before, is what its `generate` would produce.
    """
    logits = reference(input_ids=torch.tensor([prompt + tokens[:-1]])).logits[0, len(prompt) - 1 :]
    best = logits.topk(2)
    unclear = [*(best.values[:, 0] - best.values[:, 1] < CLOSE).tolist(), True]
    compared: int = unclear.index(True)
    assert best.indices[:compared, 0].tolist() == tokens[:compared]
    return compared


def test_mixed_batch_gives_the_tokens_of_transformers(reference: Any, prompts: list[list[int]], greedy: list[list[int]]) -> None:
    compared = [agreed(reference, prompt, tokens) for prompt, tokens in zip(prompts, greedy, strict=True)]
    assert {len(tokens) for tokens in greedy} == {64}
    assert sum(count == 64 for count in compared) >= 18


def test_a_sequence_alone_gives_the_tokens_of_transformers(reference: Any, prompts: list[list[int]], bench: Any) -> None:
    for prompt in prompts[:ALONE]:
        assert agreed(reference, prompt, bench.run(prompt, 64)) == 64


def test_generate_gives_the_same_tokens(reference: Any, prompts: list[list[int]], greedy: list[list[int]]) -> None:
    for prompt, tokens in list(zip(prompts, greedy, strict=True))[:3]:
        ids = torch.tensor([prompt])
        out = reference.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False)
        produced = out[0, len(prompt) :].tolist()
        assert produced == tokens[: len(produced)]


def test_generic_path_gives_the_same_tokens(smollm: Path, prompts: list[list[int]], greedy: list[list[int]]) -> None:
    model = Generic(smollm, torch.float32, torch.device("cpu"))
    for seq in range(3):
        prompt, tokens = prompts[seq], greedy[seq][:16]
        model.open(seq, len(prompt))
        assert model.forward([Work(seq, prompt[:10], wanted=0)]) == [None]
        (logits,) = model.forward([Work(seq, prompt[10:], wanted=1)])
        for token in tokens:
            assert isinstance(logits, torch.Tensor)
            assert int(logits.argmax()) == token
            (logits,) = model.forward([Work(seq, [token], wanted=1)])
        model.close(seq)


LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
FAMILY: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama, llama3 rope": {"rope_parameters": LLAMA3},
    "llama, wide heads": {"head_dim": 32},
    "mistral": {"sliding_window": None},
    "qwen2": {},
    "qwen3": {"head_dim": 32},
    "qwen3, tied": {"tie_word_embeddings": True},
}


@pytest.mark.parametrize("mode", ["compiled", "eager"])
@pytest.mark.parametrize("kind", FAMILY)
def test_every_member_of_the_family(
    kind: str, mode: str, small_model: Callable[..., Any], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    reference = small_model(tmp_path, kind.split(",")[0], **FAMILY[kind])
    tokens = torch.randint(128, (200,), generator=torch.Generator().manual_seed(2)).tolist()
    with torch.inference_mode():
        expected = reference(input_ids=torch.tensor([tokens])).logits[0]
    assert supports(json.loads((tmp_path / "config.json").read_text()))
    library = load_library(request.getfixturevalue("compiled")) if mode == "compiled" else None
    model = load_llama(tmp_path, torch.float32, torch.device("cpu"), library)
    counts = {1: [50, 100, *[1] * 50], 2: [1, 49, 2, *[1] * 40], 3: [7, *[1] * 20, 30, 60]}  # in each pass; short and long ones mixed
    for seq in counts:
        model.open(seq, 200)
    for turn in range(52):
        work, ends = [], []
        for seq, sizes in counts.items():
            if turn < len(sizes):
                start = sum(sizes[:turn])
                ends.append(start + sizes[turn])
                work.append(Work(seq, tokens[start : ends[-1]], wanted=min((turn + seq) % 3, sizes[turn])))
        for piece, end, logits in zip(work, ends, model.forward(work), strict=True):
            if piece.wanted:
                torch.testing.assert_close(logits, expected[end - piece.wanted : end], atol=1e-3, rtol=1e-3)
            else:
                assert logits is None


def test_a_row_too_long_for_memory_fails_alone(small_model: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_model(tmp_path, "llama")
    model = load_llama(tmp_path, torch.float32, torch.device("cpu"))
    for seq in (1, 2, 3):
        model.open(seq, PAGE)

    def no_memory(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(model._kv, "_resize", no_memory)
    first, second, third = model.forward([Work(1, [5], 1), Work(2, [5] * (PAGE + 1), 1), Work(3, [5, 6], 1)])
    assert str(second) == "out of memory"
    model.close(2)
    again = load_llama(tmp_path, torch.float32, torch.device("cpu"))
    for seq in (1, 3):
        again.open(seq, 2)
    torch.testing.assert_close(again.forward([Work(1, [5], 1), Work(3, [5, 6], 1)]), [first, third])


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "gpt2"},
        {"sliding_window": 128},
        {"hidden_act": "gelu"},
        {"attention_bias": True},
        {"layer_types": ["full_attention", "sliding_attention"]},
        {"rope_scaling": {"type": "linear", "factor": 2.0}},
    ],
)
def test_other_shapes_are_left_to_the_generic_path(change: dict[str, Any]) -> None:
    config = {"model_type": "mistral", "hidden_act": "silu"}
    assert supports(config)
    assert not supports(config | change)


def test_a_model_of_another_shape_is_served(small_model: Callable[..., Any], tmp_path: Path, new_bench: Callable[[Path], Any]) -> None:
    reference = small_model(tmp_path, "gpt_neox", rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5})
    bench = new_bench(tmp_path)
    first, second = bench.begin([5, 6, 7], 60), bench.begin(list(range(100)), 20)
    bench.drain()
    assert agreed(reference, [5, 6, 7], bench.tokens[first]) > 50
    assert agreed(reference, list(range(100)), bench.tokens[second]) > 15


def test_what_is_shared_counts_once(small_model: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A head tied to the embedding is the same memory where no form of product is to be had, as on a GPU."""
    monkeypatch.setattr(linear, "_form", lambda _: linear._plain)
    for kind in ("llama", "qwen3, tied"):
        folder = tmp_path / kind
        model = small_model(folder, kind.split(",")[0], **FAMILY[kind])
        assert load_llama(folder, torch.float32, torch.device("cpu")).size == sum(weight.nbytes for weight in model.parameters())
