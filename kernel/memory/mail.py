"""Mail in the database: boxes, first in first out, and topics whose subscribers are boxes. What was sent stays until it is taken.

To take a mail is to remove it; the reader's reply and this are one transaction (see `records.once`), so that a reader who did not get his
answer asks again with his key and is given the same mail.
"""

import msgspec

from kernos.syscalls.errors import BusyError

from ..limits import MAILBOX, MAILBOXES
from .connection import Connection


class Letter(msgspec.Struct, frozen=True):
    """A mail; `id` is the kernel's, `receiver` the box or the topic it was sent to, `time` in seconds since the Unix epoch."""

    id: str
    sender: str
    sender_pid: int
    user: str | None
    receiver: str
    labels: tuple[str, ...]
    time: float
    text: str
    in_reply_to: str | None = None


def send(connection: Connection, letter: Letter) -> None:
    """Put a letter into the box it is for; `BusyError` if the box is full or there are too many boxes."""
    _keep(connection, letter)
    _deliver(connection, letter, letter.receiver)


def publish(connection: Connection, letter: Letter) -> list[str]:
    """Put a letter into the box of every subscriber of its topic, or none if one is full; the boxes."""
    query = "SELECT box FROM subscriptions WHERE topic = ? ORDER BY box"
    boxes = [box for (box,) in connection.execute(query, (letter.receiver,))]
    if boxes:
        _keep(connection, letter)
    for box in boxes:
        _deliver(connection, letter, box)
    return boxes


def take(connection: Connection, box: str) -> Letter | None:
    """Remove the oldest letter of a box, and return it."""
    found = connection.execute("SELECT id, mail FROM deliveries WHERE box = ? ORDER BY id LIMIT 1", (box,)).fetchone()
    if found is None:
        return None
    delivery, mail = found
    query = "SELECT id, sender, sender_pid, user, receiver, labels, time, text, in_reply_to FROM mails WHERE id = ?"
    id_, sender, pid, user, receiver, labels, *rest = connection.execute(query, (mail,)).fetchone()
    _remove(connection, delivery, box, mail)
    return Letter(id_, sender, pid, user, receiver, msgspec.json.decode(labels, type=tuple[str, ...]), *rest)


def put_back(connection: Connection, box: str, letter: Letter) -> None:
    """Make a letter that could not be handed over the oldest of its box again."""
    kept = connection.execute("SELECT 1 FROM mails WHERE id = ?", (letter.id,)).fetchone()  # in the box of another subscriber
    if not kept:
        _keep(connection, letter)
    insert = "INSERT INTO deliveries (id, box, mail) VALUES ((SELECT min(0, coalesce(min(id), 0)) - 1 FROM deliveries), ?, ?)"
    connection.execute(insert, (box, letter.id))
    connection.execute("INSERT INTO boxes VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET waiting = waiting + 1", (box,))


def count(connection: Connection, box: str) -> int:
    """Letters in a box."""
    found = connection.execute("SELECT waiting FROM boxes WHERE name = ?", (box,)).fetchone()
    return found[0] if found else 0


def boxes(connection: Connection) -> list[tuple[str, int]]:
    """All boxes that hold mail, and how many."""
    return connection.execute("SELECT name, waiting FROM boxes ORDER BY name").fetchall()


def clear(connection: Connection, box: str) -> int:
    """Throw away what is in a box, and its subscriptions; how many letters. The job `erases`."""
    waiting = connection.execute("SELECT id, mail FROM deliveries WHERE box = ?", (box,)).fetchall()
    for delivery, mail in waiting:
        _remove(connection, delivery, box, mail)
    connection.execute("DELETE FROM subscriptions WHERE box = ?", (box,))
    return len(waiting)


def subscribe(connection: Connection, topic: str, box: str) -> None:
    """Let a box get what is published on a topic from now on."""
    connection.execute("INSERT OR IGNORE INTO subscriptions VALUES (?, ?)", (topic, box))


def unsubscribe(connection: Connection, topic: str, box: str) -> None:
    """Let it get no more; what it has stays."""
    connection.execute("DELETE FROM subscriptions WHERE topic = ? AND box = ?", (topic, box))


def expire(connection: Connection, before: float) -> int:
    """Throw away letters sent before a time; how many deliveries. The job `erases`."""
    query = "SELECT deliveries.id, box, mail FROM deliveries JOIN mails ON mail = mails.id WHERE time < ?"
    old = connection.execute(query, (before,)).fetchall()
    for delivery, box, mail in old:
        _remove(connection, delivery, box, mail)
    return len(old)


def _keep(connection: Connection, letter: Letter) -> None:
    labels = msgspec.json.encode(letter.labels).decode()
    values = (letter.id, letter.sender, letter.sender_pid, letter.user, letter.receiver, labels, letter.time, letter.text)
    connection.execute("INSERT INTO mails VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (*values, letter.in_reply_to))


def _deliver(connection: Connection, letter: Letter, box: str) -> None:
    waiting = count(connection, box)
    if waiting >= MAILBOX:
        raise BusyError(f"{box} takes no more mail: it holds {MAILBOX}. Try again when it has been read.", retry_after=1.0)
    if not waiting and connection.execute("SELECT count(*) FROM boxes").fetchone()[0] >= MAILBOXES:
        raise BusyError(f"{box} takes no mail: there are {MAILBOXES} boxes with mail. Try again when some have been read.", retry_after=1.0)
    connection.execute("INSERT INTO deliveries (box, mail) VALUES (?, ?)", (box, letter.id))
    connection.execute("INSERT INTO boxes VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET waiting = waiting + 1", (box,))


def _remove(connection: Connection, delivery: int, box: str, mail: str) -> None:
    connection.execute("DELETE FROM deliveries WHERE id = ?", (delivery,))
    connection.execute("DELETE FROM mails WHERE id = ? AND NOT EXISTS (SELECT 1 FROM deliveries WHERE mail = mails.id)", (mail,))
    connection.execute("UPDATE boxes SET waiting = waiting - 1 WHERE name = ?", (box,))
    connection.execute("DELETE FROM boxes WHERE name = ? AND waiting = 0", (box,))
