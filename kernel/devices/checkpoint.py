"""Reading Llama-shaped models from a model folder: their weights, with fused projections."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from .shape import Shape, read_shape, rope


@dataclass(frozen=True, slots=True)
class Layer:
    """Weights of one layer; q, k, v are one matrix, gate and up another: fewer and larger products."""

    norm_in: Tensor
    qkv: Tensor
    qkv_bias: Tensor | None
    q_norm: Tensor | None
    k_norm: Tensor | None
    out: Tensor
    norm_mid: Tensor
    gate_up: Tensor
    down: Tensor


@dataclass(frozen=True, slots=True)
class Weights:
    """All weights; `head` is `embedding` where the model ties them (until it is packed, which looking up tokens cannot read)."""

    embedding: Tensor
    layers: Iterator[Layer]
    """Read as they are asked for: whoever packs them holds but one of them twice."""
    norm: Tensor
    head: Tensor
    inv_freq: Tensor
    """Angle per position of each pair of dimensions, float32."""


def read(folder: Path, dtype: torch.dtype | None, device: torch.device) -> tuple[Shape, Weights]:
    """Read a supported model; dtype None: bfloat16 as it is, all else as float32, which loses nothing."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    shape = read_shape(config)
    tensors = _Tensors(folder, dtype, device)
    embedding = tensors["model.embed_tokens.weight"]
    return shape, Weights(
        embedding=embedding,
        layers=(_layer(tensors, f"model.layers.{index}.") for index in range(shape.layers)),
        norm=tensors["model.norm.weight"],
        head=embedding if config.get("tie_word_embeddings") else tensors["lm_head.weight"],
        inv_freq=_inv_freq(rope(config), shape.head_dim).to(device),
    )


class _Tensors:
    """The tensors of all weight files by name, brought to one type and device as they are asked for."""

    def __init__(self, folder: Path, dtype: torch.dtype | None, device: torch.device) -> None:
        files: list[Any] = [safe_open(path, framework="pt") for path in sorted(folder.glob("*.safetensors"))]
        self._files = {name: file for file in files for name in file.keys()}  # noqa: SIM118
        self._dtype, self._device = dtype, device

    def __getitem__(self, name: str) -> Tensor:
        tensor: Tensor = self._files[name].get_tensor(name)
        as_is = torch.bfloat16 if tensor.dtype is torch.bfloat16 else torch.float32
        return tensor.to(self._device, self._dtype or as_is)

    def get(self, name: str) -> Tensor | None:
        return self[name] if name in self._files else None

    def fused(self, *names: str) -> Tensor:
        return torch.cat([self[name] for name in names])


def _layer(tensors: _Tensors, prefix: str) -> Layer:
    qkv = [f"{prefix}self_attn.{name}_proj" for name in "qkv"]
    biased = tensors.get(f"{qkv[0]}.bias") is not None
    return Layer(
        norm_in=tensors[f"{prefix}input_layernorm.weight"],
        qkv=tensors.fused(*(f"{name}.weight" for name in qkv)),
        qkv_bias=tensors.fused(*(f"{name}.bias" for name in qkv)) if biased else None,
        q_norm=tensors.get(f"{prefix}self_attn.q_norm.weight"),
        k_norm=tensors.get(f"{prefix}self_attn.k_norm.weight"),
        out=tensors[f"{prefix}self_attn.o_proj.weight"],
        norm_mid=tensors[f"{prefix}post_attention_layernorm.weight"],
        gate_up=tensors.fused(f"{prefix}mlp.gate_proj.weight", f"{prefix}mlp.up_proj.weight"),
        down=tensors[f"{prefix}mlp.down_proj.weight"],
    )


def _inv_freq(rotary: dict[str, Any], dim: int) -> Tensor:
    plain = 1.0 / torch.pow(float(rotary["rope_theta"]), torch.arange(0, dim, 2).float() / dim)
    return _llama3(plain, rotary) if rotary["rope_type"] == "llama3" else plain


def _llama3(plain: Tensor, rotary: dict[str, Any]) -> Tensor:
    """Llama 3.1's stretching: long waves by `factor`, short ones not at all, a smooth change between."""
    factor, low, high = float(rotary["factor"]), float(rotary["low_freq_factor"]), float(rotary["high_freq_factor"])
    turns: Tensor = plain * (rotary["original_max_position_embeddings"] / (2 * math.pi))  # of each wave within the original window
    share = ((turns - low) / (high - low)).clamp(0, 1)
    return share * plain + (1 - share) * plain / factor
