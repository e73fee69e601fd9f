"""What happens when processes die: nothing that was under way is lost, and nobody else notices."""

import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks.kernel import RunningKernel, booted
from kernos.syscalls import Kernel
from kernos.syscalls.errors import KernelRestartedError, ModelUnavailableError, UnreachableError
from kernos.syscalls.model import Generate, Message
from kernos.syscalls.process import ListProcesses, Wait
from kernos.syscalls.system import Device, GetStatus, StopKernel

MODEL = "smollm2-135m"
STORY = Generate(model=MODEL, messages=[Message("user", "Tell me a story about a lighthouse.")], max_tokens=96, ignore_eos=True)


def device(kernel: Kernel, name: str = "decoder") -> Device:
    return next(device for device in kernel.call(GetStatus(), urgent=True).devices if device.device == name)


def wait_for_end(os_pid: int) -> None:
    """Until a process is gone; a pidfd is readable then."""
    try:
        fd = os.pidfd_open(os_pid)
    except ProcessLookupError:
        return
    assert select.select([fd], [], [], 30)[0], f"process {os_pid} is still there"
    os.close(fd)


def test_a_killed_device_server_changes_no_token(own_kernel: RunningKernel) -> None:
    own_kernel.load_models()
    with own_kernel.connect() as kernel:
        agent = kernel.spawn("teller")
        undisturbed = agent.call(STORY)
        stream = agent.stream(STORY)
        for _ in range(20):
            next(stream)
        before = device(kernel)
        os.kill(before.os_pid, signal.SIGKILL)
        resumed = stream.result
        after = device(kernel)
    assert resumed.resumed == 1
    assert resumed.tokens == undisturbed.tokens
    assert resumed.text == undisturbed.text
    assert after.os_pid != before.os_pid
    assert after.restarts == before.restarts + 1


def test_a_device_server_that_keeps_dying_is_given_up_and_can_be_revived(own_kernel: RunningKernel) -> None:
    with own_kernel.connect() as kernel:
        agent = kernel.spawn("unlucky")
        stream = agent.stream(STORY)
        while (now := device(kernel)).state != "failed":
            with suppress(ProcessLookupError):  # reaped, and the kernel has not told yet
                os.kill(now.os_pid, signal.SIGKILL)
            wait_for_end(now.os_pid)
        with pytest.raises(ModelUnavailableError, match="died 4 times"):
            _ = stream.result
        with pytest.raises(ModelUnavailableError):
            agent.call(STORY)
        own_kernel.load_models()
        assert len(agent.call(STORY).tokens) == 96


def test_agents_end_with_their_program(kernel: RunningKernel) -> None:
    code = "from kernos.syscalls import Kernel; import os; print(Kernel().spawn('orphan').pid, flush=True); os._exit(9)"
    environment = {**os.environ, "KERNOS_HOME": str(kernel.where.config.parent)}
    program = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False)
    pid = int(program.stdout)
    with kernel.connect() as connection:
        ended = connection.call(Wait(pid=pid), timeout=10)
        assert (ended.code, ended.reason) == (-1, "its program has ended")
        assert all(row.pid != pid for row in connection.call(ListProcesses(scope="all")).processes)


def test_device_servers_die_with_their_kernel_and_the_state_is_free_again(models: Path) -> None:
    with booted() as running:
        with running.connect() as kernel:
            devices = [device.os_pid for device in kernel.call(GetStatus()).devices]
            os.kill(running.os_pid, signal.SIGKILL)
            with pytest.raises((KernelRestartedError, UnreachableError)):  # as the loss is noticed during the call or before it
                kernel.call(GetStatus())
        for os_pid in devices:
            wait_for_end(os_pid)


def test_a_clean_stop_leaves_no_process(models: Path) -> None:
    with booted() as running:
        with running.connect() as kernel:
            devices = [device.os_pid for device in kernel.call(GetStatus()).devices]
            kernel.call(StopKernel(), urgent=True)
        assert running.process.wait(20) == 0
        for os_pid in devices:
            wait_for_end(os_pid)
        assert not running.where.connection.exists()


def test_a_second_kernel_on_the_same_state_refuses(kernel: RunningKernel) -> None:
    environment = {**os.environ, "KERNOS_HOME": str(kernel.where.config.parent)}
    second = subprocess.run(
        [sys.executable, "-m", "kernos.kernel"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert second.returncode == 1
    assert "running" in second.stderr
    with kernel.connect() as connection:
        assert connection.call(GetStatus()).state == "serving"
