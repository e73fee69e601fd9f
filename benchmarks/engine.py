"""The engine beside its peers: vLLM, llama.cpp and transformers, with the same weights, questions and threads, through the kernel.

Parts: `--agreement` (`agreement.py`: whether it says what the model says), `--speed` (`throughput.py`: tokens per second in batches of 1, 8
and 32), `--guesses` (`guesses.py`: what they are worth) and `--arrivals` (`arrivals.py`: how soon an urgent question is served beside batch
work). Figures named after a peer are ours over
theirs, `hf_1` without compiled passes and `llama_1` with weights of 8 bits. `limit_share_1` is the share of the bandwidth limit at batch 1:
the tokens per second that memory would allow if all it did were to read the weights, as they are shipped, once for each, measured by adding
up an array that no cache holds. Figures of a peer that cannot take part are null, and `peers` says why: `make bench-peers` installs vLLM
and llama.cpp. `--quick` leaves those two out.
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Final

from kernos.kernel.devices.compiler import CompilerError, build, cache_folder
from kernos.syscalls import AsyncKernel
from kernos.syscalls.model import Model

from . import agreement, arrivals, guesses, latency, report, throughput
from .kernel import RunningKernel, booted, models_folder
from .paths import eager
from .peers.process import ENVIRONMENTS, PATIENT, Peer, PeerError, folder_of, peer
from .questions import Questions
from .report import Target, median
from .throughput import PREFILL_BATCH, Engine, OurEngine, PeerEngine, Speed, ratio

TARGETS: Final = {
    "exact": Target(1.0, at_least=True),
    "top1": Target(0.97, at_least=True),
    "guess_exact": Target(1.0, at_least=True),
    "vllm_1": Target(1.5, at_least=True),
    "vllm_8": Target(1.0, at_least=True),
    "vllm_32": Target(1.0, at_least=True),
    "vllm_prefill": Target(0.9, at_least=True),
    "vllm_ttft": Target(5.0, at_least=True),
    "llama_1": Target(0.9, at_least=True),
    "hf_1": Target(1.5, at_least=True),
}

THREADS: Final = 2
SETTINGS: Final = f"threads = {THREADS}\nnice = 0\n"
"""Of every kernel: as the peers run."""
SLOTS: Final = 32
Figures = dict[str, float | None]


def main() -> None:
    """Measure the parts asked for, and publish them together."""
    parts = {"agreement": measure_agreement, "speed": measure_speed, "guesses": measure_guesses, "arrivals": measure_arrivals}
    given = report.options(__doc__, list(parts))
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])  # of everybody that is started from here
    figures, peers = build_passes(given.quick)
    for part in given.parts:
        found, said = asyncio.run(parts[part](given.quick))
        figures |= found
        peers |= said
    report.publish("engine", given, figures, {name: target for name, target in TARGETS.items() if name in figures}, peers=peers)


def build_passes(quick: bool) -> tuple[Figures, dict[str, str]]:
    """Build what the engine runs compiled before anything is measured; in a full run once more, to see how long that takes."""
    try:
        build(cache_folder(models_folder()))
        if quick:
            return {}, {}
        with TemporaryDirectory() as folder:
            began = perf_counter()
            build(Path(folder))
            return {"build_s": perf_counter() - began}, {}
    except CompilerError as error:
        return {"build_s": None}, {"compiler": str(error)}


async def measure_agreement(quick: bool) -> tuple[Figures, dict[str, str]]:
    """Tokens beside those of transformers."""
    return await agreement.measure(quick), {}


async def measure_speed(quick: bool) -> tuple[Figures, dict[str, str]]:
    """Tokens per second, beside all peers that are here."""
    size = throughput.QUICK if quick else throughput.FULL
    settings = f"slots = {max(size.batches)}\n{SETTINGS}"
    async with AsyncExitStack() as stack:
        usual = stack.enter_context(booted(config=settings))
        model = usual.load_decoder()
        engines: dict[str, Engine] = {
            "kernos": await _engine(stack, usual, size.batches),
            "eager": await _engine(stack, stack.enter_context(eager(model.name, settings)), (1,)),
            "int8": await _engine(stack, stack.enter_context(booted(config=f'{settings}dtype = "int8"\n')), (1,)),
        }
        peers, said = await _started(stack, model, ("hf",) if quick else ("hf", "vllm", "llama"))
        engines |= {name: PeerEngine(found, size.batches if name == "vllm" else (1,)) for name, found in peers.items()}
        speeds, gone = await throughput.compare(engines, Questions(model.name), size)
        memory = await peers["hf"].ask("memory")
    figures = speed_figures(speeds)
    figures["bandwidth_gb_s"] = memory["bytes_per_s"] / 1e9
    figures["limit_share_1"] = median(speeds["kernos"].decode[1]) * memory["weights"] / memory["bytes_per_s"]
    return figures, {"kernos": f"{model.dtype}, {model.mode}"} | said | gone


async def _engine(stack: AsyncExitStack, kernel: RunningKernel, batches: Sequence[int]) -> OurEngine:
    """The engine of a kernel, for as long as the stack stands."""
    model = kernel.load_decoder().name
    connection = await stack.enter_async_context(AsyncKernel(kernel.key, where=kernel.where))
    return OurEngine([await connection.spawn("row") for _ in range(max(batches))], model, batches)


async def measure_guesses(quick: bool) -> tuple[Figures, dict[str, str]]:
    """Answers with guesses and without."""
    return guesses.measure(quick), {}


async def measure_arrivals(quick: bool) -> tuple[Figures, dict[str, str]]:
    """Times to first token beside those of vLLM; nothing without it."""
    if quick:
        return {"vllm_ttft": None}, {}
    with booted(config=SETTINGS) as kernel:
        model = kernel.load_decoder()
    theirs = None
    async with AsyncExitStack() as stack:
        peers, said = await _started(stack, model, ("vllm",), latency.SLOTS)
        try:
            theirs = await arrivals.theirs(peers["vllm"], Questions(model.name)) if peers else None
        except* PeerError as errors:
            said["vllm"] = str(errors.exceptions[0])
    return arrivals.figures(await arrivals.ours(SETTINGS), theirs), said


def speed_figures(speeds: Mapping[str, Speed]) -> Figures:
    """Of the kernel, of the peers, and the ratios of both."""
    ours = speeds["kernos"]
    plain, int8, hf, vllm, llama = (speeds.get(name, Speed()) for name in ("eager", "int8", "hf", "vllm", "llama"))
    figures: Figures = {f"tok_s_{rows}": _middle(ours.decode, rows) for rows in throughput.FULL.batches}
    figures |= {"prefill_tok_s": _middle(ours.prefill, PREFILL_BATCH), "int8_tok_s_1": _middle(int8.decode, 1)}
    figures |= {f"vllm_{rows}": ratio(ours.decode, vllm.decode, rows) for rows in throughput.FULL.batches}
    figures |= {"vllm_prefill": ratio(ours.prefill, vllm.prefill, PREFILL_BATCH), "llama_1": ratio(int8.decode, llama.decode, 1)}
    figures |= {"hf_1": ratio(plain.decode, hf.decode, 1), "eager_tok_s_1": _middle(plain.decode, 1)}
    figures |= {f"vllm_tok_s_{rows}": _middle(vllm.decode, rows) for rows in throughput.FULL.batches}
    figures |= {"vllm_prefill_tok_s": _middle(vllm.prefill, PREFILL_BATCH)}
    return figures | {"llama_tok_s_1": _middle(llama.decode, 1), "hf_tok_s_1": _middle(hf.decode, 1)}


def _middle(rates: Mapping[int, list[float]], rows: int) -> float | None:
    return median(rates[rows]) if rows in rates else None


async def _started(stack: AsyncExitStack, model: Model, names: Sequence[str], slots: int = SLOTS) -> tuple[dict[str, Peer], dict[str, str]]:
    """The peers that start, in the arithmetic that the kernel runs the model in, and what is to be said of each."""
    folder = str(folder_of(model.name))
    starts = {
        "hf": lambda: peer("hf", folder, model.dtype, str(THREADS), **PATIENT),
        "vllm": lambda: peer("vllm", folder, model.dtype, str(slots), **_vllm_environment()),
        "llama": lambda: peer("llama", str(THREADS)),
    }
    found: dict[str, Peer] = {}
    said: dict[str, str] = {}
    for name in names:
        try:
            found[name] = await stack.enter_async_context(starts[name]())
            said[name] = f"{found[name].version}, {found[name].dtype}"
        except PeerError as error:
            said[name] = str(error)
    return found, said


def _vllm_environment() -> dict[str, str]:
    """As many threads as everybody has, pinned as it wants them; what it compiled is kept for the next start."""
    return {
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, sorted(os.sched_getaffinity(0)))),
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_CACHE_ROOT": str(ENVIRONMENTS / "vllm" / "cache"),
        "VLLM_NO_USAGE_STATS": "1",
    }


if __name__ == "__main__":
    main()
