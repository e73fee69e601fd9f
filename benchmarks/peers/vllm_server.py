"""vLLM: `python -m benchmarks.peers.vllm_server FOLDER DTYPE SLOTS`. It serves by priority, many at once, with its own compiled steps.

Threads and memory are set by the environment that the benchmark starts it with.
"""

import asyncio
import json
import sys
from typing import Any, Final

import vllm  # pyright: ignore[reportMissingImports]
from vllm.sampling_params import RequestOutputKind  # pyright: ignore[reportMissingImports]
from vllm.v1.engine.async_llm import AsyncLLM  # pyright: ignore[reportMissingImports]

from .protocol import Tell, claim_output

_WINDOW: Final = 1_024


async def serve(folder: str, dtype: str, slots: int, tell: Tell) -> None:
    """Load, then answer all that is asked, as it comes."""
    arguments = vllm.AsyncEngineArgs(
        model=folder, dtype=dtype, max_num_seqs=slots, max_model_len=_WINDOW, scheduling_policy="priority", disable_log_stats=True
    )
    engine = AsyncLLM.from_engine_args(arguments)
    tell({"version": str(vllm.__version__), "dtype": dtype})
    asked = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(asked), sys.stdin)
    async with asyncio.TaskGroup() as answers:
        while line := await asked.readline():
            answers.create_task(_answer(engine, json.loads(line), tell))
    engine.shutdown()


async def _answer(engine: Any, request: dict[str, Any], tell: Tell) -> None:
    """Write the tokens as they come, where they are wanted so, or all at the end."""
    stream, id_ = request.get("stream", False), request["id"]
    sampling = vllm.SamplingParams(
        temperature=0.0,
        max_tokens=request["new"],
        ignore_eos=True,
        output_kind=RequestOutputKind.DELTA if stream else RequestOutputKind.FINAL_ONLY,
    )
    priority = 0 if request.get("urgent") else 1
    prompt = {"prompt_token_ids": request["prompt"]}
    async for output in engine.generate(prompt, sampling, str(id_), priority=priority):
        line = {"id": id_, "tokens": list(output.outputs[0].token_ids)}
        tell(line if output.finished else line | {"more": True})


def main(folder: str, dtype: str, slots: str) -> None:
    """Serve until there is nobody to ask."""
    asyncio.run(serve(folder, dtype, int(slots), claim_output()))


if __name__ == "__main__":
    main(*sys.argv[1:])
