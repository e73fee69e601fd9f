"""Make a model faster here: `python -m kernos.kernel.devices.optimize NAME --models DIR`.

Builds the compiled passes into the cache of the model store, unless they are there, and measures every mode that the model can be computed
in. Progress goes to stdout as JSON lines, like that of `pull`; the last one has the figures of each mode, `Measured`. A failure is one
sentence on stderr and exit status 1. A kernel that runs takes the compiled passes up as soon as it has a moment.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import get_args

import msgspec
import torch

from .agreement import agreement, best
from .checkpoint import read
from .compiler import CompilerError, build, cache_folder
from .computation import Computation
from .driver import Work
from .eager import Eager
from .library import Library, Numbers, load_library
from .llama import Llama, load_compiled
from .modelstore import ModelStore, ModelStoreError
from .shape import supports

_BEGINNING, _TOKENS = 200, 12
"""Tokens before a measured answer, and of it: few, as others may want the processor."""


class Measured(msgspec.Struct, frozen=True):
    """What a mode is worth here."""

    mode: str
    top1: float
    """Share of the tokens of a text whose most likely successor is that of `eager`, in float32."""
    one: float
    """Tokens a second of one row."""
    eight: float
    """Tokens a second of eight rows together."""
    bytes: int


def optimize(folder: Path, library: Path, progress: Callable[[int, int], None]) -> list[Measured]:
    """Measure all modes of a model, one after another: memory holds one at a time. Raises CompilerError."""
    loaded = load_library(library)
    if loaded is None:
        raise CompilerError(f"{library} was built, and cannot be used here")
    exact, measured = None, []
    makes: list[Callable[[Path, Library], Computation | None]] = [_eager]
    makes += [partial(load_compiled, numbers=numbers) for numbers in get_args(Numbers)]
    for done, make in enumerate(makes):
        progress(done, len(makes))
        model = make(folder, loaded)
        if model is None:
            continue
        found = best(folder, model)
        exact = found if exact is None else exact
        measured.append(Measured(model.mode, agreement(exact, found), _speed(model, 1), _speed(model, 8), model.size))
    return measured


def _eager(folder: Path, _: Library) -> Eager:
    return Eager(*read(folder, torch.float32, torch.device("cpu")))


def _speed(computation: Computation, rows: int) -> float:
    """Tokens a second of so many rows, by the best of some steps: others use the machine too."""
    model = Llama(computation)
    for seq in range(rows):
        model.open(seq, _BEGINNING + _TOKENS)
        model.forward([Work(seq, [1] * _BEGINNING, wanted=0)])
    taken = []
    for _ in range(_TOKENS):
        began = time.perf_counter()
        model.forward([Work(seq, [1], wanted=1) for seq in range(rows)])
        taken.append(time.perf_counter() - began)
    return rows / min(taken)


def main() -> int:
    """Parse the command line, build, measure."""
    parser = argparse.ArgumentParser(prog="kernos.kernel.devices.optimize", description="Build compiled passes and measure them.")
    parser.add_argument("name", help="a model of the store")
    parser.add_argument("--models", type=Path, required=True, help="the folder of the model store")
    args = parser.parse_args()
    try:
        folder = _folder(args.models, args.name)
        _report("compile", 0, 0)
        library = build(cache_folder(args.models))
        measured = optimize(folder, library, lambda done, total: _report("measure", done, total))
    except (CompilerError, ModelStoreError, OSError) as error:
        print(f"{args.name} cannot be made faster: {error}", file=sys.stderr)
        return 1
    print(json.dumps({"phase": "done", "model": args.name, "modes": [msgspec.structs.asdict(mode) for mode in measured]}), flush=True)
    return 0


def _folder(models: Path, name: str) -> Path:
    folder = ModelStore(models).path(name)
    if not supports(json.loads((folder / "config.json").read_text(encoding="utf-8"))):
        raise CompilerError("it is not of the Llama shape, and runs as it is, through transformers")
    return folder


def _report(phase: str, done: int, total: int) -> None:
    print(json.dumps({"phase": phase, "done": done, "total": total}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
