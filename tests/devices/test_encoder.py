"""Embeddings are those of sentence-transformers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer

from kernos.kernel.devices.messages import Embed, Embedded, Failed, Load, Loaded, LoadFailed, Unload
from kernos.kernel.devices.torch_driver import TorchDriver

TEXTS = ["The invoice is overdue.", "", "A bill that was not paid in time", "Wolves hunt in packs. " * 200] + [
    f"Sentence {number} about {'very ' * number} little" for number in range(40)
]


@pytest.fixture(scope="module")
def driver(models: Path) -> TorchDriver:
    driver = TorchDriver(torch.device("cpu"))
    loaded = driver.load(Load("minilm", str(models / "minilm"), "encoder", "float32", slots=0))
    assert isinstance(loaded, Loaded)
    assert (loaded.window, loaded.dim) == (256, 384)
    return driver


def test_vectors_equal_those_of_sentence_transformers(driver: TorchDriver, models: Path) -> None:
    tokenizer = Tokenizer.from_file(str(models / "minilm" / "tokenizer.json"))
    reply = driver.embed(Embed(5, "minilm", [tokenizer.encode(text).ids for text in TEXTS]))
    assert isinstance(reply, Embedded)
    vectors = np.frombuffer(reply.data, "<f4").reshape(len(TEXTS), reply.dim)
    reference = SentenceTransformer(str(models / "minilm"), device="cpu", local_files_only=True)
    expected = reference.encode(TEXTS, normalize_embeddings=True, show_progress_bar=False)
    np.testing.assert_allclose(vectors, expected, atol=2e-5)
    assert reply.batch == 5


def test_bad_batches_fail_alone(driver: TorchDriver) -> None:
    assert driver.embed(Embed(1, "minilm", [[101, 102], []])) == Failed("input 1 has no tokens", batch=1)
    assert driver.embed(Embed(2, "other", [[1]])) == Failed("no encoder 'other' is loaded", batch=2)
    assert driver.embed(Embed(3, "minilm", [[10**6]])) == Failed("input 0 has token ids outside 0 to 30521", batch=3)
    nothing = driver.embed(Embed(4, "minilm", []))
    assert isinstance(nothing, Embedded)
    assert (nothing.batch, nothing.dim, nothing.data) == (4, 384, b"")


def test_loading_says_what_is_wrong(driver: TorchDriver, models: Path, tmp_path: Path) -> None:
    for command, why in (
        (Load("minilm", str(models / "minilm"), "encoder", "float32", 0), "already loaded"),
        (Load("x", str(models / "minilm"), "decoder", "float32", 1), "no decoder but an encoder"),
        (Load("x", str(tmp_path), "encoder", "float32", 0), "not installed by a pull"),
    ):
        reply = driver.load(command)
        assert isinstance(reply, LoadFailed)
        assert why in reply.reason


def test_an_unloaded_model_is_gone(driver: TorchDriver, models: Path) -> None:
    driver.unload(Unload("minilm"))
    assert isinstance(driver.embed(Embed(1, "minilm", [[101, 102]])), Failed)
    assert isinstance(driver.load(Load("minilm", str(models / "minilm"), "encoder", "float32", slots=0)), Loaded)
