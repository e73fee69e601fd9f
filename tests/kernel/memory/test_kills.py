"""`kill -9` at random points under eight writing clients: nothing acknowledged is lost, nothing is half there, nothing is applied twice."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from kernos.kernel.memory import filestore, mail, records
from kernos.kernel.memory.connection import Connection
from kernos.kernel.memory.transcripts import of
from tests.kernel.memory.storage import NOW, Storage, texts
from tests.kernel.memory.victim import CLIENTS, owner, request

ROOT = Path(__file__).parents[3]
KILLS = 300 if os.environ.get("KERNOS_PROVE") else 8
KILLS_OF_ONE = 20
"""How often one and the same database is killed: reading all of it after each time takes longer and longer."""


def test_kills_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    chance = random.Random(9)
    for first in range(0, KILLS, KILLS_OF_ONE):
        _kill_again_and_again(tmp_path / f"state{first}", min(KILLS_OF_ONE, KILLS - first), chance)


def _kill_again_and_again(folder: Path, times: int, chance: random.Random) -> None:
    acknowledged, begun = [-1] * CLIENTS, [-1] * CLIENTS
    for _ in range(times):
        for kind, client, number in _killed(folder, [number + 1 for number in acknowledged], chance):
            if kind == "a":
                assert number == acknowledged[client] + 1
                acknowledged[client] = number
            else:
                begun[client] = number
        _check(folder, acknowledged, begun)
    assert min(acknowledged) > 0


def _killed(folder: Path, first: list[int], chance: random.Random) -> list[tuple[str, int, int]]:
    """Kill the program while it starts, or after it has acknowledged so many writes; what it told."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "src")))}
    command = [sys.executable, "-m", "tests.kernel.memory.victim", str(folder), *map(str, first)]
    told = []
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdout is not None
        enough = chance.choice((-1, 0, 1, 20, 200, 1_000))
        if enough < 0:
            time.sleep(0.05 + chance.random() * 0.3)  # somewhere in its start
        else:
            for line in victim.stdout:
                told.append(line)
                if line.startswith("a") and (enough := enough - 1) < 0:
                    break
        victim.send_signal(signal.SIGKILL)
        told += victim.stdout.readlines()
    assert victim.returncode == -signal.SIGKILL
    return [(kind, int(client), int(number)) for kind, client, number in map(str.split, told)]


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
