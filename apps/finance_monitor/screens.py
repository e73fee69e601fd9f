"""What the terminal shows: a line per item, alerts with their evidence, and tables at the end."""

from typing import Final

import msgspec
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from .alerts import Alert
from .items import Reading
from .monitor import Taken
from .state import State

_ROWS: Final = 16
_TONES: Final = {"negative": "red", "positive": "green"}


class Screen:
    """The terminal, or plain lines where there is none."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)

    def show(self, taken: Taken) -> None:
        """A batch that was taken in."""
        for reading in taken.readings:
            self._console.print(_line(reading), soft_wrap=True)
        if taken.duplicates:
            self._console.print(f"  {taken.duplicates} told before", style="dim")
        if taken.ahead:
            self._console.print(f"  {taken.ahead} left out: their time is more than a day ahead of the clock", style="dim")
        for alert in taken.alerts:
            self._console.print(_panel(alert))

    def close(self, state: State) -> None:
        """The largest series, in a table."""
        table = Table(title="Series", title_justify="left")
        for heading in ("series", "items", "negative", "share", "alerts"):
            table.add_column(heading, justify="left" if heading == "series" else "right")
        for name in state.largest(_ROWS):
            items, bad = state.series[name].total
            alerts = sum(alert.series == name for alert in state.alerts)
            table.add_row(Text(name), str(items), str(bad), f"{bad / items:.0%}" if items else "", str(alerts or ""))
        self._console.print(table)

    def say(self, text: str) -> None:
        """A remark."""
        self._console.print(Text(text), style="dim", soft_wrap=True)


class JsonScreen(Screen):
    """Each reading and each alert as a line of JSON, and nothing else."""

    def show(self, taken: Taken) -> None:
        """A batch that was taken in."""
        for reading in taken.readings:
            print(msgspec.json.encode({"reading": reading}).decode(), flush=True)
        for alert in taken.alerts:
            print(msgspec.json.encode({"alert": alert, "headline": alert.headline, "test": alert.test}).decode(), flush=True)

    def close(self, state: State) -> None:
        """Nothing more to say."""

    def say(self, text: str) -> None:
        """Nothing."""


def _line(reading: Reading) -> Text:
    time, tone = f"{reading.item.time:%Y-%m-%d %H:%M} ", (f"{reading.sentiment:8} ", _TONES.get(reading.sentiment, ""))
    return Text.assemble((time, "dim"), tone, (f"{reading.topic:10} ", "cyan"), reading.item.title)


def _panel(alert: Alert) -> Panel:
    lines = [f"{item.day}  {item.title}" + (f"  ({item.source})" if item.source else "") for item in alert.evidence]
    title = Text(f"ALERT  {alert.headline}")
    return Panel(Text("\n".join(lines) or "No items."), title=title, title_align="left", subtitle=Text(alert.test), style="yellow")
