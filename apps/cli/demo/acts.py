"""The acts of the demo, in order. Each says what it shows in its docstring, and fails where that does not come true."""

import os
import re
import select
import signal
import subprocess
from collections.abc import Callable
from time import monotonic
from typing import Final

import click

from kernos.syscalls import Kernel, places
from kernos.syscalls.errors import DeniedError
from kernos.syscalls.keys import make_key
from kernos.syscalls.model import Generate, Generation, ListModels, LoadModel, Message
from kernos.syscalls.policy import Enroll
from kernos.syscalls.process import ListProcesses
from kernos.syscalls.system import GetStatus

from .stage import Stage

_LOAD_S: Final = 180.0
"""Time for a model to be ready; it takes a few seconds on an idle machine."""

_ANSWER_S: Final = 600.0
"""Time for an answer, with a device server started again in its middle."""

_KILL_AFTER: Final = 12
"""Tokens of the answer that have come when its device server is killed."""

_AT_WORK: Final = 8
"""Tokens that an agent has generated when it counts as being at work."""

_ENTRIES: Final = re.compile(r"\[[a-z]+-\d+(, [a-z]+-\d+)*\]$", re.MULTILINE)
"""How the app names the entries behind an answer: [returns-01, refunds-02]."""

_QUESTION: Final = "Tell me in a few sentences how a lighthouse keeper spends a stormy night."


def boot(stage: Stage) -> None:
    """A kernel starts in the background, and loads two models."""
    stage.show("serve", "--detach", "--dtype", "float32")
    with Kernel() as kernel:
        found = kernel.call(ListModels())
        stage.check(bool(found.decoder and found.encoder), f"{places().models} must hold a decoder and an encoder; see `kernos pull`.")
        for name in (found.decoder, found.encoder):
            model = kernel.call(LoadModel(model=name), timeout=_LOAD_S)
            stage.check(model.state == "ready", f"{name} is {model.state}: {model.reason}")
    stage.show("models")


def serve_customers(stage: Stage) -> None:
    """An app answers several customers at once, and names the knowledge it rests on; `kernos ps` shows their agents at work."""
    click.secho("$ kernos run customer_service --demo", fg="cyan")
    with subprocess.Popen(stage.command("run", "customer_service", "--demo"), stdout=subprocess.PIPE) as app, Kernel() as kernel:  # noqa: S603
        try:
            table, said = _watch(stage, app, kernel)
        except BaseException:
            app.terminate()  # leaving the block waits for it
            raise
    stage.check(app.returncode == 0, f"The app ended with code {app.returncode}.")
    stage.check(bool(table), f"At no time had two agents of the app generated {_AT_WORK} tokens each.")
    stage.check(len(_ENTRIES.findall(said)) >= 2, "Fewer than two answers named the entries of the knowledge base that they rest on.")
    click.secho("$ kernos ps --all        (taken while they were talking)", fg="cyan")
    click.echo(table, nl=False)


def _watch(stage: Stage, app: "subprocess.Popen[bytes]", kernel: Kernel) -> tuple[str, str]:
    """Pass on what the app prints until it ends; the process table at a moment when two agents were at work, and all that was printed."""
    assert app.stdout is not None  # noqa: S101
    table, said, ended = "", b"", False
    while not ended:
        if select.select([app.stdout], [], [], 0.2)[0]:
            text = os.read(app.stdout.fileno(), 65_536)
            click.echo(text, nl=False)
            said, ended = said + text, not text
        if not table and _two_at_work(kernel):
            table = stage.run("ps", "--all")
    return table, said.decode(errors="replace")


def _two_at_work(kernel: Kernel) -> bool:
    rows = kernel.call(ListProcesses(scope="all"), urgent=True).processes
    return sum(row.principal == "app:customer_service" and row.generated_tokens >= _AT_WORK for row in rows) >= 2


