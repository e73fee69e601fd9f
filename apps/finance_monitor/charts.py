"""Charts as SVG text: a bar per day, the bad news in it darker. Drawn here, so that a report is one file that needs nothing else."""

from typing import Final, NamedTuple

from markupsafe import Markup

WIDTH, HEIGHT = 640, 90
_AXIS: Final = 16
"""Room for the dates below."""


class Bar(NamedTuple):
    """A day: how many items, and how many of them bad; whether there was an alert."""

    day: str
    items: int
    bad: int
    alert: bool = False


def draw(bars: list[Bar]) -> Markup:
    """The chart of one series; the highest bar fills the height."""
    most = max((bar.items for bar in bars), default=0) or 1
    step = WIDTH / max(1, len(bars))
    shapes = "".join(_bar(bar, at * step, step, (HEIGHT - _AXIS) / most) for at, bar in enumerate(bars))
    dates = (
        f'<text x="0" y="{HEIGHT - 3}">{bars[0].day}</text>'
        f'<text x="{WIDTH}" y="{HEIGHT - 3}" text-anchor="end">{bars[-1].day} (at most {most} a day)</text>'
        if bars
        else ""
    )
    return Markup(f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="items per day">{shapes}{dates}</svg>')  # noqa: S704  (numbers and dates)


def _bar(bar: Bar, x: float, step: float, unit: float) -> str:
    ground = HEIGHT - _AXIS
    title = f"<title>{bar.day}: {bar.items} items, {bar.bad} negative</title>"
    parts = [
        f'<rect class="{kind}" x="{x:.1f}" y="{ground - count * unit:.1f}" width="{step * 0.8:.1f}" height="{count * unit:.1f}"/>'
        for kind, count in (("all", bar.items), ("bad", bar.bad))
    ]
    mark = f'<circle class="alert" cx="{x + step * 0.4:.1f}" cy="4" r="3"/>' if bar.alert else ""
    return f"<g>{title}{''.join(parts)}{mark}</g>"
