"""Where items come from: files, a folder that is watched, the standard input, and an archive that is replayed at a chosen speed."""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from itertools import groupby
from pathlib import Path
from typing import Final

import msgspec

from kernos.agents.rows import InputError, Rows, read_rows

from .feeds import SUFFIXES, read_feed
from .items import Item

BATCH: Final = 64
"""Items that are taken together: as many as one call embeds."""

_LOOK_S: Final = 2.0
"""How often a folder is looked at."""

_KNOWN: Final = (*SUFFIXES, ".csv", ".jsonl")


def read_source(path: Path) -> Rows[Item]:
    """The items of a file by its ending (feeds: .xml, .rss, .atom; rows: .csv, .jsonl), or of all such files of a folder, oldest first."""
    if path.is_dir():
        parts = [read_source(file) for file in _files(path)]
        if not parts:
            raise InputError(f"{path} holds no file that ends in {', '.join(_KNOWN)}.")
        items = [item for part in parts for item in part.rows]
        return Rows(path, sorted(items, key=lambda item: item.time), [bad for part in parts for bad in part.bad])
    found = read_feed(path) if path.suffix.lower() in SUFFIXES else read_rows(path, Item)
    return Rows(path, sorted(found.rows, key=lambda item: item.time), found.bad)


def batches(items: list[Item]) -> Iterator[list[Item]]:
    """The items in order, up to `BATCH` at a time and none of two days, so that an alert comes with the day it belongs to."""
    for _, day in groupby(items, key=lambda item: item.day):
        of_day = list(day)
        yield from (of_day[at : at + BATCH] for at in range(0, len(of_day), BATCH))


async def replay(items: list[Item], speed: float) -> AsyncIterator[list[Item]]:
    """A dated archive as it came, `speed` times as fast; 0: as fast as it can be read."""
    before = items[0].time if items else None
    for batch in batches(items):
        if speed and before is not None:
            await asyncio.sleep((batch[0].time - before).total_seconds() / speed)
        before = batch[0].time
        yield batch


async def watch(folder: Path, look_s: float = _LOOK_S) -> AsyncIterator[list[Item]]:
    """The items of every file in a folder, and again of those that change. A file counts once it was the same for two looks.

    Whoever reads these must know duplicates: a file that grew comes whole. A file that cannot be read is told once.
    """
    taken: dict[Path, tuple[int, int]] = {}
    seen: dict[Path, tuple[int, int]] = {}
    while True:
        now = {path: (stat.st_size, stat.st_mtime_ns) for path in _files(folder) if (stat := path.stat())}
        for path in [path for path, state in now.items() if seen.get(path) == state != taken.get(path)]:
            taken[path] = now[path]
            try:
                found = read_source(path)
            except InputError as error:
                print(error, file=sys.stderr)
                continue
            found.report(sys.stderr)
            for batch in batches(found.rows):
                yield batch
        seen = now
        await asyncio.sleep(look_s)


async def listen(fd: int) -> AsyncIterator[list[Item]]:
    """Items as lines of JSON from a pipe, as they come; a line that is none is told with its number."""
    lines: asyncio.Queue[bytes | None] = asyncio.Queue()
    # A thread, because reading blocks; one that does not hold up the end of the program, so no executor.
    threading.Thread(target=_read, args=(fd, asyncio.get_running_loop(), lines), daemon=True).start()
    number = 0
    while (line := await lines.get()) is not None:
        number += 1
        try:
            yield [msgspec.json.decode(line, type=Item)]
        except msgspec.MsgspecError as error:
            print(f"line {number} is left out: {error}", file=sys.stderr)


def _read(fd: int, loop: asyncio.AbstractEventLoop, lines: "asyncio.Queue[bytes | None]") -> None:
    with os.fdopen(fd, "rb", buffering=0, closefd=False) as raw:  # unbuffered: no lock is held at the program's end
        while line := raw.readline():
            if line.strip():
                loop.call_soon_threadsafe(lines.put_nowait, line)
    loop.call_soon_threadsafe(lines.put_nowait, None)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in _KNOWN and path.is_file())
