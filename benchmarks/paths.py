"""Kernels that compute the same model in other ways than the usual one: by torch's operations one by one, and by transformers."""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from .kernel import RunningKernel, booted
from .peers.process import folder_of


@contextmanager
def eager(model: str, config: str) -> Iterator[RunningKernel]:
    """One that has no compiled passes and finds no compiler to build them."""
    with store(folder_of(model)) as models, ExitStack() as stack:
        path, os.environ["PATH"] = os.environ["PATH"], str(models)
        try:
            kernel = stack.enter_context(booted(config=config, models=models))
        finally:
            os.environ["PATH"] = path
        yield kernel


@contextmanager
def generic(model: str, config: str) -> Iterator[RunningKernel]:
    """One that does not know the shape of the model, as that calls `silu` by the other name that transformers has for it."""
    with store(folder_of(model), hidden_act="swish") as models, booted(config=config, models=models) as kernel:
        yield kernel


@contextmanager
def store(folder: Path, **changes: str) -> Iterator[Path]:
    """A model store with this model alone, some settings of it changed."""
    with TemporaryDirectory(prefix="kernos-") as models:
        copy = Path(models) / folder.name
        copy.mkdir()
        for file in folder.iterdir():
            (copy / file.name).symlink_to(file)
        described = json.loads((folder / "config.json").read_text("utf-8"))
        (copy / "config.json").unlink()
        (copy / "config.json").write_text(json.dumps(described | changes), encoding="utf-8")
        yield Path(models)
