"""Calls that wait for somebody's consent, and consent that was given and not used yet. Pure.

A consent is for one agent and one call, to the byte and to where it goes; it is used up by that call, and is void after a while.
"""

from dataclasses import dataclass, field
from typing import Literal

from ..limits import APPROVAL_S, APPROVALS, APPROVALS_OF_AGENT

State = Literal["waiting", "approved", "refused"]


class FullError(Exception):
    """Too many calls wait for consent."""


@dataclass
class Request:
    """A call that somebody has to consent to; `digest` tells it from all others of its agent."""

    approval: str
    principal: str
    pid: int
    user: str | None
    digest: bytes
    text: str
    labels: list[str]
    since: float
    state: State = "waiting"

    @property
    def owner(self) -> str:
        """Whose text is quoted in it: the user's for whom the agent acts, else its principal's."""
        return self.user or self.principal

    @property
    def until(self) -> float:
        """When it is void."""
        return self.since + APPROVAL_S


@dataclass
class Approvals:
    """Requests by agent and call, the oldest first."""

    requests: dict[tuple[int, bytes], Request] = field(default_factory=dict)

    def asked(self, pid: int, digest: bytes, now: float) -> Request | None:
        """What was asked for this call before."""
        self._expire(now)
        return self.requests.get((pid, digest))

    def use(self, request: Request) -> None:
        """Use an approval up."""
        del self.requests[request.pid, request.digest]

    def ask(self, request: Request) -> None:
        """Take in a new request; `FullError` if its agent, or all together, wait for too much."""
        if len(self.requests) >= APPROVALS or sum(pid == request.pid for pid, _ in self.requests) >= APPROVALS_OF_AGENT:
            raise FullError
        self.requests[request.pid, request.digest] = request

    def find(self, id_: str, principal: str, now: float) -> Request | None:
        """A request of a principal's agents by its id."""
        return next((request for request in self.all(now) if request.approval == id_ and request.principal == principal), None)

    def all(self, now: float) -> list[Request]:
        """Everybody's."""
        self._expire(now)
        return list(self.requests.values())

    def forget(self, pid: int) -> None:
        """An agent has ended."""
        for key in [key for key in self.requests if key[0] == pid]:
            del self.requests[key]

    def _expire(self, now: float) -> None:
        for key in [key for key, request in self.requests.items() if request.until <= now]:
            del self.requests[key]
