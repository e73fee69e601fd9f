"""A device that several servers share is taken by one at a time, for a step or a piece.

Two computations on the same cores at once take longer than one after the other: the threads of each wait, at every operation, for one that
the other keeps from running. So each has all cores for a moment, and as nobody who waits is passed by they alternate.

Two locks of files, which end with whoever holds them. Who wants the device keeps the `gate` until he has it, so that the one who has it now
finds the gate closed when he wants it again. (Unless he is so quick that the other has not yet woken: a few scheduling delays, not steps.)
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Turnstile:
    """One server's way to a device. `folder` is where all that share it keep its locks; None: nobody shares it."""

    def __init__(self, folder: Path | None, device: str) -> None:
        self._has_it = False
        names = ("gate", "lock") if folder is not None else ()
        self._files = [os.open((folder or Path()) / f"{device}.{name}", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600) for name in names]

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Have the device for the length of a block. A turn within a turn is part of it."""
        if self._has_it or not self._files:
            yield
            return
        gate, lock = self._files
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(lock, fcntl.LOCK_EX)
        fcntl.flock(gate, fcntl.LOCK_UN)
        self._has_it = True
        try:
            yield
        finally:
            self._has_it = False
            fcntl.flock(lock, fcntl.LOCK_UN)
