"""Summaries of what is about to leave a conversation's window: the agent is told, writes one, and waits for the next notice."""

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from kernos.syscalls.context import AwaitNotice, Notice, SummarizeContext
from kernos.syscalls.errors import AgentKilledError, CancelledError, KernosError, NotYoursError
from kernos.syscalls.model import Message

if TYPE_CHECKING:
    from .agent import Agent

log = logging.getLogger(__name__)

Summarize = Callable[[list[Message]], Awaitable[str]]
"""Says in short what messages say; nothing, if they are not worth it."""


async def summarize_on_notice(agent: "Agent", context: str, summarize: Summarize) -> None:
    """Keep summaries of a context until the agent ends. Messages of which one fails leave without; one that is late is kept too."""
    try:
        while True:
            notice = await agent.call(AwaitNotice(context=context))
            try:
                await _keep(agent, notice, summarize)
            except Exception:
                log.exception("messages %d to %d of the context %s leave without a summary", notice.start, notice.stop, context)
    except (AgentKilledError, CancelledError, NotYoursError):
        return  # the agent has ended
    except KernosError as error:
        log.warning("there will be no more summaries of the context %s: %s", context, error)


async def _keep(agent: "Agent", notice: Notice, summarize: Summarize) -> None:
    text = await summarize(notice.messages) if notice.messages else ""
    if text.strip():
        stop = notice.start + len(notice.messages)
        await agent.call(SummarizeContext(context=notice.context, start=notice.start, stop=stop, text=text))
