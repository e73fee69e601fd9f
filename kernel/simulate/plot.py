"""A picture of a simulation, for those who have matplotlib: the extra `plot`."""

from collections.abc import Sequence
from pathlib import Path

from .measures import Measures


class NoPlotError(Exception):
    """matplotlib is not installed."""


def draw(results: Sequence[Measures], path: Path) -> None:
    """Write a PNG with a panel per measure: bars by policy and class."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise NoPlotError("--png needs matplotlib, which is not installed. Install it with: pip install 'kernos[plot]'") from None
    figure = Figure(figsize=(12, 4), layout="constrained")
    names = list(results[0].classes)
    width = 0.8 / len(names)
    for axes, measure in zip(figure.subplots(1, 3), ("waiting", "response", "turnaround"), strict=True):
        for at, name in enumerate(names):
            places = [place + (at - (len(names) - 1) / 2) * width for place in range(len(results))]
            axes.bar(places, [getattr(result.classes[name], measure).mean for result in results], width, label=name)
        axes.set_xticks(range(len(results)), [result.policy for result in results])
        axes.set_title(f"mean {measure}")
        axes.set_ylabel("seconds")
        axes.legend()
    figure.savefig(path, format="png", dpi=120)
