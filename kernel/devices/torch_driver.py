"""The driver of a torch device: every loaded model with its engine or encoder, and commands brought to the right one.

transformers and sentence-transformers are imported when a model first needs them: a server of Llama-shaped models never pays the
seconds and the memory, neither at start nor after a crash.
"""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from .arithmetic import fastest
from .background import Background
from .driver import LanguageModel, Newcomer, RefusedError, nobody
from .eager import MODE as EAGER
from .engine import Engine
from .library import BITS, Library, Numbers
from .llama import Llama, load_compiled, load_llama
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
    Optimized,
    Save,
    Saved,
    Stepped,
    Stop,
    Unload,
)
from .modelstore import Manifest, read_manifest
from .pages import PagePool
from .shape import supports
from .tuning import Tuning

if TYPE_CHECKING:
    from .encoder import Encoder


class _Eager(NamedTuple):
    """A model that could be compiled."""

    model: Llama
    folder: Path
    numbers: Numbers


class TorchDriver:
    """A `Driver` for "cpu" or "cuda:<n>"."""

    def __init__(self, device: torch.device, compiled: Path | None = None) -> None:
        self._device = device
        self._tuning = Tuning(compiled if device.type == "cpu" else None)
        self._eager: dict[str, _Eager] = {}
        """Models that could be compiled."""
        self._engines: dict[str, Engine] = {}
        self._encoders: dict[str, Encoder] = {}
        self._background = Background()

    @property
    def busy(self) -> bool:
        """See `Driver`."""
        return any(engine.busy for engine in self._engines.values())

    @property
    def improvable(self) -> bool:
        """See `Driver`."""
        return bool(self._eager) and not self._tuning.hopeless

    def improve(self) -> list[Optimized]:
        """See `Driver`."""
        library = self._tuning.library()
        if library is None:
            self._tuning.build()
            return []
        idle = [name for name in self._eager if self._engines[name].empty]
        return [self._compile(name, library) for name in idle]

    def load(self, command: Load) -> Loaded | LoadFailed:
        """See `Driver`."""
        began = time.perf_counter()
        try:
            dtype = self._dtype(command)
            manifest, size, page_bytes, mode = self._load(command, dtype)
        except Exception as error:  # what a damaged file raises is anyone's guess
            return LoadFailed(command.model, f"{type(error).__name__}: {error}")
        took = time.perf_counter() - began
        return Loaded(command.model, command.kind, took, size, manifest.window, manifest.dim, _name(dtype), mode, page_bytes)

    def unload(self, command: Unload) -> None:
        """See `Driver`."""
        engine = self._engines.pop(command.model, None)
        self._eager.pop(command.model, None)
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

    def prepare(self) -> bool:
        """See `Driver`."""
        return any(engine.pool is not None and engine.pool.prepare() for engine in self._engines.values())

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

    def _load(self, command: Load, dtype: torch.dtype) -> tuple[Manifest, int, int, str]:
        """Load a model and give its manifest, its size, that of its pages, and its mode."""
        folder = Path(command.path)
        manifest = read_manifest(folder)
        if command.model in self._engines or command.model in self._encoders:
            raise RefusedError(f"{command.model!r} is already loaded")
        if manifest.kind != command.kind:
            raise RefusedError(f"{command.model!r} is no {command.kind} but an {manifest.kind}")
        if command.kind == "encoder":
            from .encoder import Encoder

            encoder = self._encoders[command.model] = Encoder(folder, manifest, dtype, self._device)
            return manifest, encoder.size, 0, "transformers"
        model = self._language_model(command, dtype)
        pool = PagePool(model.page_shape, dtype, self._device, command, self._background) if model.page_shape else None
        self._engines[command.model] = Engine(model, manifest, folder, command.slots, pool)
        return manifest, model.size, pool.page_bytes if pool is not None else 0, model.mode

    def _dtype(self, command: Load) -> torch.dtype:
        if command.dtype == "auto":
            return fastest(self._device, self._tuning.library())
        return torch.bfloat16 if command.dtype == "bfloat16" else torch.float32

    def _language_model(self, command: Load, dtype: torch.dtype) -> LanguageModel:
        folder = Path(command.path)
        if not supports(json.loads((folder / "config.json").read_text(encoding="utf-8"))):
            from .generic import Generic

            return Generic(folder, dtype, self._device)
        if self._device.type != "cpu":
            return load_llama(folder, dtype, self._device)
        numbers: Numbers = command.dtype if command.dtype in BITS else _name(dtype)
        model = load_llama(folder, dtype, self._device, self._tuning.library(), numbers)
        if model.mode == EAGER:
            self._eager[command.model] = _Eager(model, folder, numbers)
        return model

    def _compile(self, name: str, library: Library) -> Optimized:
        """Pre: no sequence of the model is open."""
        model, folder, numbers = self._eager.pop(name)
        compiled = load_compiled(folder, library, numbers)
        if compiled is not None:
            model.change(compiled)
        return Optimized(name, model.mode, model.size)


def _name(dtype: torch.dtype) -> Dtype:
    return "bfloat16" if dtype is torch.bfloat16 else "float32"
