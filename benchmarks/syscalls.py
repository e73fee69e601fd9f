"""The price of a system call: against a bare ZeroMQ echo, against FastAPI, under load, and with many clients.

The null call passes everything that any call passes: CURVE, identity, policy, accounting. The ways are measured in turn in many short
rounds, and a ratio is the median of the rounds' own ratios: a noisy neighbour hits all the ways of a round alike.

Where the threads of a call are placed makes more of a difference than anything in it: waking an idle core of a virtual machine takes
20 to 30 us, and a call over ZeroMQ wakes six threads, over HTTP two. So the figures come twice: as the scheduler places them, and, as
`one_core_…`, with both ends on one core, where only the work counts and runs can be compared.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import active_children
from pathlib import Path
from time import perf_counter_ns

from kernos.syscalls import Kernel
from kernos.syscalls.system import Ping

from . import report
from .baselines import Caller, fastapi, raw_zmq
from .clients import decoding, throughput
from .kernel import RunningKernel, booted
from .report import Target, median, percentile

TARGETS = {
    "ratio_p50": Target(2.0),
    "one_core_ratio_p50": Target(2.0),
    "loaded_ratio": Target(10.0),
    "fastapi_ratio": Target(4.0, at_least=True),
    "one_core_fastapi_ratio": Target(4.0, at_least=True),
}


def main() -> None:
    """Measure everything and publish it."""
    given = report.options(__doc__)
    with booted() as kernel:
        model = kernel.load_models()
        figures = measure_idle(kernel, rounds=30 if given.quick else 200, calls=200)
        figures |= measure_loaded(kernel, model, rounds=4 if given.quick else 20, calls=1_000)
        figures["calls_per_s_16"] = throughput(kernel, clients=16, seconds=2.0 if given.quick else 10.0)
    report.publish("syscalls", given, figures, TARGETS)


def measure_idle(kernel: RunningKernel, rounds: int, calls: int) -> dict[str, float]:
    """The null call beside its baselines, as placed by the scheduler and on one core."""
    with raw_zmq() as raw, fastapi() as http, kernel.connect() as handle:
        ways: dict[str, tuple[Caller, int]] = {"raw": (raw, calls), "kernos": (null(handle), calls), "http": (http, calls // 4)}
        figures = compare(ways, rounds)
        with one_core(os.getpid(), kernel.os_pid, *(child.pid for child in active_children() if child.pid)):
            figures |= {f"one_core_{name}": value for name, value in compare(ways, rounds).items()}
    return figures


def compare(ways: dict[str, tuple[Caller, int]], rounds: int) -> dict[str, float]:
    """Measure so many calls of each way, in turn."""
    for call, count in ways.values():
        times_us(call, count * 5)  # until caches, branch predictors and connections are warm
    found: dict[str, list[list[float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (call, count) in ways.items():
            found[name].append(times_us(call, count))
    p50 = {name: [percentile(times, 50) for times in found[name]] for name in ways}
    return {
        "raw_zmq_p50_us": median(p50["raw"]),
        "p50_us": median(p50["kernos"]),
        "p99_us": percentile([time for times in found["kernos"] for time in times], 99),
        "ratio_p50": ratio(p50["kernos"], p50["raw"]),
        "fastapi_p50_us": median(p50["http"]),
        "fastapi_ratio": ratio(p50["http"], p50["kernos"]),
    }


@contextmanager
def one_core(*os_pids: int) -> Iterator[None]:
    """Keep all threads of these processes on the last core for as long as the block lasts."""
    cores = os.sched_getaffinity(0)
    threads = [int(thread.name) for os_pid in os_pids for thread in Path(f"/proc/{os_pid}/task").iterdir()]
    try:
        for thread in threads:
            os.sched_setaffinity(thread, {max(cores)})
        yield
    finally:
        for thread in threads:
            os.sched_setaffinity(thread, cores)


def measure_loaded(kernel: RunningKernel, model: str, rounds: int, calls: int) -> dict[str, float]:
    """The null call while the engine decodes a batch, and without that just before and after."""
    with kernel.connect() as handle:
        call = null(handle)
        calm = [times_us(call, calls) for _ in range(rounds)]
        with decoding(kernel, model):
            loaded = [times_us(call, calls) for _ in range(rounds)]
        calm += [times_us(call, calls) for _ in range(rounds)]
    unloaded_p99, loaded_p99 = over_rounds(calm, 99) / 1_000, over_rounds(loaded, 99) / 1_000
    return {"unloaded_p99_ms": unloaded_p99, "loaded_p99_ms": loaded_p99, "loaded_ratio": loaded_p99 / unloaded_p99}


def null(handle: Kernel) -> Callable[[], object]:
    """The null call as an app makes it."""
    return lambda: handle.call(Ping())


def times_us(call: Caller, count: int) -> list[float]:
    """How long each of so many calls takes, in microseconds."""
    times = []
    for _ in range(count):
        started = perf_counter_ns()
        call()
        times.append((perf_counter_ns() - started) / 1_000)
    return times


def ratio(of: list[float], to: list[float]) -> float:
    """The median of the ratios within each round."""
    return median([one / other for one, other in zip(of, to, strict=True)])


def over_rounds(rounds: list[list[float]], percent: float) -> float:
    """The median over the rounds of a percentile within each."""
    return median([percentile(times, percent) for times in rounds])


if __name__ == "__main__":
    main()
