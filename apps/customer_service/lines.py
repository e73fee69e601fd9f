"""Files of one JSON document per line (JSONL), read with every line checked."""

from pathlib import Path
from typing import TypeVar

import msgspec

T = TypeVar("T")


class InputError(Exception):
    """A file that the user named cannot be used; the text says where and why."""


def read_lines(path: Path, kind: type[T]) -> list[T]:
    """Every line of a file as a `kind`; `InputError` names the first line that is none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    found = [_read_line(path, number, line, kind) for number, line in enumerate(lines, start=1) if line.strip()]
    if not found:
        raise InputError(f"{path} holds no lines. Each line should be a JSON document.")
    return found


def _read_line(path: Path, number: int, line: str, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(line, type=kind)
    except msgspec.MsgspecError as error:
        raise InputError(f"{path}, line {number}, is not as expected: {error}.") from None
