"""llama.cpp by llama-cpp-python: `python -m benchmarks.peers.llama_server THREADS`. Its model is the GGUF file in its own environment."""

import sys
from itertools import islice
from pathlib import Path
from typing import Final

import llama_cpp  # pyright: ignore[reportMissingImports]

from .protocol import Line, claim_output, serve

_WINDOW: Final = 1_024


def main(threads: str) -> None:
    """Load and serve."""
    tell = claim_output()
    file = next(Path(sys.prefix).rglob("*.gguf"))
    model = llama_cpp.Llama(str(file), n_ctx=_WINDOW, n_threads=int(threads), n_threads_batch=int(threads), verbose=False)

    def generate(prompt: list[int], new: int) -> Line:
        model.reset()  # or it would keep the beginning that this prompt has in common with the last
        return {"tokens": list(islice(model.generate(prompt, temp=0.0), new))}

    serve(tell, {"version": str(llama_cpp.__version__), "dtype": file.stem}, {"generate": generate})


if __name__ == "__main__":
    main(*sys.argv[1:])
