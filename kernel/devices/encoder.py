"""Encoders, by sentence-transformers. The kernel tokenizes; what comes here are token ids, separators included."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from sentence_transformers import SentenceTransformer
from torch import Tensor

from .driver import RefusedError
from .modelstore import Manifest


class Encoder:
    """One loaded encoder."""

    def __init__(self, folder: Path, manifest: Manifest, dtype: torch.dtype, device: torch.device) -> None:
        loaded: Any = SentenceTransformer(str(folder), device=str(device), local_files_only=True, model_kwargs={"dtype": dtype})
        self._model = loaded.eval()
        self._window, self._vocab = manifest.window, manifest.vocab
        self._device = device
        self._pad = loaded.tokenizer.pad_token_id or 0  # any id will do under the attention mask
        self.dim = int(loaded.get_embedding_dimension())

    @property
    def size(self) -> int:
        """Bytes of weights in memory."""
        return sum(parameter.nbytes for parameter in self._model.parameters())

    @torch.inference_mode()
    def embed(self, inputs: list[list[int]]) -> Tensor:
        """Vectors of length one, float32 [len(inputs), dim] in main memory, by one pass: whoever asks sees to it that it is a short one."""
        for index, tokens in enumerate(inputs):
            self._check(index, tokens)
        return self._forward([self._cut(tokens) for tokens in inputs]).cpu() if inputs else torch.empty(0, self.dim)

    def _check(self, index: int, tokens: list[int]) -> None:
        """On a GPU an id outside the vocabulary would end the process, not the call."""
        if not tokens:
            raise RefusedError(f"input {index} has no tokens")
        if not 0 <= min(tokens) <= max(tokens) < self._vocab:
            raise RefusedError(f"input {index} has token ids outside 0 to {self._vocab - 1}")

    def _forward(self, inputs: list[list[int]]) -> Tensor:
        width = max(map(len, inputs))
        ids = torch.tensor([tokens + [self._pad] * (width - len(tokens)) for tokens in inputs])
        mask = torch.tensor([[1] * len(tokens) + [0] * (width - len(tokens)) for tokens in inputs])
        out = self._model({"input_ids": ids.to(self._device), "attention_mask": mask.to(self._device)})
        return F.normalize(out["sentence_embedding"].float(), dim=-1)

    def _cut(self, tokens: list[int]) -> list[int]:
        """Cut to the window, but keep the last token: the separator that the model was trained to see at the end."""
        return tokens if len(tokens) <= self._window else [*tokens[: self._window - 1], tokens[-1]]
