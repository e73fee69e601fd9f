"""`message.*`: mail between agents. The sender is stamped by the kernel and cannot be forged.

A mailbox is `agent/PID`, read by that agent alone, or `queue/NAME`, read by whoever the policy lets; each mail goes to one reader. What is
sent to `topic/NAME` goes to every queue that subscribed to it. Boxes, topics and what waits in them outlive the kernel; the box of an
agent ends with it. A mail is answered with `message.reply`, which tells its sender which of his mails that is about.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from .bounds import Id, LabelNames, Pid, Principal, Text
from .call import Call, Done

Mailbox = Annotated[str, Meta(max_length=80, pattern=r"^(agent/[1-9][0-9]{0,15}|queue/[A-Za-z0-9_][A-Za-z0-9_.-]*)\Z")]

AgentBox = Annotated[str, Meta(max_length=80, pattern=r"^agent/[1-9][0-9]{0,15}\Z")]
Queue = Annotated[str, Meta(max_length=80, pattern=r"^queue/[A-Za-z0-9_][A-Za-z0-9_.-]*\Z")]
Topic = Annotated[str, Meta(max_length=80, pattern=r"^topic/[A-Za-z0-9_][A-Za-z0-9_.-]*\Z")]
Address = Annotated[str, Meta(max_length=80, pattern=r"^(agent/[1-9][0-9]{0,15}|(queue|topic)/[A-Za-z0-9_][A-Za-z0-9_.-]*)\Z")]


class Mail(msgspec.Struct, frozen=True):
    """A mail as its reader gets it; `sent_at` is in seconds since the Unix epoch."""

    mail: Id
    sender: Principal
    sender_pid: Pid
    user: Principal | None
    to: Address
    text: Text
    sent_at: float
    waiting: int
    """Mails still in the box behind this one."""
    in_reply_to: Id | None = None
    """The mail that this one answers."""
    labels: LabelNames = []

    def reply(self, text: str) -> "Reply":
        """The call that answers this mail."""
        return Reply(sender=f"agent/{self.sender_pid}", mail=self.mail, text=text)


class Sent(msgspec.Struct, frozen=True):
    """The mail is in the box, in the boxes of all subscribers, or with its reader."""

    mail: Id


class Send(Call[Sent], tag="message.send", frozen=True):
    """Put a mail into a box, or on a topic; a full box refuses with `BusyError`, also for a topic: then no subscriber has it."""

    to: Address
    text: Text
    labels: LabelNames = []
    """Besides those that the caller carries."""


class Reply(Call[Sent], tag="message.reply", frozen=True):
    """Answer a mail: its sender finds the mail's id in `in_reply_to`. Ids cannot be guessed, so whoever names one was shown the mail."""

    sender: AgentBox
    """The agent that sent it: `agent/` and the mail's `sender_pid`."""
    mail: Id
    text: Text


class Receive(Call[Mail], tag="message.receive", frozen=True):
    """Take the oldest mail out of a box, waiting for one until the call's deadline.

    A reader who lost the answer, or the kernel, gets the same mail when he asks again with his idempotency key.
    """

    mailbox: Mailbox


class Subscribe(Call[Done], tag="message.subscribe", frozen=True):
    """Let a queue get what is sent to a topic from now on."""

    topic: Topic
    queue: Queue


class Unsubscribe(Call[Done], tag="message.unsubscribe", frozen=True):
    """Let it get no more; what it has stays."""

    topic: Topic
    queue: Queue
