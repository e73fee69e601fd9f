"""The kernel as a server: start-up, slow readers, full queues, signals, mail and tools across processes."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import zmq

from benchmarks.kernel import RunningKernel
from kernos.syscalls import Call, Kernel
from kernos.syscalls.errors import AgentKilledError, CancelledError, ToolError
from kernos.syscalls.message import Receive, Send
from kernos.syscalls.model import Generate, Message
from kernos.syscalls.places import read_connection
from kernos.syscalls.process import Kill, ListProcesses, SendSignal, Wait
from kernos.syscalls.requests import Numbers, Request, make_request, outcome, read_answer
from kernos.syscalls.system import GetStatus, Ping
from kernos.syscalls.tool import AnswerTool, CallTool, ListTools, ServeTool
from kernos.syscalls.transport import HANDSHAKE_S, Dealer
from kernos.syscalls.wire import Kind

MODEL = "smollm2-135m"
LONG = Generate(model=MODEL, messages=[Message("user", "Count.")], max_tokens=2_000, ignore_eos=True)


def test_the_first_call_is_answered_while_models_load(own_kernel: RunningKernel) -> None:
    with own_kernel.connect() as kernel:
        status = kernel.call(GetStatus())
    assert {device.state for device in status.devices} == {"starting"}, "the call waited for a device"


def test_the_kernel_process_has_no_torch(kernel: RunningKernel) -> None:
    mapped = Path(f"/proc/{kernel.os_pid}/maps").read_text()
    assert "libzmq" in mapped
    # faiss may be there, once somebody has recalled something; that a kernel starts without it is a test of its own.
    assert not [name for name in ("libtorch", "transformers") if name in mapped]


def test_a_client_that_does_not_read_is_cut_off_and_told_so(kernel: RunningKernel) -> None:
    connection = kernel.connect()
    endpoint = read_connection(kernel.where)
    dealer = Dealer(endpoint.calls, endpoint.public_key, kernel.key)
    dealer.shake_hands(HANDSHAKE_S)
    numbers = Numbers()
    # A closed window: small buffers at this end, so that the kernel's own queue fills and not the operating system's.
    payload = b"x" * 60_000
    sent = 0
    while "cut off" not in kernel.log():
        for _ in range(50):
            dealer.socket.send_multipart(make_request(Ping(payload=payload), numbers.take(), 0, False, None, None).frames)
            sent += 1
        assert connection.call(Ping(payload=b"me")).payload == b"me", "another client noticed"
        assert sent < 20_000, "the client was never cut off"
    dealer.socket.setsockopt(zmq.RCVTIMEO, 20_000)
    answer = read_answer(dealer.socket.recv_multipart())
    while answer.kind != Kind.CUT_OFF:
        answer = read_answer(dealer.socket.recv_multipart())
    dealer.socket.send_multipart(make_request(Ping(payload=b"again"), numbers.take(), 0, False, None, None).frames)
    assert read_answer(dealer.socket.recv_multipart()).kind == Kind.REPLY
    dealer.close()
    connection.close()


def test_control_is_answered_while_a_flood_of_work_waits(kernel: RunningKernel) -> None:
    flood = """
import sys, zmq
from kernos.syscalls import Call, Kernel
from kernos.syscalls.system import Ping
from kernos.syscalls.requests import Numbers, make_request
kernel = Kernel()
socket, numbers = kernel._link._lines[False].dealer.socket, Numbers()
print("ready", flush=True)
sys.stdin.readline()
for _ in range(30_000):
    socket.send_multipart(make_request(Ping(), numbers.take(), 0, False, None, None).frames)
    while socket.poll(0):
        socket.recv_multipart()