def refuse_stranger(stage: Stage) -> None:
    """A stranger with a valid key asks for a model, and the policy refuses."""
    stranger = make_key("app:stranger")
    with Kernel() as admin:
        admin.call(Enroll(principal=stranger.principal, public_key=stranger.public))
        model = admin.call(ListModels()).decoder
    with Kernel(stranger) as kernel:
        try:
            kernel.spawn("stranger").call(Generate(model=model, messages=[Message("user", "Let me in.")], max_tokens=8))
        except DeniedError as error:
            stage.say(f"DeniedError: {error.message}")
            for name in ("subject", "object", "action", "policy"):
                stage.check(name in error.details, f"The error does not name its {name}.")
                stage.say(f"  {name:<8} {error.details[name]}")
            return
    stage.check(False, "app:stranger was served, though no rule of the policy allows it.")


def survive_crash(stage: Stage) -> None:
    """A device server is killed in the middle of an answer, and the answer goes on to its end."""
    with Kernel() as kernel:
        agent = kernel.spawn("storyteller")
        model = kernel.call(ListModels()).decoder
        request = Generate(model=model, messages=[Message("user", _QUESTION)], max_tokens=64)
        undisturbed = agent.call(request, timeout=_ANSWER_S)
        disturbed = _answer_with_crash(stage, agent, request)
        agent.exit()
    stage.check(disturbed.resumed > 0, "The answer came to its end without having been carried on: the crash missed it.")
    stage.say(_compared(undisturbed.tokens, disturbed.tokens))


def _answer_with_crash(stage: Stage, agent: Kernel, request: Generate) -> Generation:
    victim = _device_of(stage, agent, request.model)
    tokens, killed, last, pause = 0, False, monotonic(), 0.0
    with agent.stream(request, timeout=_ANSWER_S) as answer:
        for chunk in answer:
            last, pause = monotonic(), max(pause, monotonic() - last)
            tokens += chunk.tokens
            click.echo(chunk.text, nl=False)
            if tokens >= _KILL_AFTER and not killed:
                os.kill(victim, signal.SIGKILL)
                killed = True
                click.secho(f" [kill -9 {victim}] ", fg="red", nl=False)
        stage.say(f"\n\nThe answer was carried on {answer.result.resumed} time(s); its reader waited {pause:.1f} s for the next token.")
        return answer.result


def _device_of(stage: Stage, kernel: Kernel, name: str) -> int:
    """The process id of the device server that runs a model."""
    device = next(model.device for model in kernel.call(ListModels()).models if model.name == name)
    found = [row.os_pid for row in kernel.call(GetStatus()).devices if row.device == device]
    stage.check(len(found) == 1, f"The device {device!r} of {name} is not among the devices of `kernos status`.")
    return found[0]


def _compared(undisturbed: list[int], disturbed: list[int]) -> str:
    """How far the answer with the crash is that of an undisturbed run."""
    pairs = list(zip(undisturbed, disturbed, strict=False))
    equal = next((at for at, (one, other) in enumerate(pairs) if one != other), len(pairs))
    if undisturbed == disturbed:
        return f"{equal} of {equal} tokens are those of an undisturbed run."
    return (
        f"{equal} of {len(undisturbed)} tokens are those of an undisturbed run; at token {equal + 1} the two part. That can happen where "
        "two tokens are all but equally likely and rounding decides; the tests demand equality wherever the gap is wider than rounding."
    )


def stop(stage: Stage) -> None:
    """The kernel stops, and no process is left behind."""
    before = stage.processes()
    stage.check(len(before) >= 3, f"A kernel and two device servers should be there before the end, but there is only {before}.")
    stage.show("stop")
    left = stage.processes()
    stage.check(not left, f"These processes are still there: {left}.")
    stage.say(f"{len(before)} processes were there, none is left.")


ACTS: Final[tuple[Callable[[Stage], None], ...]] = (boot, serve_customers, refuse_stranger, survive_crash, stop)
