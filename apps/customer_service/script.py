"""A script of questions: every customer in it at once, each one's questions in order."""

import asyncio
from pathlib import Path
from typing import Annotated, Final, Protocol

import msgspec
from msgspec import Meta

from kernos.syscalls.errors import KernosError

from .service import Answered, Desk

DEMO: Final = Path(__file__).with_name("data") / "demo.jsonl"

CustomerName = Annotated[str, Meta(max_length=64, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.@-]*\Z")]


class Question(msgspec.Struct, frozen=True):
    """A line of a script."""

    customer: CustomerName
    text: Annotated[str, Meta(min_length=1, max_length=4_000)]


class Screen(Protocol):
    """Where a script is shown."""

    def ask(self, customer: str, question: str) -> None:
        """A customer asks."""

    def write(self, customer: str, piece: str) -> None:
        """The next piece of the answer."""

    def finish(self, answered: Answered) -> None:
        """The answer is complete."""

    def fail(self, customer: str, error: KernosError) -> None:
        """The customer cannot be served any further."""


async def run_script(desk: Desk, questions: list[Question], screen: Screen) -> bool:
    """Ask everything; whether all customers were served to the end. One customer's trouble is not another's."""
    texts: dict[str, list[str]] = {}
    for question in questions:
        texts.setdefault(question.customer, []).append(question.text)
    return all(await asyncio.gather(*(_serve(desk, customer, asked, screen) for customer, asked in texts.items())))


async def _serve(desk: Desk, name: str, texts: list[str], screen: Screen) -> bool:
    try:
        async with desk.customer(name) as customer:
            for text in texts:
                screen.ask(name, text)
                async for piece in customer.ask(text):
                    screen.write(name, piece)
                screen.finish(customer.answered)
    except KernosError as error:
        screen.fail(name, error)
        return False
    return True
