"""What to do when the kernel is busy: wait as long as it says, and try again a bounded number of times.

Only `BusyError` is tried again, because it alone says that nothing was done.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from kernos.syscalls.errors import BusyError

R = TypeVar("R")

TRIES: Final = 8
"""How often a call is made before its `BusyError` is believed."""

FIRST_PAUSE_S: Final = 0.1
"""Pause before the second try where the kernel names none; it doubles with each further try."""


async def patiently(call: Callable[[], Awaitable[R]]) -> R:
    """Make a call; while the kernel is busy, make it again."""
    tried = 0
    while True:
        try:
            return await call()
        except BusyError as error:
            tried += 1
            await pause(error, tried)


async def pause(error: BusyError, tried: int) -> None:
    """Wait before the next try, or raise the error if there were enough."""
    if tried >= TRIES:
        raise error
    await asyncio.sleep(FIRST_PAUSE_S * 2 ** (tried - 1) if error.retry_after is None else error.retry_after)
