"""Other clients of the kernel, in processes of their own: a batch of streams that keeps the engine busy, and many callers at once."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from time import perf_counter

from kernos.syscalls import AsyncKernel, Kernel, Key, Places
from kernos.syscalls.model import Generate, Message
from kernos.syscalls.system import Ping

from .kernel import RunningKernel

STREAMS = 8
"""Sequences in the batch that the engine decodes."""

_TOKENS = 1_500
"""Of one answer; another is asked for when it ends."""


@contextmanager
def decoding(kernel: RunningKernel, model: str) -> Iterator[None]:
    """The engine decodes a batch for as long as the block lasts; begins when every stream has had its first token."""
    spawn = get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=_decode, args=(kernel.where, kernel.key, model, there), daemon=True)
    process.start()
    try:
        here.recv()
        yield
        if not process.is_alive():
            raise RuntimeError("The load ended before the measurement did; its figures would mean nothing.")
    finally:
        process.terminate()
        process.join()


def _decode(where: Places, key: Key, model: str, ready: Connection) -> None:
    asyncio.run(_decode_batch(where, key, model, ready))


async def _decode_batch(where: Places, key: Key, model: str, ready: Connection) -> None:
    async with AsyncKernel(key, where=where) as kernel, asyncio.TaskGroup() as group:
        flowing = [asyncio.Event() for _ in range(STREAMS)]
        for number, event in enumerate(flowing):
            group.create_task(_stream(await kernel.spawn(f"load-{number}"), model, event))
        await asyncio.gather(*(event.wait() for event in flowing))
        ready.send("flowing")


async def _stream(agent: AsyncKernel, model: str, flowing: asyncio.Event) -> None:
    prompt = Message("user", f"Tell a long story about agent {agent.pid}.")
    while True:
        async for _ in agent.stream(Generate(model=model, messages=[prompt], max_tokens=_TOKENS, ignore_eos=True)):
            flowing.set()


def throughput(kernel: RunningKernel, clients: int, seconds: float) -> float:
    """Null calls per second that so many processes make together."""
    spawn = get_context("spawn")
    here, there = spawn.Pipe()
    barrier = spawn.Barrier(clients)
    processes = [spawn.Process(target=_hurry, args=(kernel.where, kernel.key, barrier, seconds, there)) for _ in range(clients)]
    for process in processes:
        process.start()
    rates = [here.recv() for _ in processes]
    for process in processes:
        process.join()
    return float(sum(rates))


def _hurry(where: Places, key: Key, barrier: Barrier, seconds: float, result: Connection) -> None:
    with Kernel(key, where=where) as kernel:
        kernel.call(Ping())
        barrier.wait()
        started, calls = perf_counter(), 0
        while (spent := perf_counter() - started) < seconds:
            kernel.call(Ping())
            calls += 1
        # One small message of each process: below the size that a pipe writes in one piece.
        result.send(calls / spent)
