"""What guesses are worth: how long answers take without them and with them, one at a time on one device, in turn.

`guess_grounded` is for questions whose answers rest on the text they come with, `guess_free` for others (without over with);
`guess_exact` is the share of answers that are the same, token by token.
"""

from dataclasses import dataclass
from time import perf_counter
from typing import Final
from unittest.mock import patch

import torch

from kernos.kernel.devices import engine
from kernos.kernel.devices.compiler import cache_folder
from kernos.kernel.devices.messages import Begin, Load, Loaded, Sampling, Stepped
from kernos.kernel.devices.torch_driver import TorchDriver

from .kernel import booted, models_folder
from .peers.process import folder_of
from .questions import Questions
from .report import median

GROUNDED: Final = (
    "Write these notes once more, word for word.",
    "Correct the spelling of these notes and give the whole text.",
    "Copy the second half of the notes.",
    "List all the places in the order in which they are named.",
)
FREE: Final = (
    "Tell me a story about a boat.",
    "What is the capital of France, and what is it known for?",
    "Explain in simple words why the sky is blue.",
    "Write a short letter to the owner of the mill.",
)
PROMPT, NEW, ROUNDS = 200, 64, 3
THREADS: Final = 2


@dataclass(frozen=True)
class _Answer:
    tokens: list[int]
    seconds: float


def measure(quick: bool) -> dict[str, float | None]:
    """All questions with and without guesses, in rounds."""
    with booted() as kernel:
        name = kernel.load_decoder().name
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        return _compared(_loaded(name), Questions(name), 1 if quick else ROUNDS)
    finally:
        torch.set_num_threads(threads)


def _loaded(name: str) -> TorchDriver:
    driver = TorchDriver(torch.device("cpu"), cache_folder(models_folder()))
    loaded = driver.load(Load(name, str(folder_of(name)), "decoder", "auto", slots=1))
    assert isinstance(loaded, Loaded), loaded
    return driver


def _compared(driver: TorchDriver, maker: Questions, rounds: int) -> dict[str, float | None]:
    figures: dict[str, float | None] = {}
    same: list[bool] = []
    for kind, asked in (("grounded", GROUNDED), ("free", FREE)):
        ratios = []
        for number in range(rounds):
            prompts = [maker.ask(f"{number} {place}", PROMPT, question).ids for place, question in enumerate(asked)]
            guessed = [_answer(driver, maker.model, prompt) for prompt in prompts]
            with patch.object(engine, "GUESSING", 1):
                plain = [_answer(driver, maker.model, prompt) for prompt in prompts]
            same += [one.tokens == other.tokens for one, other in zip(guessed, plain, strict=True)]
            ratios.append(sum(answer.seconds for answer in plain) / sum(answer.seconds for answer in guessed))
        figures[f"guess_{kind}"] = median(ratios)
    return figures | {"guess_exact": sum(same) / len(same)}


def _answer(driver: TorchDriver, model: str, prompt: list[int]) -> _Answer:
    """One answer; the clock starts at its first token."""
    assert driver.begin(Begin(1, model, prompt, NEW, NEW, Sampling(ignore_eos=True))) is None
    tokens: list[int] = []
    began = 0.0
    while driver.busy:
        for report in driver.step():
            assert isinstance(report, Stepped), report
            for output in report.outputs:
                began = began if tokens else perf_counter()
                tokens += output.tokens
    return _Answer(tokens, perf_counter() - began)
