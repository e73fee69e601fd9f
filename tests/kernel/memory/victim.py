"""The program that `test_kills.py` kills: eight clients that write as fast as they are answered, and tell what was acknowledged.

`python -m tests.kernel.memory.victim FOLDER ROUND`. Each client goes on where its file of the round before ended. Lines on stdout:
`c CLIENT NUMBER` before a write is submitted, `a CLIENT NUMBER` when it was acknowledged. It never ends by itself.

Every write is one job of several effects, under an idempotency key: two messages, a file, a mail and a counter.
"""

import os
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from kernos.kernel.memory import filestore, history, mail, records
from kernos.kernel.memory.connection import Connection
from kernos.kernel.memory.mail import Letter
from kernos.kernel.memory.records import Request
from tests.kernel.memory.storage import NOW, PAYERS, Storage, context, id_of, say

CLIENTS = 8


def owner(client: int) -> str:
    return f"user:c{client}"


def effect(connection: Connection, client: int, number: int) -> bytes:
    """All of one write. What it returns says how it found things, so that a second application would be seen."""
    who = owner(client)
    row = context(connection, owner=who)
    row = say(connection, row.id, f"{number} first", f"{number} second", actor=who)
    if number % 7 == 3:
        history.fork(connection, who, row.id, f"fork{number}", id_of(client, number), PAYERS, NOW)
    file = filestore.put(connection, who, who, "count", str(number).encode() * (number % 50), None, PAYERS, NOW)
    mail.send(connection, Letter(f"m{client}x{number}", who, 1, None, f"queue/c{client}", (), NOW, str(number)))
    if number >= 5:
        mail.take(connection, f"queue/c{client}")
    records.remember(connection, "usage", who, "count", str(number).encode())
    return f"{number}: {row.length} messages, version {file.version}".encode()


def request(client: int, number: int) -> Request:
    return Request(owner(client), f"key{number}", str(number).encode())


def job(client: int, number: int) -> Callable[[Connection], bytes]:
    return records.once(request(client, number), partial(effect, client=client, number=number), NOW)


def run(storage: Storage, client: int, first: int) -> None:
    """Write, one after the other. The first one may have been applied before the last kill: it is made again with its key."""
    number = first
    while True:
        os.write(1, f"c {client} {number}\n".encode())
        storage.write(job(client, number))
        os.write(1, f"a {client} {number}\n".encode())
        number += 1


def main() -> None:
    storage = Storage(Path(sys.argv[1]))
    assert storage.database.recovery.lost == 0, storage.database.recovery.report()
    threads = [threading.Thread(target=run, args=(storage, client, int(first)), daemon=True) for client, first in enumerate(sys.argv[2:])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
