"""Programs that live on while their kernel dies: they keep their agents and go on."""

import asyncio
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from benchmarks.kernel import RunningKernel, booted
from kernos.agents import Agent, Toolbox, tool
from kernos.syscalls import AsyncKernel, Context, Kernel
from kernos.syscalls.errors import KernelRestartedError
from kernos.syscalls.message import Receive, Send
from kernos.syscalls.model import Generate, Message
from kernos.syscalls.process import ListProcesses, Nice, Wait
from kernos.syscalls.system import GetStatus, Ping
from kernos.syscalls.tool import ListTools

MODEL = "smollm2-135m"


def in_flight(kernel: Kernel) -> int:
    return kernel.call(GetStatus(), urgent=True).in_flight


def test_a_program_keeps_its_agents_and_its_mail(models: object, home: str) -> None:
    with booted(home=home) as running:
        kernel = running.connect()
        agent, other = kernel.spawn("kept", user="user:anna", priority="interactive"), kernel.spawn("other")
        kernel.call(Nice(pid=agent.pid, priority="batch", weight=2.0))
        box = f"agent/{agent.pid}"
        for text in ("one", "two"):
            other.call(Send(to=box, text=text))
        assert agent.call(Receive(mailbox=box)).text == "one"
        before = {row.pid: (row.name, row.user, row.priority, row.weight) for row in kernel.call(ListProcesses()).processes}
        running.kill()
    with booted(home=home) as running, kernel:
        assert agent.call(Receive(mailbox=box)).text == "two"
        rows = kernel.call(ListProcesses()).processes
        assert {row.pid: (row.name, row.user, row.priority, row.weight) for row in rows} == before
        agent.exit(3)
        assert kernel.call(Wait(pid=agent.pid)).code == 3
        assert kernel.spawn("new").pid > other.pid


def test_calls_in_flight_go_on_with_the_next_kernel(models: object, home: str) -> None:
    with ThreadPoolExecutor() as pool:
        with booted(home=home) as running, running.connect() as kernel:

            def read() -> str:
                with running.connect() as connection:
                    reader = connection.spawn("reader")
                    return reader.call(Receive(mailbox="queue/late"), timeout=60).text

            reading = pool.submit(read)
            while not in_flight(kernel):
                assert not reading.done()
            running.kill()
        with booted(home=home) as running, running.connect() as kernel:
            kernel.spawn("writer").call(Send(to="queue/late", text="at last"))
            assert reading.result(60) == "at last"


def test_a_generation_that_was_cut_says_so_and_leaves_nothing_half_written(models: object, home: str) -> None:
    with booted("--dtype", "float32", home=home) as running:
        running.load_models()
        kernel = running.connect()
        agent = kernel.spawn("teller")
        chat = Context(agent, "story")
        call = Generate(model=MODEL, context=chat.id, messages=[Message("user", "Tell me a story.")], max_tokens=48, ignore_eos=True)
        stream = agent.stream(call)
        for _ in range(5):
            next(stream)
        running.kill()
    with booted("--dtype", "float32", home=home) as running, kernel:
        with pytest.raises(KernelRestartedError):
            next(stream)
        assert len(chat) == 0
        running.load_models()
        again = agent.stream(call, key=stream.key).result
        assert [message.text for message in chat] == ["Tell me a story.", again.text]
        assert agent.call(call, key=stream.key) == again
        assert len(chat) == 2


def test_agents_whose_program_died_meanwhile_are_told_from_those_that_live(models: object, home: str) -> None:
    code = "from kernos.syscalls import Kernel; print(Kernel().spawn('orphan').pid, flush=True); input()"
    with booted(home=home) as running:
        kernel = running.connect()
        mine = kernel.spawn("mine")
        environment = {**os.environ, "KERNOS_HOME": home}
        program = subprocess.Popen([sys.executable, "-c", code], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert program.stdout is not None
        orphan = int(program.stdout.readline())
        running.kill()
        program.communicate("")
    with booted(home=home) as running, kernel:
        assert {row.pid for row in kernel.call(ListProcesses()).processes} == {mine.pid, orphan}
        kernel.act_as(orphan).call(Ping())  # its successor: of the same principal
        mine.call(Ping())


def test_tools_are_served_again_and_async_calls_go_on(models: object, home: str) -> None:
    @tool
    def double(number: int) -> int:
        """Twice a number."""
        return 2 * number

    async def live(running: RunningKernel, later: ExitStack) -> None:
        async with (
            AsyncKernel(running.key, where=running.where) as kernel,
            Agent.spawn(kernel, "host") as host,
            Toolbox(host.kernel, [double]),
            Agent.spawn(kernel, "user") as agent,
        ):
            assert await agent.use(double, {"number": 4}) == "8"
            running.kill()
            pings = [asyncio.create_task(agent.call(Ping(payload=b"x"))) for _ in range(10)]
            await asyncio.to_thread(later.enter_context, booted(home=home))
            assert [pong.payload for pong in await asyncio.gather(*pings)] == [b"x"] * 10
            while not (await kernel.call(ListTools())).tools:
                await asyncio.sleep(0.01)
            assert await agent.use(double, {"number": 5}) == "10"

    with booted(home=home) as running, ExitStack() as later:  # the second kernel stays until the agents have left
        asyncio.run(live(running, later))
