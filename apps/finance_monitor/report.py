"""The report of a day: one HTML file with the alerts of the last week, a chart for each of the largest series, and the day's items."""

from datetime import date, timedelta
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .charts import Bar, draw
from .state import DAYS_KEPT, Day, State

_CHARTS: Final = 20
_ALERT_DAYS: Final = 7

_PAGES: Final = Environment(loader=FileSystemLoader(Path(__file__).with_name("data")), autoescape=True, undefined=StrictUndefined)


def write_report(state: State, day: str, folder: Path) -> Path:
    """The file of a day, written anew."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{day}.html"
    part = file.with_suffix(".part")
    part.write_text(render_report(state, day), encoding="utf-8")
    part.replace(file)
    return file


def render_report(state: State, day: str) -> str:
    """The report as HTML. All text of items is escaped."""
    week = (date.fromisoformat(day) - timedelta(days=_ALERT_DAYS)).isoformat()
    of_day = state.series["all"].days.get(day, Day()) if "all" in state.series else Day()
    return _PAGES.get_template("report.html").render(
        day=day,
        count=of_day.items,
        bad=of_day.bad,
        alerts=[alert for alert in reversed(state.alerts) if week < alert.day <= day],
        charts=[(name, draw(_bars(state, name, day))) for name in state.largest(_CHARTS)],
        readings=[reading for reading in reversed(state.recent) if reading.item.day == day],
    )


def _bars(state: State, name: str, day: str) -> list[Bar]:
    last, first = date.fromisoformat(day), date.fromisoformat(state.first)
    span = min(DAYS_KEPT, (last - first).days + 1)
    days = [(last - timedelta(days=back)).isoformat() for back in range(span - 1, -1, -1)]
    alerted = {alert.day for alert in state.alerts if alert.series == name}
    counts = state.series[name].days
    return [Bar(each, counts.get(each, Day()).items, counts.get(each, Day()).bad, each in alerted) for each in days]
