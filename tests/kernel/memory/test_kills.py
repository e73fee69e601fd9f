"""`kill -9` at random points under eight writing clients: nothing acknowledged is lost, nothing is half there, nothing is applied twice."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

from kernos.kernel.memory import filestore, mail, records
from kernos.kernel.memory.connection import Connection
from kernos.kernel.memory.transcripts import of
from tests.kernel.memory.storage import NOW, Storage, texts
from tests.kernel.memory.victim import CLIENTS, owner, request

ROOT = Path(__file__).parents[3]
KILLS = 300 if os.environ.get("KERNOS_PROVE") else 8


def test_kills_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    chance = random.Random(9)
    acknowledged, begun = [-1] * CLIENTS, [-1] * CLIENTS
    for _ in range(KILLS):
        for kind, client, number in _killed(tmp_path / "state", [number + 1 for number in acknowledged], chance):
            if kind == "a":
                assert number == acknowledged[client] + 1
                acknowledged[client] = number
            else:
                begun[client] = number
        _check(tmp_path / "state", acknowledged, begun)
    assert min(acknowledged) > 0


def _killed(folder: Path, first: list[int], chance: random.Random) -> list[tuple[str, int, int]]:
    """Let the program run until it has acknowledged so many writes, give or take what it does before the signal arrives."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "src")))}
    command = [sys.executable, "-m", "tests.kernel.memory.victim", str(folder), *map(str, first)]
    told = []
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdout is not None
        enough = chance.choice((0, 1, 20, 200, 1_000))
        for line in victim.stdout:
            told.append(line)
            if line.startswith("a") and (enough := enough - 1) < 0:
                break
        for _ in range(chance.randrange(20_000)):
            pass
        victim.send_signal(signal.SIGKILL)
        told += victim.stdout.readlines()
    assert victim.returncode == -signal.SIGKILL
    return [(kind, int(client), int(number)) for kind, client, number in map(str.split, told) if number]


def _check(folder: Path, acknowledged: list[int], begun: list[int]) -> None:
    """Each client's data is that of its first n writes, where n counts the acknowledged and perhaps the one begun after them."""
    storage = Storage(folder)
    assert storage.database.recovery.lost == 0
    for client in range(CLIENTS):
        assert begun[client] <= acknowledged[client] + 1
        applied = storage.read(lambda connection, client=client: _applied(connection, client))  # type: ignore[misc]
        assert applied in (acknowledged[client] + 1, begun[client] + 1)
    storage.close()


def _applied(connection: Connection, client: int) -> int:
    """How many writes of a client are there, having seen that they are there whole and once."""
    who = owner(client)
    counters = {principal: int(value) for principal, _, value in records.facts(connection, "usage")}
    last = counters.get(who, -1)
    chats = {row.name: row for row in of(connection, who)}
    if last < 0:
        assert chats == {}
        return 0
    assert texts(connection, chats.pop("chat").id, who) == [
        f"{number} {half}" for number in range(last + 1) for half in ("first", "second")
    ]
    assert {name: row.length for name, row in chats.items()} == {f"fork{number}": 2 * number + 2 for number in range(3, last + 1, 7)}
    file = filestore.find(connection, who, who, "count")
    assert (file.version, filestore.read(connection, file)) == (last + 1, str(last).encode() * (last % 50))
    assert mail.count(connection, f"queue/c{client}") == min(last + 1, 5)
    assert records.reply_to(connection, request(client, last), NOW) == f"{last}: {2 * last + 2} messages, version {last + 1}".encode()
    assert records.reply_to(connection, request(client, last + 1), NOW) is None
    return last + 1
