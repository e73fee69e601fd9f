"""Any other causal language model, by transformers: slower than `llama` (one pass per sequence), for models of every shape.

Code that comes with a model is never run (no trust_remote_code).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache

from .driver import Work


class Generic:
    """A `LanguageModel`."""

    def __init__(self, folder: Path, dtype: torch.dtype, device: torch.device) -> None:
        loaded: Any = AutoModelForCausalLM.from_pretrained(str(folder), dtype=dtype, local_files_only=True)
        self._model = loaded.eval().to(device)
        self._caches: dict[int, Any] = {}

    @property
    def size(self) -> int:
        """Bytes of weights in memory."""
        return int(self._model.get_memory_footprint())

    @property
    def mode(self) -> str:
        """See `LanguageModel`."""
        return "transformers"

    @property
    def page_shape(self) -> tuple[int, ...]:
        """See `LanguageModel`. What a cache of any model consists of is transformers' affair: it does not come in pages."""
        return ()

    def row(self, seq: int) -> Tensor:
        """See `LanguageModel`."""
        raise NotImplementedError

    def adopt(self, seq: int, tokens: int) -> Tensor:
        """See `LanguageModel`."""
        raise NotImplementedError

    def cut(self, seq: int, tokens: int) -> None:
        """See `LanguageModel`."""
        raise NotImplementedError

    def open(self, seq: int, tokens: int) -> None:  # noqa: ARG002 - the caches of transformers grow as they are filled
        """See `LanguageModel`."""
        self._caches[seq] = DynamicCache(config=self._model.config)

    def close(self, seq: int) -> None:
        """See `LanguageModel`."""
        del self._caches[seq]

    @torch.inference_mode()
    def forward(self, work: list[Work], unwanted: Callable[[], bool] = lambda: False) -> list[Tensor | RuntimeError | None]:  # noqa: ARG002
        """See `LanguageModel`. A cache of transformers that was added to cannot go back, so a pass is made to its end."""
        return [self._append(piece) for piece in work]

    def _append(self, piece: Work) -> Tensor | RuntimeError | None:
        ids = torch.tensor([piece.tokens], device=self._model.device)
        try:
            out = self._model(input_ids=ids, past_key_values=self._caches[piece.seq], use_cache=True, logits_to_keep=max(1, piece.wanted))
        except RuntimeError as error:
            return error
        logits: Tensor = out.logits[0].float()
        return logits if piece.wanted else None
