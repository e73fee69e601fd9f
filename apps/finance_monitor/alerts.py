"""Alerts: what left its usual range, by which test, and the items that show it; to a topic, a webhook and the terminal."""

import asyncio
import sys
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Final, Literal
from urllib.parse import urlsplit

import msgspec

from kernos.agents import Agent
from kernos.agents.rows import InputError
from kernos.syscalls.message import Send

from .items import Item
from .shock import QUIET_ITEMS
from .volume import QUIET_DAYS

TOPIC: Final = "topic/finance-alerts"
"""Where alerts go; whoever the policy lets may subscribe a queue to it."""

_WEBHOOK_S: Final = 10.0


class Alert(msgspec.Struct, frozen=True):
    """Something is not as usual. `usual` and `now` are shares of bad news, or items per day."""

    kind: Literal["negative", "volume", "silence"]
    series: str
    day: str
    usual: float
    now: float
    evidence: list[Item] = []

    @property
    def headline(self) -> str:
        """What happened, in words of the program's own: nothing here is written by a model."""
        match self.kind:
            case "negative":
                return f"{self.series}: {self.now:.0%} of the latest items are negative, usually {self.usual:.0%}"
            case "volume":
                return f"{self.series}: {self.now:.0f} items on {self.day}, usually {self.usual:.1f} a day"
            case "silence":
                return f"{self.series}: only {self.now:.0f} items on {self.day}, usually {self.usual:.1f} a day"

    @property
    def test(self) -> str:
        """The test behind it and its rate of false alarms, for each series by itself."""
        if self.kind == "negative":
            return f"CUSUM over items, at most one false alarm in {QUIET_ITEMS:,} items of a quiet stream whose usual share is known"
        return f"count of a day against the days before, at most one false alarm in {QUIET_DAYS:,} usual days"


class Publisher:
    """Sends alerts on their way. The message on the topic comes first; a webhook that fails loses nothing of it."""

    def __init__(self, agent: Agent, webhook: str | None = None) -> None:
        self._agent = agent
        self._webhook = checked_url(webhook) if webhook else None

    async def publish(self, alert: Alert) -> None:
        """Tell everybody who asked to be told. The evidence is text of others, and labelled so."""
        body = msgspec.json.encode({"headline": alert.headline, "test": alert.test, **msgspec.to_builtins(alert)})
        await self._agent.call(Send(to=TOPIC, text=body.decode(), labels=["untrusted"]))
        if self._webhook:
            try:
                await asyncio.to_thread(_post, self._webhook, body)
            except (OSError, HTTPException) as error:
                print(f"The webhook {self._webhook} did not take the alert: {error}. It is on {TOPIC}.", file=sys.stderr)


def checked_url(url: str) -> str:
    """The URL of a webhook; `InputError` if it is none of http or https."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"{url!r} is no webhook. It should be like https://example.org/alerts.")
    return url


def _post(url: str, body: bytes) -> None:
    # By hand, because urllib would follow a redirection to wherever it leads.
    parts = urlsplit(url)
    connect = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = connect(parts.hostname or "", parts.port, timeout=_WEBHOOK_S)
    try:
        connection.request("POST", parts._replace(scheme="", netloc="").geturl() or "/", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status >= 300:
            raise HTTPException(f"it answered {response.status} {response.reason}")
    finally:
        connection.close()
