"""What a model is shown of a context: which lines, what leaves to make room, and where what was recalled stands. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from kernos.syscalls.context import Points, Source
from kernos.syscalls.model import Message, Role

from .limits import HIGH_WATER, LOW_WATER, RECALL_SHARE

Why = Literal["resident", "pinned", "recalled", "new"]

HEADING: Final = "From earlier in this conversation:"
"""Stands before what was recalled, so that the model takes it for what it is."""


@dataclass(frozen=True)
class Line:
    """A message or a recalled page, in tokens with the chat template, and why it is shown. `seq` is the number of its message."""

    why: Why
    role: Role
    text: str
    tokens: int
    seq: int | None = None
    points: Points | None = None
    whole: bool = True
    """`False`: parts of the message are left out."""
    source: Source | None = None
    """Of a summary, whose `seq` is the first of them."""


def leaving(lines: Sequence[Line], window: int, mark: float = HIGH_WATER) -> int:
    """How far messages must leave a window: those before this number; 0: none must.

    Past the high-water mark the oldest go until the low-water mark is reached, but never pinned or new ones, nor the last. With a lower
    `mark`, those that will have to when the high-water mark is reached.
    """
    tokens, until = sum(line.tokens for line in lines), 0
    if tokens <= mark * window:
        return 0
    total = max(tokens, HIGH_WATER * window)
    for line in lines[:-1]:
        if total <= LOW_WATER * window:
            break
        if line.why == "resident" and line.seq is not None:
            total, until = total - line.tokens, line.seq + 1
    return until


def staying(lines: Sequence[Line], until: int) -> list[Line]:
    """What is left of a window when the messages before `until` have left it."""
    return [line for line in lines if line.why != "resident" or line.seq is None or line.seq >= until]


def room(lines: Sequence[Line], window: int, heading: int) -> int:
    """Tokens that may be recalled under a heading: a part of the window, if half as much is left for the answer."""
    most = window // RECALL_SHARE
    return max(0, min(most, window - sum(line.tokens for line in lines) - heading - most // 2))


def question(lines: Sequence[Line]) -> str:
    """What is recalled for: the last message."""
    return lines[-1].text if lines else ""


def with_recalled(lines: Sequence[Line], recalled: Sequence[Line]) -> list[Line]:
    """Put what was recalled right before the last message, in the order it was said: what stands before stays as it was computed."""
    return [*lines[:-1], *sorted(recalled, key=lambda line: line.seq or 0), *lines[-1:]]


def quoted(line: Line) -> str:
    """What was recalled, as the model reads it."""
    if line.source is not None:
        return f"[summary, messages {line.source.start}-{line.source.stop - 1}] {line.text}"
    return f"[{line.role}, message {line.seq}] {line.text}"


def conversation(lines: Sequence[Line]) -> list[Message]:
    """The messages to render. What was recalled is quoted at the head of the last one, as many templates want roles to alternate."""
    recalled = [quoted(line) for line in lines if line.why == "recalled"]
    messages = [Message(line.role, line.text) for line in lines if line.why != "recalled"]
    if recalled:
        last = messages.pop()
        messages.append(Message(last.role, "\n".join([HEADING, *recalled, "", last.text])))
    return messages
