"""`message.*`. Mail is in the database; readers wait here, and each is woken when there is something for him."""

from collections.abc import Iterable
from functools import partial

from kernos.syscalls.call import Done
from kernos.syscalls.errors import DeniedError, NotFoundError
from kernos.syscalls.message import Mail, Receive, Reply, Send, Sent, Subscribe, Unsubscribe
from kernos.syscalls.wire import encode

from ..core.processes import Life
from ..memory import mail as post
from ..memory import records
from ..memory.connection import Connection
from ..memory.mail import Letter
from ..system import System
from ..tickets import LATER, Later, Ticket


class _EmptyError(Exception):
    """There is nothing in the box."""


def send(system: System, ticket: Ticket, call: Send) -> Later:
    """Stamp the sender and deliver."""
    return _send(system, ticket, call.to, call.text, labels=call.labels)


def reply(system: System, ticket: Ticket, call: Reply) -> Later:
    """Stamp the sender and deliver, with the id of the mail that is answered."""
    return _send(system, ticket, call.sender, call.text, in_reply_to=call.mail)


def receive(system: System, ticket: Ticket, call: Receive) -> Later:
    """The oldest mail, now or when one comes."""
    _check_reader(ticket, call.mailbox)
    return _take(system, ticket, call.mailbox)


def subscribe(system: System, ticket: Ticket, call: Subscribe) -> Later:
    """Let a queue follow a topic."""
    return system.storage.change(ticket, lambda connection: post.subscribe(connection, call.topic, call.queue), _done)


def unsubscribe(system: System, ticket: Ticket, call: Unsubscribe) -> Later:
    """Let it follow no more."""
    return system.storage.change(ticket, lambda connection: post.unsubscribe(connection, call.topic, call.queue), _done)


def _send(system: System, ticket: Ticket, to: str, text: str, *, labels: Iterable[str] = (), in_reply_to: str | None = None) -> Later:
    kind, _, name = to.partition("/")
    if kind == "agent":
        _check_living(system, int(name))
    agent = ticket.agent
    marks = system.flows.marked(agent, labels)
    letter = Letter(system.new_id(), agent.principal, agent.pid, agent.user, to, marks, system.host.clock, text, in_reply_to)

    def job(connection: Connection) -> list[str]:
        if kind == "topic":
            return post.publish(connection, letter)
        post.send(connection, letter)
        return [to]

    return system.storage.change(ticket, job, lambda _: Sent(letter.id), after=lambda boxes: _wake(system, boxes))


def _check_living(system: System, pid: int) -> None:
    process = system.processes.rows.get(pid)
    if process is None or process.life is Life.EXITED:
        raise NotFoundError(f"There is no living agent {pid} to send to. `process.list` shows those there are.")
    system.agents.mailed.add(pid)  # before the mail is there: its box is emptied after it, as jobs keep their order


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
        elif not ticket.answer(outcome) and taken and not _may_ask_again(system, ticket):
            system.storage.write(lambda connection: _put_back(connection, ticket, box, taken[0]), lambda _: _wake(system, [box]))

    system.storage.write(job if ticket.request is None else records.once(ticket.request, job, system.storage.clock), come)
    return LATER


def _may_ask_again(system: System, ticket: Ticket) -> bool:
    """Whether a reader who was not reached can ask with his key: he lost his connection and lives, or may live."""
    client = ticket.client
    return (
        ticket.request is not None and client.cut_off and (not client.os_pid or system.host.watch_program(client.os_pid, client.start_time))
    )


def _put_back(connection: Connection, ticket: Ticket, box: str, letter: Letter) -> None:
    post.put_back(connection, box, letter)
    if ticket.request is not None:
        records.forget_reply(connection, ticket.request)


def _wait(system: System, ticket: Ticket, box: str) -> None:
    system.readers.wait(box, ticket)
    ticket.on_end = lambda: system.readers.give_up(box, ticket)


def _wake(system: System, boxes: list[str]) -> None:
    """Let the next reader of each queue try again."""
    for box in boxes:
        reader = system.readers.next(box)
        if reader is not None:
            reader.then(partial(_take, system, reader))(box)


def _mail(letter: Letter, waiting: int, labels: Iterable[str]) -> Mail:
    who = (letter.id, letter.sender, letter.sender_pid, letter.user)
    return Mail(*who, letter.receiver, letter.text, letter.time, waiting, letter.in_reply_to, sorted(labels))


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
