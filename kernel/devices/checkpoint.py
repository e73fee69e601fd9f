"""Reading Llama-shaped models from a model folder: their weights, in the layout of `llama`."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from .llama import Layer, Llama, Weights
from .shape import read_shape, rope


def load_llama(folder: Path, dtype: torch.dtype, device: torch.device) -> Llama:
    """Read a supported model."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    shape = read_shape(config)
    tensors = _Tensors(folder, dtype, device)
    embedding = tensors["model.embed_tokens.weight"]
    weights = Weights(
        embedding=embedding,
        layers=[_layer(tensors, f"model.layers.{index}.") for index in range(shape.layers)],
        norm=tensors["model.norm.weight"],
        head=embedding if config.get("tie_word_embeddings") else tensors["lm_head.weight"],
        inv_freq=_inv_freq(rope(config), shape.head_dim).to(device),
    )
    return Llama(shape, weights)


class _Tensors:
    """The tensors of all weight files by name, brought to one type and device as they are asked for."""

    def __init__(self, folder: Path, dtype: torch.dtype, device: torch.device) -> None:
        files: list[Any] = [safe_open(path, framework="pt") for path in sorted(folder.glob("*.safetensors"))]
        self._files = {name: file for file in files for name in file.keys()}  # noqa: SIM118
        self._dtype, self._device = dtype, device

    def __getitem__(self, name: str) -> Tensor:
        tensor: Tensor = self._files[name].get_tensor(name)
        return tensor.to(self._device, self._dtype)

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
