"""Who is who, asked by real processes over real sockets: what is forged, stolen, revoked or replayed is not accepted."""

import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from time import monotonic

import msgspec
import pytest
import zmq
from click.testing import CliRunner, Result

from benchmarks.kernel import RunningKernel
from kernos.apps.cli.__main__ import main
from kernos.syscalls import Kernel, Key
from kernos.syscalls.audit import ReadAudit
from kernos.syscalls.errors import DeniedError, KernosError, NotYoursError, RefusedError
from kernos.syscalls.keys import key_file, make_key, read_key
from kernos.syscalls.message import Receive
from kernos.syscalls.places import read_connection
from kernos.syscalls.policy import ListPrincipals, Revoke
from kernos.syscalls.process import LendKey, ListProcesses, Right, Spawn
from kernos.syscalls.requests import Answer, Numbers, Request, make_request, outcome, read_answer
from kernos.syscalls.store import PutFile
from kernos.syscalls.system import Ping
from kernos.syscalls.transport import Dealer
from kernos.syscalls.wire import Kind, decode_error, decode_reply_header

IN_TIME_S = 10.0
"""A refusal that takes longer is a hang; it takes milliseconds."""


@pytest.fixture
def app(kernel: RunningKernel) -> Iterator[Kernel]:
    with kernel.connect(kernel.enroll("app:shop")) as connection:
        yield connection


def agents(kernel: RunningKernel, principal: str) -> list[str]:
    with kernel.connect() as admin:
        rows = admin.call(ListProcesses(scope="all")).processes
    return [row.name for row in rows if row.principal == principal and row.state != "exited"]


# --- revoked and replaced keys -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["revoked", "replaced"])
def test_a_key_that_ends_takes_its_live_connections_calls_and_agents_with_it(kernel: RunningKernel, how: str) -> None:
    key, began = kernel.enroll("app:doomed"), monotonic()
    with kernel.connect(key) as doomed, kernel.connect(kernel.enroll("app:bystander")) as bystander:
        agent, other = doomed.spawn("agent"), bystander.spawn("other")
        waiting = make_request(Receive(mailbox=f"agent/{agent.pid}"), Numbers().take(), agent.pid, False, None, None)
        doomed._link._lines[False].send(waiting)
        assert agent.call(Ping(payload=b"alive")).payload == b"alive"
        if how == "revoked":
            with kernel.connect() as admin:
                admin.call(Revoke(principal="app:doomed"))
        else:
            kernel.enroll("app:doomed")
        with pytest.raises(RefusedError, match=how):
            outcome(waiting.row, doomed._link._lines[False].last(waiting, monotonic() + IN_TIME_S))
        for call in (Ping(), Spawn(name="again"), PutFile(path="x", data=b"")):
            with pytest.raises(RefusedError, match="does not stand for app:doomed any more"):
                agent.call(call)
        with pytest.raises(RefusedError):
            doomed.call(Ping(), urgent=True)
        assert agents(kernel, "app:doomed") == []
        assert other.call(Ping(payload=b"well")).payload == b"well"
    with pytest.raises(RefusedError):
        kernel.connect(key)
    assert monotonic() - began < IN_TIME_S


def test_nobody_revokes_themselves_and_apps_revoke_nobody(kernel: RunningKernel, app: Kernel) -> None:
    with kernel.connect() as admin, pytest.raises(KernosError, match="lock itself out"):
        admin.call(Revoke(principal=admin.principal))
    for call in (Revoke(principal=kernel.key.principal), ListPrincipals(), LendKey(app="shop", os_pid=os.getpid(), public_key="x" * 40)):
        with pytest.raises(DeniedError):
            app.call(call)


# --- what is not one's own ---------------------------------------------------------------------------------------------------------


def raw(kernel: RunningKernel, key: Key, routing_id: bytes) -> "zmq.Socket[bytes]":
    """A socket with a routing id of its own choice."""
    connection = read_connection(kernel.where)
    dealer: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    for option, value in (
        (zmq.LINGER, 0),
        (zmq.RCVTIMEO, int(IN_TIME_S * 1_000)),
        (zmq.ROUTING_ID, routing_id),
        (zmq.CURVE_SERVERKEY, connection.public_key.encode()),
        (zmq.CURVE_PUBLICKEY, key.public.encode()),
        (zmq.CURVE_SECRETKEY, key.secret.encode()),
    ):
        dealer.setsockopt(option, value)
    dealer.connect(connection.calls)
    return dealer


def forge(kernel: RunningKernel, thief: Key, routing_id: bytes, request: Request, wait_ms: int) -> Answer | None:
    """What the kernel answers to a call under a routing id that was another's; None: nothing."""
    forged = raw(kernel, thief, routing_id)
    try:
        forged.send_multipart(request.frames)
        return read_answer(forged.recv_multipart()) if forged.poll(wait_ms) else None
    finally:
        forged.close()


