"""What long memories cost: appending, forking, faulting pages in, and keeping ten thousand contexts warm.

`append_ratio` is the p99 of appending one message to a context of 1,000,000 tokens over that at 10,000, the two taking turns on a real
kernel. `fork_ms` is the p99 of forking one of 100,000 tokens that have left the window, 100 times; `fork_rows` are the messages that were
copied by it, and `fork_bytes_ratio` is what these forks add to the database over what the context takes in it with pages and vectors.

`pagein_p99_ms` is what a fault costs beside the embedding of the question, in a context of 10,000 pages with three vectors each: two
queries, the ranking by meaning and words, and the text of the pages that fit 1,024 tokens: the median of the p99 of three rounds of 1,000,
as the pace of a shared machine differs by half within minutes. `pagein_cold_ms` is the first one, which reads all vectors.

`warm_ratio` is the memory that a process of its own grows by when it holds 10,000 contexts of 100 pages with one vector each, over the
bytes of their vectors in half precision, as they are stored; they are searched with a byte a number. `budget_ratio` is the most it grows
by while as many contexts are used within `recall_mb` as an administrator sets it, over that budget; contexts come from real rows, of
which there are 64.
"""

import gc
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Final

import numpy as np

from kernos.kernel.config import Config
from kernos.kernel.memory import recall
from kernos.kernel.memory.connection import connect
from kernos.kernel.memory.database import NAME, storage_key
from kernos.kernel.memory.recall import Memory, shelf_of
from kernos.kernel.memory.shelves import Shelves
from kernos.syscalls import Kernel
from kernos.syscalls.context import AppendContext, ForkContext
from kernos.syscalls.model import Message
from kernos.syscalls.system import BackUp

from . import report
from .histories import DIM, MODEL, OWNER, SENTENCES, TOKENS, context_of, paged_database, passages, sentence
from .kernel import RunningKernel, booted
from .report import Target, median, percentile

TARGETS: Final = {
    "append_ratio": Target(1.5),
    "fork_ms": Target(20.0),
    "fork_rows": Target(0.0),
    "fork_bytes_ratio": Target(0.01),
    "pagein_p99_ms": Target(10.0),
    "warm_ratio": Target(1.15),
    "budget_ratio": Target(1.0),
}

SHORT, LONG, FORKED = 10_000, 1_000_000, 100_000
"""Tokens of histories."""
FORKS: Final = 100
PAGES: Final = 10_000
PAGES_EACH: Final = 100
REAL: Final = 64
"""Contexts whose rows are there; under other numbers they stand for all."""
RECALL_TOKENS: Final = 1_024
ROUNDS: Final = 3


def main() -> None:
    """Measure and publish."""
    given = report.options(__doc__, ["append", "fork", "pagein", "warm"])
    figures: dict[str, float] = {}
    if "append" in given.parts:
        figures |= measure_append(400 if given.quick else 2_000)
    if "fork" in given.parts:
        figures |= measure_fork()
    if "pagein" in given.parts:
        figures |= measure_pagein(200 if given.quick else 1_000)
    if "warm" in given.parts:
        figures |= measure_warm(2_000 if given.quick else 10_000)
    report.publish("memory", given, figures, {name: target for name, target in TARGETS.items() if name in figures})


# --- on a kernel -------------------------------------------------------------------------------------------------------------------


def measure_append(times: int) -> dict[str, float]:
    """Seconds of appending one message, by the length of the history."""
    with booted() as kernel, kernel.connect() as connection:
        kernel.load_models()
        agent = connection.spawn("appender")
        contexts = {tokens: context_of(agent, f"of-{tokens}", tokens).context for tokens in (SHORT, LONG)}
        seconds: dict[int, list[float]] = {tokens: [] for tokens in contexts}
        texts = passages(LONG)
        for _ in range(times):
            for tokens, context in contexts.items():
                call = AppendContext(context=context, messages=[Message("user", next(texts))])
                seconds[tokens].append(_timed(partial(agent.call, call)))
    p99 = {tokens: percentile(found, 99) for tokens, found in seconds.items()}
    return {
        "append_ratio": p99[LONG] / p99[SHORT],
        "append_p99_ms": 1_000 * p99[LONG],
        "append_p50_ratio": median(seconds[LONG]) / median(seconds[SHORT]),
    }


