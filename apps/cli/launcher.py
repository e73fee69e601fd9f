"""`kernos run`: start an app as a process of its own, with a key of its own, confined to what it needs, and supervise it.

Each process gets a new key that is lent to it: it counts for this process alone and as long as it lives, and is written nowhere. It goes to
the app through a pipe that is empty once it has been read, when the kernel knows whose it is. Exit codes 0, 1 and 2 are the app's own
verdict (done, failed, wrong usage) and end the run. Death by a signal and every other code are a crash: the kernel is told and decides by
restart intensity whether the app is started again. A signal sent to the launcher goes on to the app and ends the run, whatever the app
makes of it.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from types import FrameType, MappingProxyType
from typing import Final

import click
import msgspec

import kernos.apps
from kernos.syscalls import places
from kernos.syscalls.keys import make_key
from kernos.syscalls.process import Launch, LendKey, ReportCrash, Verdict

from .needs import confined, needs_of
from .session import ask

VERDICTS: Final = (0, 1, 2)
"""Exit codes by which an app ends its run; every other end is a crash."""


@click.command(context_settings={"allow_interspersed_args": False})
@click.argument("app")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def run(ctx: click.Context, app: str, args: tuple[str, ...]) -> None:
    """Run APP and start it again when it crashes; ARGS go to it."""
    if app not in (known := apps()):
        raise click.BadParameter(f"there is no app {app!r}. There are: {', '.join(known) or 'none'}.", param_hint="APP")
    ask(Launch(app=app))
    where = places()
    kept = where.apps / app
    kept.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"kernos-{app}-") as temporary:
        command = [sys.executable, "-P", "-m", f"kernos.apps.{app}", *args]
        # joblib, which scikit-learn imports, would warn that it may not make semaphores in /dev/shm
        environment = {"TMPDIR": temporary, "KERNOS_APP_FOLDER": str(kept), "JOBLIB_MULTIPROCESSING": "0"}
        code = supervise(app, confined(command, needs_of(app), where, kept, Path(temporary)), environment)
    ctx.exit(128 - code if code < 0 else code)


def supervise(app: str, command: list[str], environment: Mapping[str, str] = MappingProxyType({})) -> int:
    """Run an app until it ends by itself or the kernel gives it up; its last exit code (negative: the signal)."""
    while True:
        code, stopped = _run_once(app, command, environment)
        if stopped or code in VERDICTS:
            return code
        verdict = ask(ReportCrash(app=app, code=code))
        click.echo(_told(app, code, verdict), err=True)
        if not verdict.restart:
            return code
        time.sleep(verdict.delay_s)


def apps() -> list[str]:
    """The apps that can be run, found without importing them."""
    own = Path(__file__).parent.name  # this command is found there too, but is no app
    return sorted(app.name for app in iter_modules(kernos.apps.__path__) if app.ispkg and app.name != own and _has_main(app.name))


def _has_main(app: str) -> bool:
    spec = find_spec(f"kernos.apps.{app}")
    return spec is not None and any(Path(folder, "__main__.py").is_file() for folder in spec.submodule_search_locations or ())


def _run_once(app: str, command: list[str], environment: Mapping[str, str]) -> tuple[int, bool]:
    """Run the app to its end: its exit code (negative: the signal), and whether the launcher was told to stop."""
    child = _start(app, command, environment)
    with _signals_passed_on(child) as received:
        return child.wait(), bool(received)


def _start(app: str, command: list[str], environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Start the app; it waits for its key, and so for the kernel to know it by that."""
    key = make_key(f"app:{app}")
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb", buffering=0) as pipe:
        inherited = {name: value for name, value in os.environ.items() if name != "KERNOS_KEY"}
        try:
            child = subprocess.Popen(command, pass_fds=(reader,), env={**inherited, **environment, "KERNOS_KEY_FD": str(reader)})  # noqa: S603
        finally:
            os.close(reader)
        try:
            ask(LendKey(app=app, os_pid=child.pid, public_key=key.public))
        except BaseException:
            child.kill()
            child.wait()
            raise
        with suppress(BrokenPipeError):  # it has ended already; its code will tell
            pipe.write(msgspec.json.encode(key))
    return child


@contextmanager
def _signals_passed_on(child: "subprocess.Popen[bytes]") -> Iterator[list[int]]:
    """Give the app the signals that end the launcher, while it runs; yields those that came."""
    received: list[int] = []

    def pass_on(number: int, _: FrameType | None) -> None:
        received.append(number)
        if not (number == signal.SIGINT and _on_terminal()):
            child.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _on_terminal() -> bool:
    """Whether Ctrl-C reaches the app by itself: a terminal sends it to every process in front."""
    return sys.stdin.isatty() and os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()


def _told(app: str, code: int, verdict: Verdict) -> str:
    how = f"was ended by signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"crashed with exit code {code}"
    then = f"starting it again in {verdict.delay_s:g} s." if verdict.restart else f"giving it up: {verdict.reason}"
    return f"app:{app} {how}; {then}"