def test_a_routing_id_taken_over_from_another_gives_nothing(kernel: RunningKernel) -> None:
    owner, thief, numbers, until = kernel.enroll("app:owner"), kernel.enroll("app:thief"), Numbers(), monotonic() + IN_TIME_S
    victim = raw(kernel, owner, b"the-same")
    spawn = make_request(Spawn(name="victim"), numbers.take(), 0, False, None, None)
    victim.send_multipart(spawn.frames)
    pid = outcome(spawn.row, read_answer(victim.recv_multipart())).pid
    request = make_request(PutFile(path="x", data=b""), numbers.take(), pid, False, None, None)
    assert forge(kernel, thief, b"the-same", request, 300) is None, "the id of a connection that lives cannot be had"
    victim.send_multipart(request.frames)
    assert outcome(request.row, read_answer(victim.recv_multipart())).path == "x"
    victim.close()
    answer = None
    while answer is None and monotonic() < until:  # until the kernel has noticed that the id is free
        answer = forge(kernel, thief, b"the-same", request, 500)
    assert answer is not None
    with pytest.raises(NotYoursError):
        outcome(request.row, answer)


def test_a_message_of_50_000_frames_is_refused_and_disturbs_nobody(kernel: RunningKernel, app: Kernel) -> None:
    connection = read_connection(kernel.where)
    attacker = Dealer(connection.calls, connection.public_key, kernel.enroll("app:fuzz"))
    attacker.socket.setsockopt(zmq.RCVTIMEO, int(IN_TIME_S * 1_000))
    attacker.socket.send_multipart([b"x" * 100] * 50_000)
    head, body = attacker.receive()
    assert (decode_reply_header(head).kind, decode_error(body).code) == (Kind.ERROR, "bad_request")
    assert app.call(Ping(payload=b"well"), timeout=5).payload == b"well"
    attacker.close()


def test_a_call_that_is_made_again_with_its_key_is_applied_once(kernel: RunningKernel, app: Kernel) -> None:
    frames = make_request(Spawn(name="once"), Numbers().take(), 0, False, None, "same").frames
    for _ in range(5):
        app._link._lines[False].dealer.send(frames)
    app.spawn("after")  # answered after what was asked before
    assert agents(kernel, "app:shop").count("once") == 1


def dial(kernel: RunningKernel) -> socket.socket:
    line = socket.socket(socket.AF_UNIX)
    line.settimeout(IN_TIME_S)
    line.connect(read_connection(kernel.where).calls.removeprefix("ipc://"))
    return line


def relay(listener: socket.socket, kernel: socket.socket, heard: bytearray) -> None:
    """Stand between a client and the kernel until the client hangs up, and keep what it sent."""
    client, _ = listener.accept()
    with client:
        while True:
            for source in select.select([client, kernel], [], [])[0]:
                data = source.recv(65_536)
                if not data:
                    return
                (kernel if source is client else client).sendall(data)
                heard.extend(data if source is client else b"")


def test_a_recorded_session_that_is_played_again_is_not_accepted(kernel: RunningKernel, tmp_path_factory: pytest.TempPathFactory) -> None:
    key, path, heard = kernel.enroll("app:tapped"), tmp_path_factory.mktemp("t") / "s", bytearray()
    with socket.socket(socket.AF_UNIX) as listener, dial(kernel) as line:
        listener.bind(str(path))
        listener.listen()
        tap = threading.Thread(target=relay, args=(listener, line, heard))
        tap.start()
        dealer = Dealer(f"ipc://{path}", read_connection(kernel.where).public_key, key)
        request = make_request(Spawn(name="once"), Numbers().take(), 0, False, None, None)
        dealer.send(request.frames)
        outcome(request.row, read_answer(dealer.receive()))
        dealer.close()
        tap.join()
    with dial(kernel) as again:
        again.sendall(heard)
        while again.recv(65_536):
            pass  # until the kernel hangs up
    assert agents(kernel, "app:tapped") == ["once"]


# --- processes ---------------------------------------------------------------------------------------------------------------------

CHILD = """
import sys
from kernos.syscalls import Kernel
from kernos.syscalls.errors import RefusedError
try:
    with Kernel() as kernel:
        print(kernel.principal, kernel.spawn("child").pid, flush=True)
        sys.stdin.read()
except RefusedError as error:
    print("refused:", error)
"""


