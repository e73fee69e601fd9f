"""Turning what a source delivered into a folder of the model store. Runs once per model, in the pull process.

torch and transformers are imported only where something has to be converted: a folder that already is in the store's format is copied.
"""

import fnmatch
import hashlib
import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .messages import Kind
from .modelstore import Manifest
from .sources import KEPT, Progress, PullError

_SPLITS_DIGITS = frozenset({"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone"})
"""Values of `tokenizer.ggml.pre` that mean: single digits first, then byte-level. transformers ignores this key and gives every
byte-level tokenizer the plain rule, by which a number becomes tokens that the model has never seen in training."""

_DIGITS_THEN_BYTES = {
    "type": "Sequence",
    "pretokenizers": [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    ],
}


def convert(source: Path, into: Path, progress: Progress) -> None:
    """Fill the folder `into` from a model folder or a .gguf file."""
    if source.suffix == ".gguf":
        _convert_gguf(source, into, progress)
    else:
        _copy_folder(source, into)
    progress("tokenizer", 0, 1)
    if not (into / "tokenizer.json").is_file():
        _convert_tokenizer(source, into)
    _plain_tokenizer(into)
    _keep_chat_template(into)


def describe(folder: Path, name: str, source: str) -> Manifest:
    """The manifest of a converted folder."""
    config = _json(folder / "config.json")
    tokenizer = _special_tokens(folder)
    kind = _kind(folder, config)
    size, digest = _weights(folder)
    return Manifest(
        name=name,
        kind=kind,
        architecture=(config.get("architectures") or [config.get("model_type", "unknown")])[0],
        source=source,
        window=_window(folder, config),
        dim=_dim(folder, config),
        vocab=config["vocab_size"],
        eos=_eos(folder, config, tokenizer["eos_token"]) if kind == "decoder" else [],
        bos_token=tokenizer["bos_token"],
        eos_token=tokenizer["eos_token"],
        pad_token=tokenizer["pad_token"],
        bytes=size,
        sha256=digest,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _convert_gguf(file: Path, into: Path, progress: Progress) -> None:
    """Dequantise to bf16, the format every driver reads. Slow (20 s for 135M parameters), hence never done at start."""
    import torch
    from gguf import GGUFReader
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    progress("convert", 0, 3)
    where: dict[str, Any] = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True))
    progress("convert", 1, 3)
    model.save_pretrained(into)
    progress("convert", 2, 3)
    AutoTokenizer.from_pretrained(**where).save_pretrained(into)
    rule = GGUFReader(file).get_field("tokenizer.ggml.pre")
    if rule is not None and rule.contents() in _SPLITS_DIGITS:
        _edit(into / "tokenizer.json", pre_tokenizer=_DIGITS_THEN_BYTES)


def _copy_folder(source: Path, into: Path) -> None:
    """Copy what is worth keeping, links as what they point to (the hub's cache is all links)."""

    def dropped(folder: object, names: list[str]) -> list[str]:
        kept = {name for pattern in KEPT for name in fnmatch.filter(names, pattern)}
        return [name for name in names if name.startswith(".") or not (name in kept or Path(str(folder), name).is_dir())]

    shutil.copytree(source, into, ignore=dropped, dirs_exist_ok=True)


def _convert_tokenizer(source: Path, into: Path) -> None:
    """Make tokenizer.json (Rust, what the kernel reads) of an older format."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(source), local_files_only=True)
    if not tokenizer.is_fast:
        raise PullError("The model's tokenizer has no fast form (tokenizer.json), and the kernel reads no other.")
    tokenizer.save_pretrained(into)


def _plain_tokenizer(folder: Path) -> None:
    """Some tokenizers truncate and pad by themselves (MiniLM's to 128). Here lengths are the kernel's affair."""
    _edit(folder / "tokenizer.json", truncation=None, padding=None)


def _keep_chat_template(folder: Path) -> None:
    """One place for the chat template: older folders hold it in tokenizer_config.json."""
    template = _json(folder / "tokenizer_config.json").get("chat_template")
    if isinstance(template, list):
        template = next((entry["template"] for entry in template if entry["name"] == "default"), None)
    if isinstance(template, str) and not (folder / "chat_template.jinja").exists():
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


def _kind(folder: Path, config: dict[str, Any]) -> Kind:
    architecture = (config.get("architectures") or [""])[0]
    generates = architecture.endswith(("ForCausalLM", "LMHeadModel"))
    return "decoder" if generates and not (folder / "modules.json").exists() else "encoder"


def _window(folder: Path, config: dict[str, Any]) -> int:
    own = _json(folder / "sentence_bert_config.json").get("max_seq_length")
    window = own or config.get("max_position_embeddings") or config.get("n_positions")
    if not window:
        raise PullError("config.json does not say how long a sequence may be (max_position_embeddings).")
    return int(window)


def _dim(folder: Path, config: dict[str, Any]) -> int:
    """A dense layer at the end of a sentence-transformers pipeline decides; else the hidden size does."""
    dense = [_json(path).get("out_features") for path in sorted(folder.glob("[0-9]*_Dense/config.json"))]
    return int([config.get("hidden_size") or config["n_embd"], *dense][-1])


def _eos(folder: Path, config: dict[str, Any], eos_token: str | None) -> list[int]:
    """Every id that ends a turn: generation_config.json lists what the tokenizer's one `eos_token` leaves out, and the reverse."""
    from tokenizers import Tokenizer

    ids = _json(folder / "generation_config.json").get("eos_token_id", config.get("eos_token_id"))
    found: set[Any] = {ids} if isinstance(ids, int) else set(ids or [])
    if eos_token is not None:
        found.add(Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id(eos_token))
    return sorted(found - {None})


def _special_tokens(folder: Path) -> dict[str, str | None]:
    known = _json(folder / "special_tokens_map.json") | _json(folder / "tokenizer_config.json")
    tokens = {key: known.get(key) for key in ("bos_token", "eos_token", "pad_token")}
    return {key: token["content"] if isinstance(token, dict) else token for key, token in tokens.items()}


def _weights(folder: Path) -> tuple[int, str]:
    """Size and SHA-256 of all weight files together."""
    digest, size = hashlib.sha256(), 0
    for block in _blocks(sorted(folder.glob("*.safetensors"))):
        digest.update(block)
        size += len(block)
    if not size:
        raise PullError("There are no .safetensors weights; only those are accepted.")
    return size, digest.hexdigest()


def _blocks(files: list[Path]) -> Iterator[bytes]:
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                yield block


def _json(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return loaded


def _edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(_json(path) | changes, ensure_ascii=False), encoding="utf-8")
