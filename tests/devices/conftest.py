"""What the device tests share: a bench that drives a `Driver` without a process, and prompts."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoConfig, AutoModelForCausalLM

from kernos.kernel.devices.compiler import build, cache_folder, compiler
from kernos.kernel.devices.convert import describe
from kernos.kernel.devices.driver import Newcomer, nobody
from kernos.kernel.devices.messages import Begin, Failed, Load, Loaded, Sampling, Stepped
from kernos.kernel.devices.modelstore import MANIFEST
from kernos.kernel.devices.pace import Pace
from kernos.kernel.devices.torch_driver import TorchDriver

SUBJECTS = [
    "France",
    "prime numbers",
    "a rainy day",
    "the number 1234567890",
    "bread",
    "TCP/IP",
    "an old cat",
    "tax law",
    "the Moon",
    "jazz",
]
QUESTIONS = ["What do you know about {}?", "Write three short lines about {}, and then say, in one word, how they make you feel."]


torch.set_num_threads(1)  # two threads wait for each other at every operation, which on a busy machine takes ten times as long


@dataclass
class Bench:
    """Runs sequences of one model to their end and keeps what came out."""

    driver: TorchDriver
    model: str
    tokens: dict[int, list[int]] = field(default_factory=dict)
    finish: dict[int, str] = field(default_factory=dict)
    failed: dict[int | None, str] = field(default_factory=dict)
    next_seq: int = 0

    def begin(self, prompt: list[int], max_tokens: int, **options: Any) -> int:
        self.next_seq += 1
        settings: dict[str, Any] = {"lease": max_tokens, "sampling": Sampling(ignore_eos=True)} | options
        failure = self.driver.begin(Begin(self.next_seq, self.model, prompt, max_tokens, **settings))
        self.tokens[self.next_seq] = []
        if failure is not None:
            self.failed[self.next_seq] = failure.reason
        return self.next_seq

    def step(self, newcomer: Newcomer = nobody) -> Stepped:
        stepped, *failures = self.driver.step(newcomer)
        assert isinstance(stepped, Stepped)
        for output in stepped.outputs:
            self.tokens[output.seq] += output.tokens
            self.finish[output.seq] = output.finish
        for failure in failures:
            assert isinstance(failure, Failed)
            self.failed[failure.seq] = failure.reason
        return stepped

    def drain(self) -> None:
        while self.driver.busy:
            self.step()

    def run(self, prompt: list[int], max_tokens: int, **options: Any) -> list[int]:
        seq = self.begin(prompt, max_tokens, **options)
        self.drain()
        return self.tokens[seq]


class SteadyPace(Pace):
    """Steps take as much of prompts as before anything is known of the device, so that tests can count on it."""

    def learn(self, rows: int, tokens: int, seconds: float) -> None:
        pass


def make_bench(path: Path, dtype: Any = "float32", compiled: Path | None = None, **pools: Any) -> Bench:
    driver = TorchDriver(torch.device("cpu"), compiled)
    loaded = driver.load(Load("it", str(path), "decoder", dtype, slots=8, **pools))
    assert isinstance(loaded, Loaded), loaded
    driver._engines["it"]._pace = SteadyPace()
    return Bench(driver, "it")


@pytest.fixture(scope="session")
def smollm(models: Path) -> Path:
    return models / "smollm2-135m"


@pytest.fixture(scope="session")
def tokenizer(smollm: Path) -> Tokenizer:
    return Tokenizer.from_file(str(smollm / "tokenizer.json"))


@pytest.fixture(scope="session")
def prompts(tokenizer: Tokenizer) -> list[list[int]]:
    """Twenty prompts of different lengths; one of them longer than a prefill chunk."""
    texts = [question.format(subject) for question in QUESTIONS for subject in SUBJECTS]
    texts[7] = " ".join(f"Article {number}: nobody pays more than {number * 17} coins." for number in range(18)) + texts[7]
    return [tokenizer.encode(f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n").ids for text in texts]


@pytest.fixture(scope="session")
def compiled(models: Path) -> Path:
    """The library of compiled passes, in the cache of the model store, where it is built when the tests first run."""
    if compiler() is None:
        pytest.skip("there is no C++ compiler")
    return build(cache_folder(models))


@pytest.fixture(scope="session", params=["compiled", "eager"])
def loaded_bench(request: pytest.FixtureRequest, smollm: Path) -> Bench:
    bench = make_bench(smollm, compiled=request.getfixturevalue("compiled").parent if request.param == "compiled" else None)
    assert bench.driver._engines["it"]._model.mode == request.param
    return bench


@pytest.fixture
def bench(loaded_bench: Bench) -> Iterator[Bench]:
    """SmolLM2 in fp32. Every test leaves it without sequences."""
    yield loaded_bench
    assert not loaded_bench.driver.busy
    engine = loaded_bench.driver._engines["it"]
    for seq in list(engine._sequences):
        engine.stop(seq)


@pytest.fixture(scope="session")
def new_bench() -> Callable[[Path], Bench]:
    return make_bench


SMALL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 128,
    "max_position_embeddings": 512,
}


@pytest.fixture(scope="session")
def small_model() -> Callable[..., Any]:
    """Make a model folder with random weights of any shape; gives transformers' model of it."""

    def make(folder: Path, kind: str, **changes: Any) -> Any:
        torch.manual_seed(1)
        config = AutoConfig.for_model(kind, **SMALL | changes)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)  # as made, norms are ones and biases zeros
        model.save_pretrained(folder)
        (folder / "tokenizer.json").write_text(Tokenizer(WordLevel({str(n): n for n in range(128)}, "0")).to_str())
        (folder / MANIFEST).write_bytes(msgspec.json.encode(describe(folder, "it", "made for a test")))
        return model

    return make


@pytest.fixture(scope="session")
def greedy(loaded_bench: Bench, prompts: list[list[int]]) -> list[list[int]]:
    """64 greedy tokens for each prompt, computed in one mixed batch of eight with staggered arrivals."""
    waiting = list(prompts)
    seqs: list[int] = []
    while waiting or loaded_bench.driver.busy:
        running = [seq for seq in seqs if not loaded_bench.finish.get(seq)]
        if waiting and len(running) < 8:
            seqs.append(loaded_bench.begin(waiting.pop(0), 64))
        loaded_bench.step()
    return [loaded_bench.tokens[seq] for seq in seqs]