def start(kernel: RunningKernel, key_fd: int) -> "subprocess.Popen[str]":
    environment = os.environ | {"KERNOS_HOME": str(kernel.where.config.parent), "KERNOS_KEY_FD": str(key_fd)}
    return subprocess.Popen(
        [sys.executable, "-c", CHILD],
        env=environment,
        pass_fds=(key_fd,),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def passed(key: Key) -> int:
    """A descriptor from which a key can be read, now or later."""
    reader, writer = os.pipe()
    os.write(writer, msgspec.json.encode(key))
    os.close(writer)
    return reader


def test_a_lent_key_counts_for_its_process_alone_and_ends_with_it(kernel: RunningKernel) -> None:
    key = make_key("app:customer_service")
    reader, writer = os.pipe()
    with start(kernel, reader) as child, kernel.connect() as admin:
        admin.call(LendKey(app="customer_service", os_pid=child.pid, public_key=key.public))
        with pytest.raises(RefusedError):
            kernel.connect(key)
        os.write(writer, msgspec.json.encode(key))
        os.close(writer)
        assert child.stdout is not None
        assert child.stdout.readline().startswith("app:customer_service ")
        denied = admin.call(ReadAudit(name="connect", limit=1)).entries[0]
        assert "lent to another process" in denied.rule
        child.communicate()
    os.close(reader)
    again = passed(key)
    with start(kernel, again) as another:
        assert another.communicate()[0].startswith("refused:")
    os.close(again)


def test_a_key_is_lent_to_ones_own_children_alone(kernel: RunningKernel) -> None:
    with kernel.connect() as admin:
        for os_pid in (1, os.getpid(), os.getppid(), 2**22):
            with pytest.raises(NotYoursError):
                admin.call(LendKey(app="x", os_pid=os_pid, public_key=make_key("app:x").public))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can start a process of another user")
def test_another_unix_user_is_refused_in_time_even_with_a_key(own_kernel: RunningKernel) -> None:
    """With every folder and socket opened to the world, as it should not be."""
    key = own_kernel.enroll("app:shop")
    home = own_kernel.where.config.parent
    for folder in (home, own_kernel.where.runtime):
        folder.chmod(0o755)
    for path in own_kernel.where.runtime.iterdir():
        path.chmod(0o777)
    # It takes the other user's place when all is loaded, as that one may not read this Python; and it leaves out the client's own check.
    attack = CHILD.replace("try:", "import os; os.setuid(65_534); os.getuid = lambda: 0\ntry:", 1)
    began, reader = monotonic(), passed(key)
    environment = os.environ | {"KERNOS_HOME": str(home), "KERNOS_KEY_FD": str(reader)}
    command = [sys.executable, "-c", attack]
    done = subprocess.run(command, env=environment, pass_fds=(reader,), capture_output=True, text=True, timeout=60, check=False)
    os.close(reader)
    assert done.stdout.startswith("refused:"), done.stderr
    assert monotonic() - began < IN_TIME_S
    with own_kernel.connect() as admin:
        assert admin.call(ReadAudit(name="connect", limit=1)).entries[0].rule == "another Unix user"
    own_kernel.connect(key).close()


# --- delegated rights --------------------------------------------------------------------------------------------------------------


def test_a_child_may_do_what_its_parent_and_its_own_rights_allow(app: Kernel) -> None:
    parent = app.spawn("parent", rights=[Right("store/**", "*"), Right("process/*", "spawn"), Right("priority/*", "use")])
    child = parent.spawn("child", rights=[Right("store/papers/*", "write"), Right("message/**", "*")])
    parent.call(PutFile(path="other", data=b""))
    child.call(PutFile(path="papers/a", data=b""))
    for call in (PutFile(path="other", data=b""), Receive(mailbox=f"agent/{child.pid}")):
        with pytest.raises(DeniedError, match="fewer rights than its app"):
            child.call(call)
    child.exit()


# --- the command -------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def shell(own_kernel: RunningKernel, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("KERNOS_HOME", str(own_kernel.where.config.parent))
    return lambda *args: CliRunner().invoke(main, ["principal", *args])


def test_the_command(own_kernel: RunningKernel, shell: Callable[..., Result]) -> None:
    file = key_file(own_kernel.where, "user:anna")
    assert shell("add", "user:anna").exit_code == 0
    first = read_key(file)
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert "is known already" in shell("add", "user:anna").output
    assert first.public in shell("list").output
    with own_kernel.connect(first) as anna:
        assert shell("rotate", "user:anna").exit_code == 0
        with pytest.raises(RefusedError):
            anna.call(Ping())
    second = read_key(file)
    assert second != first
    own_kernel.connect(second).close()
    assert shell("revoke", "user:anna").exit_code == 0
    assert not file.exists()
    assert "user:anna" not in shell("list").output
    with pytest.raises(RefusedError):
        own_kernel.connect(second)
    assert "not known" in shell("rotate", "user:anna").output
    assert [path for path in file.parent.iterdir() if path.suffix != ".key"] == []
    administrator = own_kernel.key.principal
    assert shell("rotate", administrator).exit_code == 0, "one may rotate one's own key"
    assert shell("list").exit_code == 0
