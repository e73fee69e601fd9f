"""Handing a customer over to people: a mail to the human queue, with what they need to go on from there.

The summary is made of what was said and done, word for word, and not by the model: whoever takes over must be able to rely on it.
"""

import re
from collections.abc import AsyncIterator, Sequence
from typing import Final

import msgspec

from kernos.agents import Agent
from kernos.syscalls.errors import DeadlineError
from kernos.syscalls.message import Receive, Send
from kernos.syscalls.model import Message

QUEUE: Final = "queue/human-support"

_WISH: Final = re.compile(
    r"\b(human( being)?|real person|live agent|operator|representative)\b"
    r"|\b(talk|speak|chat|connect|transfer|pass|put)\b.{0,20}\b(person|people|someone|somebody|agent|staff|employee|manager)\b",
    re.IGNORECASE,
)
"""How customers ask for a person. Words, not a model: this wish must never be misunderstood."""

_EMPTY_S: Final = 0.5
"""A queue that gives nothing for so long is empty."""


class HandOver(msgspec.Struct, frozen=True):
    """What a member of staff gets."""

    customer: str
    reason: str
    summary: str
    """What the customer wanted so far and what came of it, in a few lines."""
    messages: list[Message]
    """The last of the conversation, ending with the question that was not answered."""


class Step(msgspec.Struct, frozen=True):
    """A question that was asked before the hand-over, what it was taken for, and what the answer rested on (nothing: there was none)."""

    question: str
    intent: str
    sources: list[str] = []


def summarize(customer: str, steps: Sequence[Step], orders: Sequence[str], *, frustrated: bool) -> str:
    """What a member of staff should know before reading the conversation."""
    lines = [f"{customer} asked {len(steps)} {'question' if len(steps) == 1 else 'questions'} in this talk."]
    for step in steps:
        became = f"answered from {', '.join(step.sources)}" if step.sources else "not answered"
        lines.append(f"- about {step.intent.replace('_', ' ')}: “{_shortened(step.question)}” ({became})")
    if orders:
        lines.append(f"Orders named: {', '.join(orders)}.")
    if frustrated:
        lines.append("Sounds frustrated.")
    return "\n".join(lines)


def _shortened(text: str, most: int = 120) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def wants_human(text: str) -> bool:
    """Whether a customer asks for a person."""
    return _WISH.search(text) is not None


async def hand_over(agent: Agent, case: HandOver) -> None:
    """Put a case into the human queue."""
    await agent.call(Send(to=QUEUE, text=msgspec.json.encode(case).decode()))


async def waiting_cases(agent: Agent) -> AsyncIterator[HandOver]:
    """Take the cases out of the human queue until it is empty."""
    while True:
        try:
            mail = await agent.call(Receive(mailbox=QUEUE), timeout=_EMPTY_S)
        except DeadlineError:
            return
        yield msgspec.json.decode(mail.text, type=HandOver)
