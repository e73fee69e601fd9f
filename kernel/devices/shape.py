"""Which models are of the Llama shape, and the numbers that define one. Read from config.json without torch: the kernel plans with them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .messages import PAGE, Dtype

_FAMILY = frozenset({"llama", "mistral", "qwen2", "qwen3"})
_ITEM_BYTES: dict[Dtype, int] = {"bfloat16": 2, "float32": 4}


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers that define a model of this family."""

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    eps: float


def supports(config: dict[str, Any]) -> bool:
    """Whether a model of this config.json is exactly of the shape. In doubt no: the generic path runs everything."""
    attention = config.get("layer_types") or ["full_attention"]
    slides = config.get("sliding_window") is not None and config.get("use_sliding_window", True)
    return (
        config.get("model_type") in _FAMILY
        and config.get("hidden_act") == "silu"
        and rope(config)["rope_type"] in ("default", "llama3")
        and set(attention) == {"full_attention"}
        and not slides
        and not any(config.get(key) for key in ("attention_bias", "mlp_bias", "quantization_config"))
    )


def read_shape(config: dict[str, Any]) -> Shape:
    """The numbers of a supported model."""
    heads = config["num_attention_heads"]
    return Shape(
        layers=config["num_hidden_layers"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or config["hidden_size"] // heads,
        eps=config["rms_norm_eps"],
    )


def rope(config: dict[str, Any]) -> dict[str, Any]:
    """The rotary parameters; before transformers 5 they stood under `rope_scaling` and the type could be called `type`."""
    found = {"rope_theta": config.get("rope_theta", 10000.0)}
    found |= config.get("rope_parameters") or config.get("rope_scaling") or {}
    return {"rope_type": found.get("type", "default")} | found


def page_bytes(folder: Path, dtype: Dtype) -> int:
    """What `Loaded.page_bytes` of the model in `folder` will be; the kernel sizes the pools by it before it sends `Load`."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if not supports(config):
        return 0
    shape = read_shape(config)
    return 2 * shape.layers * shape.kv_heads * PAGE * shape.head_dim * _ITEM_BYTES[dtype]
