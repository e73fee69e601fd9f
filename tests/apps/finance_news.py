"""What the tests of the finance monitor share: items made up for them, and a kernel in memory with heads trained on a few sentences."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from kernos.agents.testing import FakeKernel
from kernos.apps.finance_monitor.items import Item

START = datetime(2026, 3, 2, 8, tzinfo=UTC)

_GOOD = ("profit rose to EUR {0}.2 mn from EUR 1.1 mn", "wins a large order in Wenbury, number {0}", "raises its forecast by {0} %")
_BAD = ("profit fell to EUR 1.1 mn from EUR {0}.2 mn", "recalls {0} vans after a fault", "warns of weak demand and cuts {0} jobs")
_PLAIN = ("moves its office to street {0}", "publishes report number {0}", "holds its meeting in hall {0}")

NEWS = {"positive": _GOOD, "negative": _BAD, "neutral": _PLAIN}


def sentence(sentiment: str, number: int, company: str = "Orrin Motors") -> str:
    """A sentence of this tone, another for each number."""
    patterns = NEWS[sentiment]
    return f"{company} {patterns[number // 3 % len(patterns)].format(number + 2)}"


def item(sentiment: str, number: int, *, company: str = "Orrin Motors", day: int = 0) -> Item:
    """An item of this tone; those of a day come a minute apart."""
    return Item(sentence(sentiment, number, company), (START + timedelta(days=day, minutes=number % 600)).isoformat())


def write_examples(file: Path, rows: int = 36) -> Path:
    """Labelled sentences, as a user would bring them."""
    kinds = list(NEWS)
    lines = [f'"{sentence(kinds[at % 3], at)}",{kinds[at % 3]},{"cars" if at % 2 else "people"}' for at in range(rows)]
    file.write_text("text,sentiment,topic\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return file


def make_kernel() -> FakeKernel:
    """A kernel in memory that stands for the monitor's."""
    return FakeKernel(principal="app:finance_monitor")
