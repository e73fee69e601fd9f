"""The monitor: takes items, leaves out what was told before, reads what is new, counts it, and says what is not as usual."""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final, NamedTuple

from .alerts import Alert
from .duplicates import Stories
from .items import Item, Reading
from .reader import Reader
from .state import DAYS_KEPT, EVIDENCE_KEPT, RECENT_KEPT, SEEN_KEPT, SERIES_KEPT, Day, Series, State, hash_of
from .volume import DAYS, chance_of_less, chance_of_more, unusual

_LATEST: Final = 20
"""Items whose share of bad news an alert tells."""


class Taken(NamedTuple):
    """What became of a batch."""

    readings: list[Reading]
    duplicates: int
    alerts: list[Alert]
    ahead: int = 0
    """Items left out because they are of a day to come: one wrong clock would make every day after today's look over."""


class Monitor:
    """A state and a reader. Items should come in the order of time; one of a day that is over counts for that day."""

    def __init__(self, reader: Reader, state: State) -> None:
        self.state = state
        self._reader = reader
        self._seen = dict.fromkeys(state.seen)
        self._stories = Stories(reader.companies.find, state.stories)

    async def take(self, items: Sequence[Item]) -> Taken:
        """Take in items."""
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        past = [item for item in items if item.time <= tomorrow]
        fresh = [item for item in past if self._is_new(item)]
        readings = await self._reader.read(fresh)
        alerts = [alert for reading in readings for alert in self._count(reading)]
        state = self.state
        state.recent = [*state.recent, *readings][-RECENT_KEPT:]
        state.alerts = [*state.alerts, *alerts][-RECENT_KEPT:]
        state.stories, state.seen = self._stories.titles(), list(self._seen)
        return Taken(readings, len(past) - len(fresh), alerts, len(items) - len(past))

    def _is_new(self, item: Item) -> bool:
        key = hash_of(item)
        known = key in self._seen or self._stories.find(item.title) is not None
        self._seen[key] = None
        if len(self._seen) > SEEN_KEPT:
            del self._seen[next(iter(self._seen))]
        if not known:
            self._stories.add(item.title)
        return not known

    def _count(self, reading: Reading) -> Iterator[Alert]:
        state, day = self.state, reading.item.day
        state.first = state.first or day
        if day > state.today:
            yield from self._close(state.today)
            state.today = day
        for name in reading.series:
            series = state.series.pop(name, None) or Series()
            state.series[name] = series  # last in the order, as it is the one with the latest news
            yield from self._count_in(name, series, reading)
        while len(state.series) > SERIES_KEPT:
            del state.series[next(iter(state.series))]

    def _count_in(self, name: str, series: Series, reading: Reading) -> Iterator[Alert]:
        day = series.days.setdefault(reading.item.day, Day())
        day.items += 1
        day.bad += reading.bad
        series.latest = [*series.latest, reading.bad][-_LATEST:]
        if reading.bad:
            series.evidence = [*series.evidence, reading.item][-EVIDENCE_KEPT:]
        if series.shock.add(reading.bad):
            share = sum(series.latest) / len(series.latest)
            yield Alert("negative", name, reading.item.day, series.shock.usual, share, series.evidence)
        before = self._counts_before(series, reading.item.day)
        if not day.told and unusual(chance_of_more(day.items, before)):
            day.told = True
            items = [each.item for each in self.state.recent if name in each.series and each.item.day == reading.item.day]
            yield Alert("volume", name, reading.item.day, _mean(before), day.items, [*items, reading.item][-EVIDENCE_KEPT:])

    def _close(self, day: str) -> Iterator[Alert]:
        """A day is over: which series had too little news, and which days are old."""
        for name, series in self.state.series.items():
            before = self._counts_before(series, day) if day else []
            count = series.days.get(day, Day()).items
            if unusual(chance_of_less(count, before)):
                yield Alert("silence", name, day, _mean(before), count)
            for old in sorted(series.days)[:-DAYS_KEPT]:
                del series.days[old]

    def _counts_before(self, series: Series, day: str) -> list[int]:
        """Its counts on the days before, also those without news, since the monitor's first day."""
        last, first = date.fromisoformat(day), date.fromisoformat(self.state.first)
        days = [last - timedelta(days=back) for back in range(DAYS, 0, -1)]
        return [series.days.get(each.isoformat(), Day()).items for each in days if each >= first]


def _mean(counts: Sequence[int]) -> float:
    return sum(counts) / len(counts) if counts else 0.0
