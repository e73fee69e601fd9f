"""The compiled passes of a device server on a CPU: found in the cache, or built there while the server has nothing to do."""

import subprocess
import sys
from pathlib import Path

from .compiler import compiler, find
from .library import Library, load_library


class Tuning:
    """The library, and how it comes about. `folder` None: there is none and there will be none."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._building: subprocess.Popen[bytes] | None = None
        self._failed = folder is None

    @property
    def hopeless(self) -> bool:
        """Whether there is no library and will be none."""
        return self._failed

    def library(self) -> Library | None:
        """The library if it is there."""
        if self._folder is None or (path := find(self._folder)) is None:
            return None
        if self._building is not None:
            self._building.wait()  # it has only to end
        library = load_library(path)
        self._failed = library is None
        return library

    def build(self) -> None:
        """See to it that the library is being built, in a process that yields to everybody. Never waits."""
        if self._building is not None:
            self._failed = self._building.poll() is not None and self.library() is None
        elif compiler() is None:
            self._failed = True
        else:
            command = [sys.executable, "-m", "kernos.kernel.devices.compiler", str(self._folder)]
            self._building = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603