"""
    environment = {**os.environ, "KERNOS_HOME": str(kernel.where.config.parent)}
    program = subprocess.Popen([sys.executable, "-c", flood], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert program.stdout and program.stdin
    with kernel.connect() as connection:
        connection.call(GetStatus(), urgent=True)
        program.stdout.readline()
        program.stdin.write("\n")
        program.stdin.flush()
        answered = 0
        while program.poll() is None:
            assert connection.call(GetStatus(), urgent=True).state == "serving"
            answered += 1
    program.communicate()
    assert answered > 10


def test_signals_stop_continue_and_interrupt_a_turn(kernel: RunningKernel) -> None:
    with kernel.connect() as connection:
        agent = connection.spawn("worker")
        stream = agent.stream(LONG)
        next(stream)
        connection.call(SendSignal(pid=agent.pid, signal="stop"), urgent=True)
        assert state(connection, agent.pid) == "stopped"
        connection.call(SendSignal(pid=agent.pid, signal="continue"), urgent=True)
        for _ in range(5):
            next(stream)
        assert state(connection, agent.pid) == "running"
        connection.call(SendSignal(pid=agent.pid, signal="interrupt"), urgent=True)
        with pytest.raises(CancelledError, match="interrupted"):
            _ = stream.result
        assert state(connection, agent.pid) == "idle"


def test_a_killed_agent_is_collected(kernel: RunningKernel) -> None:
    with kernel.connect() as connection:
        agent = connection.spawn("doomed")
        stream = agent.stream(LONG)
        next(stream)
        connection.call(Kill(pid=agent.pid), urgent=True)
        with pytest.raises(AgentKilledError):
            _ = stream.result
        assert connection.call(Wait(pid=agent.pid)).code == -9


def state(kernel: Kernel, pid: int) -> str:
    return next(row.state for row in kernel.call(ListProcesses(scope="all")).processes if row.pid == pid)


def test_mail_waits_for_its_reader_and_readers_for_mail(kernel: RunningKernel) -> None:
    with kernel.connect() as connection, kernel.connect() as other:
        sender, reader = connection.spawn("sender", user="user:anna"), other.spawn("reader")
        sender.call(Send(to=f"agent/{reader.pid}", text="first"))
        mail = reader.call(Receive(mailbox=f"agent/{reader.pid}"))
        assert (mail.text, mail.sender, mail.sender_pid, mail.user) == ("first", kernel.key.principal, sender.pid, "user:anna")
        waiting = threading.Thread(target=lambda: _send_from_a_thread(kernel, reader.pid))
        waiting.start()
        assert reader.call(Receive(mailbox=f"agent/{reader.pid}"), timeout=20).text == "second"
        waiting.join()


def _send_from_a_thread(kernel: RunningKernel, pid: int) -> None:
    with kernel.connect() as connection:
        connection.spawn("late").call(Send(to=f"agent/{pid}", text="second"))


def test_tools_are_routed_and_end_with_their_server(kernel: RunningKernel) -> None:
    with kernel.connect() as serving, kernel.connect() as calling:
        server, caller = serving.spawn("server"), calling.spawn("caller", user="user:anna")
        stream = server.stream(ServeTool(tool="tests/echo", description="Says it again.", schema="{}"))
        while not calling.call(ListTools(prefix="tests/")).tools:
            pass
        request = send(caller, CallTool(tool="tests/echo", arguments='{"text":"hi"}'))
        invocation = next(stream)
        assert (invocation.user, invocation.pid, invocation.arguments) == ("user:anna", caller.pid, '{"text":"hi"}')
        server.call(AnswerTool(invocation=invocation.invocation, result='"hi"'))
        answer = calling._link._lines[False].next(request, monotonic() + 20)
        assert answer.kind == Kind.REPLY
        second = send(caller, CallTool(tool="tests/echo"))
        next(stream)
        stream.close()
        with pytest.raises(ToolError, match="went away"):
            outcome(second.row, calling._link._lines[False].next(second, monotonic() + 20))


def send(kernel: Kernel, call: Call[Any]) -> Request:
    """Make a call without waiting for it, which the blocking client has no word for."""
    request = make_request(call, kernel._link.numbers.take(), kernel.pid, False, None, None)
    kernel._link._lines[False].send(request)
    return request
