"""What is forgotten by itself, as the administrator sets it: replaced versions of files, and what rollbacks of contexts left behind.

It goes a slice at a time, so that others write in between, and is given back to those who were charged for it.
"""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from kernos.syscalls.errors import KernosError

from .core.quotas import Payers
from .limits import TIDY_S, TRIMMED
from .memory import filestore, history
from .memory.connection import Connection

if TYPE_CHECKING:
    from .system import System

log = logging.getLogger(__name__)

Trim = Callable[[Connection, float], list[tuple[Payers, int]]]
"""Deletes a slice of what is older than a time; who is charged how many bytes less, a pair for each thing deleted."""

_DAY_S: Final = 86_400.0


class Retention:
    """Looks for what is too old, now and every `TIDY_S`."""

    def __init__(self, system: "System") -> None:
        self.system = system

    def start(self) -> None:
        """Begin."""
        config = self.system.config
        self._trim(config.version_days, _versions)
        self._trim(config.rollback_days, _rollbacks)
        self.system.host.at(self.system.host.now + TIDY_S, self.start)

    def _trim(self, days: float | None, trim: Trim) -> None:
        if days is None:
            return
        before = self.system.storage.clock - days * _DAY_S

        def gone(outcome: list[tuple[Payers, int]] | Exception) -> None:
            if isinstance(outcome, Exception):
                log.warning("what is too old was not deleted (%s); it is tried again later", outcome)
                return
            for payers, size in outcome:
                if size:  # books that hold nothing may have been closed meanwhile
                    self.system.quotas.give(payers, {"bytes": size})
            if len(outcome) == TRIMMED:
                self._trim(days, trim)

        try:
            self.system.storage.write(lambda connection: trim(connection, before), gone, erases=True)
        except KernosError as error:  # too much waits for the disk, or the kernel is being stopped
            gone(error)


def _versions(connection: Connection, before: float) -> list[tuple[Payers, int]]:
    return [(gone.payers, gone.bytes) for gone in filestore.trim(connection, before, TRIMMED)]


def _rollbacks(connection: Connection, before: float) -> list[tuple[Payers, int]]:
    return history.trim(connection, before, TRIMMED)