def measure_fork() -> dict[str, float]:
    """Time and room that forks take."""
    with tempfile.TemporaryDirectory(prefix="kernos-") as home:
        paged_database(Path(home) / "empty", 0, 0)[0].close()
        empty = (Path(home) / "empty" / NAME).stat().st_size
        database, (context,), _ = paged_database(Path(home) / "state", 1, FORKED // TOKENS + 1)
        database.close()
        with booted(home=home) as kernel, kernel.connect() as connection:
            kernel.load_models()
            agent = connection.spawn("forker", user=OWNER)
            alone, messages = stored(kernel, connection)
            calls = [ForkContext(context=context, name=f"fork-{number}") for number in range(FORKS)]
            seconds = [_timed(partial(agent.call, call)) for call in calls]
            together, after = stored(kernel, connection)
    return {
        "fork_ms": 1_000 * percentile(seconds, 99),
        "fork_rows": after - messages,
        "fork_bytes_ratio": (together - alone) / (alone - empty),
    }


def stored(kernel: RunningKernel, connection: Kernel) -> tuple[int, int]:
    """Bytes of the kernel's database, and the messages in it: those of a backup, which is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "backup"
        size = connection.call(BackUp(path=str(path)), timeout=60).size
        copy = connect(path, storage_key(kernel.where.state), "ro")
        (messages,) = copy.execute("SELECT count(*) FROM messages").fetchone()
        copy.close()
    return size, messages


# --- in the kernel's own modules -----------------------------------------------------------------------------------------------------


def measure_pagein(times: int) -> dict[str, float]:
    """Seconds of a fault beside the embedding."""
    with tempfile.TemporaryDirectory() as folder:
        database, (id_,), vectors = paged_database(Path(folder), 1, PAGES, SENTENCES)
        reader, memory = database.reader(), Memory(MODEL, DIM, Config().recall_mb << 20)

        def fault(number: int) -> None:
            question = f"What happened when {sentence(7 * number)[:-1].lower()}?"
            reader.execute("BEGIN")
            memory.topic(reader, OWNER, id_, question)
            ranked = memory.rank(reader, OWNER, id_, question, vectors[number])
            assert list(recall.fitting(ranked, lambda page: len(page.text) // 4, RECALL_TOKENS, 64, 0.0))
            reader.execute("ROLLBACK")

        cold = _timed(partial(fault, 0))
        rounds = [[_timed(partial(fault, number)) for number in range(1, times)] for _ in range(ROUNDS)]
        reader.close()
        database.close()
    return {
        "pagein_p99_ms": 1_000 * median([percentile(warm, 99) for warm in rounds]),
        "pagein_p50_ms": 1_000 * median([median(warm) for warm in rounds]),
        "pagein_cold_ms": 1_000 * cold,
    }


def measure_warm(contexts: int) -> dict[str, float]:
    """Memory of contexts that are held, without a limit and within the budget."""
    raw, budget = contexts * PAGES_EACH * DIM * 2, (Config().recall_mb << 20) * contexts // 10_000
    with tempfile.TemporaryDirectory() as folder:
        paged_database(Path(folder), REAL, PAGES_EACH)[0].close()
        return {
            "warm_ratio": _grown(folder, contexts, 1 << 40) / raw,
            "warm_mb": raw / (1 << 20),
            "budget_ratio": _grown(folder, contexts, budget) / budget,
        }


def grown(folder: Path, contexts: int, budget: int) -> int:
    """The most bytes that this process grows by while it uses contexts one after another, and again in another order."""
    connection = connect(folder / NAME, storage_key(folder), "ro")

    def shelves(most: int) -> Shelves:
        return Shelves(lambda branch: shelf_of(connection, branch % REAL + 1, MODEL, DIM), most)

    for branch in range(REAL):  # so that libraries, caches and the allocator have what they take once
        shelves(1).get(branch)
    held, most = shelves(budget), 0
    gc.collect()
    before = _resident()
    for branch in _twice(contexts):
        held.get(branch)
        most = max(most, _resident() - before)
    return most


def _twice(contexts: int) -> Iterator[int]:
    yield from range(contexts)
    yield from np.random.default_rng(0).permutation(contexts)[: contexts // 4].tolist()


def _resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * 4_096


def _grown(folder: str, contexts: int, budget: int) -> int:
    """The same in a new process, which has only what it needs."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(grown, Path(folder), contexts, budget).result()


def _timed(act: Callable[[], object]) -> float:
    began = perf_counter()
    act()
    return perf_counter() - began


if __name__ == "__main__":
    main()
