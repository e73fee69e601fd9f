"""The driver of a torch device: every loaded model with its engine or encoder, and commands brought to the right one.

transformers and sentence-transformers are imported when a model first needs them: a server of Llama-shaped models never pays the
seconds and the memory, neither at start nor after a crash.
"""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from .arithmetic import fastest
from .background import Background
from .checkpoint import load_llama
from .driver import LanguageModel, Newcomer, RefusedError, nobody
from .engine import Engine
from .messages import (
    Begin,
    Copied,
    Copy,
    Dtype,
    Embed,
    Embedded,
    Extend,
    Failed,
    Load,
    Loaded,
    LoadFailed,
    Save,
    Saved,
    Stepped,
    Stop,
    Unload,
)
from .modelstore import Manifest, read_manifest
from .pages import PagePool
from .shape import supports

if TYPE_CHECKING:
    from .encoder import Encoder


class TorchDriver:
    """A `Driver` for "cpu" or "cuda:<n>"."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._engines: dict[str, Engine] = {}
        self._encoders: dict[str, Encoder] = {}
        self._background = Background()

    @property
    def busy(self) -> bool:
        """See `Driver`."""
        return any(engine.busy for engine in self._engines.values())

    def load(self, command: Load) -> Loaded | LoadFailed:
        """See `Driver`."""
        began = time.perf_counter()
        try:
            dtype = fastest(self._device) if command.dtype == "auto" else getattr(torch, command.dtype)
            manifest, size, page_bytes = self._load(command, dtype)
        except Exception as error:  # what a damaged file raises is anyone's guess
            return LoadFailed(command.model, f"{type(error).__name__}: {error}")
        took = time.perf_counter() - began
        return Loaded(command.model, command.kind, took, size, manifest.window, manifest.dim, _name(dtype), page_bytes)

    def unload(self, command: Unload) -> None:
        """See `Driver`."""
        engine = self._engines.pop(command.model, None)
        if engine is not None and engine.pool is not None:
            engine.pool.close()
        del engine  # the last reference to its memory
        self._encoders.pop(command.model, None)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()  # the memory ledger is the kernel's, and other processes want what it says is free

    def begin(self, command: Begin) -> Failed | None:
        """See `Driver`."""
        if self._engine_of(command.seq) is not None:
            return Failed(f"sequence {command.seq} is already running", seq=command.seq)
        try:
            self._engine(command.model).begin(command)
        except (RefusedError, RuntimeError) as error:  # the latter: no memory for another row
            return Failed(str(error), seq=command.seq)
        return None

    def extend(self, command: Extend) -> None:
        """See `Driver`."""
        if (engine := self._engine_of(command.seq)) is not None:
            engine.extend(command.seq, command.tokens)

    def stop(self, command: Stop) -> None:
        """See `Driver`."""
        if (engine := self._engine_of(command.seq)) is not None:
            engine.stop(command.seq)

    def save(self, command: Save) -> Saved | Failed:
        """See `Driver`."""
        try:
            return self._engine(command.model).save(command)
        except RefusedError as error:
            return Failed(str(error), save=command.seq)

    def copy(self, command: Copy) -> Copied | Failed | None:
        """See `Driver`."""
        try:
            return self._engine(command.model).copy(command)
        except RefusedError as error:
            return Failed(str(error), copy=command.id)

    def collect(self) -> list[Copied | Failed]:
        """See `Driver`."""
        return self._background.collect()

    def fileno(self) -> int:
        """See `Driver`."""
        return self._background.fileno()

    def embed(self, command: Embed) -> Embedded | Failed:
        """See `Driver`."""
        encoder = self._encoders.get(command.model)
        if encoder is None:
            return Failed(f"no encoder {command.model!r} is loaded", batch=command.batch)
        began = time.perf_counter()
        try:
            vectors = encoder.embed(command.inputs)
        except (RefusedError, RuntimeError) as error:
            return Failed(str(error), batch=command.batch)
        return Embedded(command.batch, encoder.dim, vectors.numpy().astype("<f4").tobytes(), time.perf_counter() - began)

    def step(self, newcomer: Newcomer = nobody) -> list[Stepped | Failed]:
        """See `Driver`. Models take turns within a step."""
        return [report for engine in self._engines.values() if engine.busy for report in engine.step(newcomer)]

    def _engine(self, model: str) -> Engine:
        if model not in self._engines:
            raise RefusedError(f"no decoder {model!r} is loaded")
        return self._engines[model]

    def _engine_of(self, seq: int) -> Engine | None:
        return next((engine for engine in self._engines.values() if seq in engine), None)

    def _load(self, command: Load, dtype: torch.dtype) -> tuple[Manifest, int, int]:
        """Load a model and give its manifest, its size and that of its pages."""
        folder = Path(command.path)
        manifest = read_manifest(folder)
        if command.model in self._engines or command.model in self._encoders:
            raise RefusedError(f"{command.model!r} is already loaded")
        if manifest.kind != command.kind:
            raise RefusedError(f"{command.model!r} is no {command.kind} but an {manifest.kind}")
        if command.kind == "encoder":
            from .encoder import Encoder

            encoder = self._encoders[command.model] = Encoder(folder, manifest, dtype, self._device)
            return manifest, encoder.size, 0
        model = _language_model(folder, dtype, self._device)
        pool = PagePool(model.page_shape, dtype, self._device, command, self._background) if model.page_shape else None
        self._engines[command.model] = Engine(model, manifest, folder, command.slots, pool)
        return manifest, model.size, pool.page_bytes if pool is not None else 0


def _name(dtype: torch.dtype) -> Dtype:
    return "bfloat16" if dtype is torch.bfloat16 else "float32"


def _language_model(folder: Path, dtype: torch.dtype, device: torch.device) -> LanguageModel:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if supports(config):
        return load_llama(folder, dtype, device)
    from .generic import Generic

    return Generic(folder, dtype, device)
