"""Screens for scripts: a live panel per customer on a terminal, plain lines elsewhere, and JSON lines for programs."""

import sys
from itertools import cycle
from types import TracebackType
from typing import Final, Self

import msgspec
from rich.columns import Columns
from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from kernos.agents.command import explain
from kernos.syscalls.errors import KernosError

from .service import Answered

_COLOURS: Final = ("cyan", "magenta", "green", "yellow", "blue", "red")


class PlainScreen:
    """A labelled line per question and per sentence, written at once."""

    def ask(self, customer: str, question: str) -> None:
        """A customer asks."""
        print(f"{customer} asks: {question}", flush=True)

    def write(self, customer: str, piece: str) -> None:
        """The next piece of the answer."""
        print(f"{customer} <- {piece.rstrip()}", flush=True)

    def finish(self, answered: Answered) -> None:
        """Nothing more to say."""

    def fail(self, customer: str, error: KernosError) -> None:
        """The customer cannot be served any further."""
        print(f"{customer} cannot be served: {explain(error)}", file=sys.stderr, flush=True)


class JsonScreen(PlainScreen):
    """Each answer as a line of JSON when it is complete, and nothing else."""

    def ask(self, customer: str, question: str) -> None:
        """Nothing yet."""

    def write(self, customer: str, piece: str) -> None:
        """Nothing yet."""

    def finish(self, answered: Answered) -> None:
        """The answer is complete."""
        print(msgspec.json.encode(answered).decode(), flush=True)


class LiveScreen:
    """A panel per customer being answered; what is complete scrolls up above them."""

    def __init__(self) -> None:
        self._colours = cycle(_COLOURS)
        self._colour: dict[str, str] = {}
        self._open: dict[str, Text] = {}
        self._live = Live(console=Console(), refresh_per_second=12, transient=True)

    def ask(self, customer: str, question: str) -> None:
        """Open the customer's panel."""
        self._colour.setdefault(customer, next(self._colours))
        self._open[customer] = Text.assemble((question, "bold"), "\n")
        self._show()

    def write(self, customer: str, piece: str) -> None:
        """The next piece of the answer."""
        self._open[customer].append(piece)
        self._show()

    def finish(self, answered: Answered) -> None:
        """Let the panel scroll up."""
        self._leave(answered.customer, "handed over to our staff" if answered.handed_over else f"{answered.tokens} tokens")

    def fail(self, customer: str, error: KernosError) -> None:
        """The customer cannot be served any further."""
        self._colour.setdefault(customer, next(self._colours))
        self._open.setdefault(customer, Text()).append(explain(error), style="bold red")
        self._leave(customer, "not served")

    def _leave(self, customer: str, subtitle: str) -> None:
        self._live.console.print(self._panel(customer, self._open.pop(customer), subtitle))
        self._show()

    def _show(self) -> None:
        self._live.update(Columns([self._panel(customer, text, "…") for customer, text in self._open.items()], equal=True, expand=True))

    def _panel(self, customer: str, text: Text, subtitle: str) -> Panel:
        return Panel(text, title=customer, title_align="left", subtitle=subtitle, subtitle_align="right", style=self._colour[customer])

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._live.stop()
