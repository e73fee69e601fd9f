"""`message.*`."""

import time

from kernos.syscalls.errors import BusyError, DeniedError, NotFoundError
from kernos.syscalls.message import Mail, Receive, Send, Sent

from ..core.mailboxes import FullError
from ..core.processes import Life
from ..system import System
from ..tickets import LATER, Later, Ticket


def send(system: System, ticket: Ticket, call: Send) -> Sent:
    """Stamp the sender and deliver."""
    agent = ticket.agent
    _check_receiver(system, call.to)
    # Wall-clock time is for people to read; nothing in the kernel is decided by it.
    mail = Mail(system.new_id(), agent.principal, agent.pid, agent.user, call.to, call.text, time.time(), 0)
    try:
        # A reader who turns out to be gone is no reader: the next one gets the mail, or the box.
        while (reader := system.mail.send(call.to, mail)) is not None and not reader.reply(mail):
            pass
    except FullError as error:
        raise BusyError(f"{call.to} takes no more mail: {error}. Try again when it has been read.", retry_after=1.0) from None
    return Sent(mail.mail)


def receive(system: System, ticket: Ticket, call: Receive) -> Mail | Later:
    """The oldest mail, now or when one comes."""
    _check_reader(ticket, call.mailbox)
    mail = system.mail.take(call.mailbox)
    if mail is not None:
        return Mail(mail.mail, mail.sender, mail.sender_pid, mail.user, mail.to, mail.text, mail.sent_at, system.mail.count(call.mailbox))
    system.mail.wait(call.mailbox, ticket)
    ticket.on_end = lambda: system.mail.give_up(call.mailbox, ticket)
    return LATER


def _check_receiver(system: System, to: str) -> None:
    kind, _, name = to.partition("/")
    if kind == "agent":
        process = system.processes.rows.get(int(name))
        if process is None or process.life is Life.EXITED:
            raise NotFoundError(f"There is no living agent {name} to send to. `process.list` shows those there are.")


def _check_reader(ticket: Ticket, mailbox: str) -> None:
    kind, _, name = mailbox.partition("/")
    if kind == "agent" and int(name) != ticket.agent.pid:
        raise DeniedError(
            f"{mailbox} is read by agent {name} alone, and this is agent {ticket.agent.pid}. Read your own, or a queue.",
            subject=ticket.principal,
            object=f"message/{mailbox}",
            action="receive",
        )
