"""transformers: `python -m benchmarks.peers.hf_server FOLDER DTYPE THREADS`. Generates in DTYPE, and judges tokens in float32."""

import sys
from functools import cached_property
from time import perf_counter
from typing import Any, Final

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

from .protocol import Line, claim_output, serve

_STREAM_BYTES: Final = 512 << 20
"""Read to measure the bandwidth: larger than any cache."""
_READS: Final = 9


class Judge:
    """A model of transformers, in the arithmetic that was asked for and in float32."""

    def __init__(self, folder: str, dtype: str) -> None:
        self._folder, self._dtype = folder, dtype
        self._model = self._load(dtype)

    @torch.inference_mode()
    def generate(self, prompt: list[int], new: int) -> Line:
        """So many greedy tokens. The end is no token at all: `min_new_tokens` would forbid it even where it is the best."""
        ids = torch.tensor([prompt])
        out = self._model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, eos_token_id=-1, do_sample=False, pad_token_id=0
        )
        return {"tokens": out[0, len(prompt) :].tolist()}

    @torch.inference_mode()
    def judge(self, prompt: list[int], tokens: list[int]) -> Line:
        """What float32 would have chosen at the place of each token, after the same text, and by how much it liked that best."""
        logits = self._exact(input_ids=torch.tensor([prompt + tokens[:-1]])).logits[0, len(prompt) - 1 :]
        best = logits.topk(2)
        return {"best": best.indices[:, 0].tolist(), "gaps": (best.values[:, 0] - best.values[:, 1]).tolist()}

    def memory(self) -> Line:
        """Bytes per second that come from memory at best, and bytes of weights that a token needs: all as shipped, of embeddings a row."""
        used = {id(weight): weight.numel() for weight in self._model.parameters()}
        if self._model.get_output_embeddings().weight is not self._model.get_input_embeddings().weight:
            del used[id(self._model.get_input_embeddings().weight)]
        shipped: torch.dtype = vars(AutoConfig.from_pretrained(self._folder, local_files_only=True))["dtype"]
        return {"bytes_per_s": bandwidth(), "weights": sum(used.values()) * shipped.itemsize}

    @cached_property
    def _exact(self) -> Any:
        return self._model if self._dtype == "float32" else self._load("float32")

    def _load(self, dtype: str) -> Any:
        return AutoModelForCausalLM.from_pretrained(self._folder, dtype=getattr(torch, dtype), local_files_only=True).eval()


def bandwidth() -> float:
    """Bytes per second that come from memory, at the best of some readings."""
    numbers = torch.ones(_STREAM_BYTES // 4)
    seconds = []
    for _ in range(_READS):
        began = perf_counter()
        numbers.sum()
        seconds.append(perf_counter() - began)
    return _STREAM_BYTES / min(seconds)


def main(folder: str, dtype: str, threads: str) -> None:
    """Load and serve."""
    tell = claim_output()
    torch.set_num_threads(int(threads))
    judge = Judge(folder, dtype)
    facts = {"version": str(transformers.__version__), "dtype": dtype}
    serve(tell, facts, {"generate": judge.generate, "judge": judge.judge, "memory": judge.memory})


if __name__ == "__main__":
    main(*sys.argv[1:])
