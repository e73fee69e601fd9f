"""`message.*`: mail between agents. The sender is stamped by the kernel and cannot be forged.

A mailbox is `agent/PID`, read by that agent alone, or `queue/NAME`, read by whoever the policy lets; each mail goes to one reader.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from .bounds import Id, Pid, Principal, Text
from .call import Call

Mailbox = Annotated[str, Meta(max_length=80, pattern=r"^(agent/[1-9][0-9]{0,15}|queue/[A-Za-z0-9_][A-Za-z0-9_.-]*)\Z")]


class Mail(msgspec.Struct, frozen=True):
    """A mail as its reader gets it; `sent_at` is in seconds since the Unix epoch."""

    mail: Id
    sender: Principal
    sender_pid: Pid
    user: Principal | None
    to: Mailbox
    text: Text
    sent_at: float
    waiting: int
    """Mails still in the box behind this one."""


class Sent(msgspec.Struct, frozen=True):
    """The mail is in the box or with its reader."""

    mail: Id


class Send(Call[Sent], tag="message.send", frozen=True):
    """Put a mail into a box; a full box refuses with `BusyError`."""

    to: Mailbox
    text: Text


class Receive(Call[Mail], tag="message.receive", frozen=True):
    """Take the oldest mail out of a box, waiting for one until the call's deadline."""

    mailbox: Mailbox
