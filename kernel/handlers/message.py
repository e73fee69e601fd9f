"""`message.*`. The boxes of agents are in memory and end with them; queues and topics are in the database, and their readers wait here."""

from collections.abc import Iterable
from functools import partial

import msgspec

from kernos.syscalls.call import Done
from kernos.syscalls.errors import BusyError, DeniedError, NotFoundError
from kernos.syscalls.message import Mail, Receive, Send, Sent, Subscribe, Unsubscribe
from kernos.syscalls.wire import encode

from ..core.mailboxes import FullError
from ..core.processes import Life
from ..memory import mail as post
from ..memory import records
from ..memory.connection import Connection
from ..memory.mail import Letter
from ..system import System
from ..tickets import LATER, Later, Ticket


class _EmptyError(Exception):
    """There is nothing in the box."""


def send(system: System, ticket: Ticket, call: Send) -> Sent | Later:
    """Stamp the sender and deliver."""
    kind, _, name = call.to.partition("/")
    if kind == "agent":
        return _send_agent(system, ticket, call, int(name))
    agent = ticket.agent
    labels = system.flows.marked(agent, call.labels)
    letter = Letter(system.new_id(), agent.principal, agent.pid, agent.user, call.to, labels, system.host.clock, call.text)

    def job(connection: Connection) -> list[str]:
        if kind == "topic":
            return post.publish(connection, letter)
        post.send(connection, letter)
        return [call.to]

    return system.storage.change(ticket, job, lambda _: Sent(letter.id), after=lambda boxes: _wake(system, boxes))


def receive(system: System, ticket: Ticket, call: Receive) -> Mail | Later:
    """The oldest mail, now or when one comes."""
    _check_reader(ticket, call.mailbox)
    if call.mailbox.startswith("queue/"):
        return _take(system, ticket, call.mailbox)
    mail = system.mail.take(call.mailbox)
    if mail is not None:
        return msgspec.structs.replace(mail, waiting=system.mail.count(call.mailbox))
    _wait(system, ticket, call.mailbox)
    return LATER


def subscribe(system: System, ticket: Ticket, call: Subscribe) -> Later:
    """Let a queue follow a topic."""
    return system.storage.change(ticket, lambda connection: post.subscribe(connection, call.topic, call.queue), _done)


def unsubscribe(system: System, ticket: Ticket, call: Unsubscribe) -> Later:
    """Let it follow no more."""
    return system.storage.change(ticket, lambda connection: post.unsubscribe(connection, call.topic, call.queue), _done)


def _send_agent(system: System, ticket: Ticket, call: Send, pid: int) -> Sent:
    process = system.processes.rows.get(pid)
    if process is None or process.life is Life.EXITED:
        raise NotFoundError(f"There is no living agent {pid} to send to. `process.list` shows those there are.")
    agent = ticket.agent
    labels = list(system.flows.marked(agent, call.labels))
    mail = Mail(system.new_id(), agent.principal, agent.pid, agent.user, call.to, call.text, system.host.clock, 0, labels)
    try:
        # A reader who turns out to be gone is no reader: the next one gets the mail, or the box.
        while (reader := system.mail.send(call.to, mail)) is not None and not reader.reply(mail):
            pass
    except FullError as error:
        raise BusyError(f"{call.to} takes no more mail: {error}. Try again when it has been read.", retry_after=1.0) from None
    return Sent(mail.mail)


def _take(system: System, ticket: Ticket, box: str) -> Later:
    """Take a mail out of a queue and answer with it, or wait. One that cannot be handed over goes back, unless he can ask for it again."""
    taken: list[Letter] = []

    def job(connection: Connection) -> bytes:
        letter = post.take(connection, box)
        if letter is None:
            raise _EmptyError
        labels = {*letter.labels, *system.law.policy.flows.given(f"message/{box}")}
        system.flows.must_reach(ticket.agent, labels, box)  # before it is taken, so that it stays for somebody who may read it
        taken.append(letter)
        return encode(_mail(letter, post.count(connection, box), labels))

    def come(outcome: bytes | Exception) -> None:
        if isinstance(outcome, _EmptyError):
            if ticket.open:
                _wait(system, ticket, box)
        elif isinstance(outcome, Exception):
            system.gate.fault(ticket, outcome)
        elif not ticket.answer(outcome) and ticket.request is None:
            letter = taken[0]
            system.storage.write(lambda connection: post.put_back(connection, box, letter), lambda _: _wake(system, [box]))

    system.storage.write(job if ticket.request is None else records.once(ticket.request, job, system.storage.clock), come)
    return LATER


def _wait(system: System, ticket: Ticket, box: str) -> None:
    system.mail.wait(box, ticket)
    ticket.on_end = lambda: system.mail.give_up(box, ticket)


def _wake(system: System, boxes: list[str]) -> None:
    """Let the next reader of each queue try again."""
    for box in boxes:
        reader = system.mail.waiting(box)
        if reader is not None:
            reader.then(partial(_take, system, reader))(box)


def _mail(letter: Letter, waiting: int, labels: Iterable[str]) -> Mail:
    who = (letter.id, letter.sender, letter.sender_pid, letter.user)
    return Mail(*who, letter.receiver, letter.text, letter.time, waiting, sorted(labels))


def _done(_: None) -> Done:
    return Done()


def _check_reader(ticket: Ticket, mailbox: str) -> None:
    kind, _, name = mailbox.partition("/")
    if kind == "agent" and int(name) != ticket.agent.pid:
        raise DeniedError(
            f"{mailbox} is read by agent {name} alone, and this is agent {ticket.agent.pid}. Read your own, or a queue.",
            subject=ticket.principal,
            object=f"message/{mailbox}",
            action="receive",
        )
