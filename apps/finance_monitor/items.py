"""Items of news, and what the monitor reads in them."""

from datetime import UTC, datetime
from typing import Annotated, Final

import msgspec
from msgspec import Meta

_READ: Final = 1_000
"""Characters of an item that are judged: news says at the beginning what it is about."""


class Item(msgspec.Struct, frozen=True):
    """A piece of news, as a row of a file or an entry of a feed.

    `published` is a day or a time as ISO 8601 writes them; without a zone it is taken for UTC.
    """

    title: Annotated[str, Meta(min_length=1, max_length=2_000)]
    published: str
    text: Annotated[str, Meta(max_length=100_000)] = ""
    source: Annotated[str, Meta(max_length=200)] = ""
    url: Annotated[str, Meta(max_length=2_000)] = ""

    def __post_init__(self) -> None:
        """Refuse a time that is none; `msgspec` makes a ValidationError of it."""
        datetime.fromisoformat(self.published)

    @property
    def time(self) -> datetime:
        """When it was published, in UTC."""
        time = datetime.fromisoformat(self.published)
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)

    @property
    def day(self) -> str:
        """The day of that time, as `2026-03-09`."""
        return self.time.date().isoformat()

    @property
    def words(self) -> str:
        """What is judged: the title and the beginning of the text."""
        return f"{self.title}. {self.text}"[:_READ] if self.text else self.title


class Reading(msgspec.Struct, frozen=True):
    """What the monitor reads in an item."""

    item: Item
    sentiment: str
    topic: str
    companies: list[str] = []
    sure: float = 0.0
    """The probability of the sentiment."""

    @property
    def bad(self) -> bool:
        """Whether it is bad news."""
        return self.sentiment == "negative"

    @property
    def series(self) -> list[str]:
        """The names of the series that it counts in."""
        return ["all", f"topic {self.topic}", *(f"company {name}" for name in self.companies)]
