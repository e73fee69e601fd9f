"""A chat of one customer on the terminal."""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator

from rich.console import Console

from .service import Desk


async def chat(desk: Desk, name: str) -> None:
    """Answer what the customer types until the end of the input."""
    console = Console(highlight=False, markup=False)
    async with desk.customer(name) as customer:
        console.print(f"{await customer.greet()} (Ctrl-D ends)", style="dim", soft_wrap=True)
        async for question in _typed_lines(console, f"{name}> "):
            async for piece in customer.ask(question):
                console.print(piece, end="", style="cyan", soft_wrap=True)
                sys.stdout.flush()
            console.print()


async def _typed_lines(console: Console, prompt: str) -> AsyncIterator[str]:
    lines: asyncio.Queue[str | None] = asyncio.Queue()
    # A thread, because reading blocks; one that does not hold up the end of the program, so no executor.
    threading.Thread(target=_read, args=(asyncio.get_running_loop(), lines), daemon=True).start()
    while True:
        console.print(prompt, end="", style="bold")
        line = await lines.get()
        if line is None:
            return
        if line.strip():
            yield line.strip()


def _read(loop: asyncio.AbstractEventLoop, lines: "asyncio.Queue[str | None]") -> None:
    with os.fdopen(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as raw:  # unbuffered: no lock is held at the program's end
        while line := raw.readline():
            loop.call_soon_threadsafe(lines.put_nowait, line.decode(errors="replace"))
    loop.call_soon_threadsafe(lines.put_nowait, None)
