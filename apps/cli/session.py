"""One system call on a connection of its own: what most commands need."""

from typing import TypeVar

from kernos.syscalls import Call, Kernel

R = TypeVar("R")


def ask(call: Call[R], *, urgent: bool = False) -> R:
    """Make a call as the key of this shell; `urgent` sends it past all queues."""
    with Kernel() as kernel:
        return kernel.call(call, urgent=urgent)
