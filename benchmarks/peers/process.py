"""A peer's process as the benchmark sees it.

async with peer("hf", folder, "float32", "2") as engine:
    answer = await engine.ask("generate", prompt=[1, 2, 3], new=64)
"""

import asyncio
import itertools
import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from ..kernel import ROOT, models_folder

START_S: Final = 1_200.0
"""vLLM compiles its steps when it starts for the first time."""
STOP_S: Final = 20.0

PATIENT: Final = {"GOMP_SPINCOUNT": "30000"}
"""For transformers, whose threads then wait for each other as those of a device server do: a machine that is not quiet stalls them less."""

ENVIRONMENTS: Final = models_folder().parent / "peers"
"""Where `make bench-peers` installs them, a folder for each."""


_ERROR: Final = re.compile(r"\w+(Error|Exception): .+")


class PeerError(Exception):
    """A peer cannot take part; the text says why."""


class Peer:
    """An engine that waits for questions."""

    def __init__(self, process: asyncio.subprocess.Process, facts: dict[str, Any]) -> None:
        assert process.stdin and process.stdout
        self.version, self.dtype = str(facts["version"]), str(facts["dtype"])
        self._to, self._from = process.stdin, process.stdout
        self._ids = itertools.count()
        self._asked: dict[int, asyncio.Queue[dict[str, Any] | None]] = {}
        self._reader = asyncio.create_task(self._read())

    async def ask(self, do: str, began: Callable[[], object] | None = None, **what: object) -> dict[str, Any]:
        """The last line of the answer; `began` is called at the first. PeerError: it has ended."""
        id_, lines = next(self._ids), asyncio.Queue[dict[str, Any] | None]()
        self._asked[id_] = lines
        self._to.write(json.dumps({"id": id_, "do": do} | what).encode() + b"\n")
        try:
            line = await self._next(lines)
            if began is not None:
                began()
            while line.get("more"):
                line = await self._next(lines)
        finally:
            del self._asked[id_]
        return line

    async def _next(self, lines: "asyncio.Queue[dict[str, Any] | None]") -> dict[str, Any]:
        if self._reader.done() or (line := await lines.get()) is None:
            raise PeerError("it ended in the middle of the measurement")
        return line

    async def _read(self) -> None:
        while text := await self._from.readline():
            line = json.loads(text)
            if line["id"] in self._asked:
                self._asked[line["id"]].put_nowait(line)
        for lines in self._asked.values():
            lines.put_nowait(None)


def interpreter(name: str) -> str:
    """The Python of a peer's environment; transformers is in ours."""
    if name == "hf":
        return sys.executable
    found = ENVIRONMENTS / name / "bin" / "python"
    if not found.exists():
        raise PeerError("it is not installed: `make bench-peers` installs it")
    return str(found)


@asynccontextmanager
async def peer(name: str, *arguments: str, **environment: str) -> AsyncIterator[Peer]:
    """Start a peer of this folder, with more environment variables, for as long as the block lasts. PeerError: it does not start."""
    async with started([interpreter(name), "-m", f"{__package__}.{name}_server", *arguments], environment) as found:
        yield found


@asynccontextmanager
async def started(command: list[str], environment: dict[str, str]) -> AsyncIterator[Peer]:
    """Start whatever speaks the protocol."""
    # Our packages are not theirs.
    inherited = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    with tempfile.TemporaryFile() as said:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=ROOT,
            env=inherited | environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=said,
            start_new_session=True,
        )
        try:
            assert process.stdout
            try:
                first = await asyncio.wait_for(process.stdout.readline(), START_S)
            except TimeoutError:
                raise PeerError(f"it was not ready after {START_S:g} s") from None
            if not first:
                said.seek(0)
                raise PeerError(f"it ended when it was started: {cause(said.read().decode(errors='replace'))}")
            # It listens until there is nothing more: of a pipe that nobody empties it is not noticed that it has ended.
            yield Peer(process, json.loads(first))
        finally:
            assert process.stdin
            process.stdin.close()
            await _stop(process)


def cause(text: str) -> str:
    """Why a process ended, by what it said: the first error, of which others are the consequence; else the last line."""
    if found := _ERROR.search(text):
        return found[0]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


async def _stop(process: asyncio.subprocess.Process) -> None:
    """Wait until it has ended, and end what is left of it: vLLM has children."""
    with suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), STOP_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def folder_of(model: str) -> Path:
    """The folder of a model in the store that kernel and peers share."""
    return models_folder() / model
