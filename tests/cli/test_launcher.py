"""`kernos run`, with small scripts as apps and a kernel that answers by rote."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from click.testing import Result

from kernos.apps.cli import launcher
from kernos.syscalls import Key
from kernos.syscalls.process import ReportCrash, Verdict

KEY = Key("app:script", "p" * 40, "s" * 40)
RESTART, GIVE_UP = Verdict(True, 0.0, "crash 1 of 3"), Verdict(False, 0.0, "too many crashes")


def script(text: str, *args: str) -> list[str]:
    return [sys.executable, "-c", text, *args]


def test_an_unknown_app_is_told_which_there_are(shell: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "apps", lambda: ["clock", "desk"])
    assert "There are: clock, desk." in shell("run", "nothing").output


def test_apps_are_found_without_importing_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, files in {"whole": ["__init__.py", "__main__.py"], "library": ["__init__.py"], "cli": ["__init__.py", "__main__.py"]}.items():
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).write_text("raise SystemExit('imported')")
    monkeypatch.setattr("kernos.apps.__path__", [str(tmp_path)])
    assert launcher.apps() == ["whole"]


@pytest.mark.parametrize("code", launcher.VERDICTS)
def test_a_verdict_of_the_app_ends_the_run(code: int) -> None:
    assert launcher.supervise("script", script(f"raise SystemExit({code})"), KEY) == code


def test_the_key_comes_by_descriptor_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNOS_KEY", "elsewhere")
    text = "import os,sys,pathlib; fd=int(os.environ['KERNOS_KEY_FD']); pathlib.Path(sys.argv[1]).write_bytes(os.fdopen(fd,'rb').read()); "
    text += "seen=repr([sys.argv, dict(os.environ)]); sys.exit(2 if 's'*40 in seen or 'KERNOS_KEY' in os.environ else 0)"
    got = tmp_path / "key"
    assert launcher.supervise("script", script(text, str(got)), KEY) == 0
    assert msgspec.json.decode(got.read_bytes(), type=Key) == KEY


def test_no_descriptor_is_left_open() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    launcher.supervise("script", script("pass"), KEY)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_crash_is_reported_and_the_kernel_decides(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts = iter([RESTART, GIVE_UP])
    reported = []

    def judge(call: ReportCrash) -> Verdict:
        reported.append(call)
        return next(verdicts)

    monkeypatch.setattr(launcher, "ask", judge)
    assert launcher.supervise("script", script("raise SystemExit(70)"), KEY) == 70
    assert reported == [ReportCrash(app="script", code=70)] * 2
    assert "too many crashes" in capsys.readouterr().err


def test_death_by_a_signal_is_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "ask", lambda _: GIVE_UP)
    assert launcher.supervise("script", script("import os; os.kill(os.getpid(), 9)"), KEY) == -9


def test_a_signal_to_the_launcher_ends_app_and_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "ask", lambda _: pytest.fail("a wanted end is no crash"))
    ready = tmp_path / "ready"
    os.mkfifo(ready)

    def signal_when_ready() -> None:
        ready.read_bytes()  # returns when the app has opened it
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=signal_when_ready)
    thread.start()
    waiting = "import sys, time; open(sys.argv[1], 'wb').close(); time.sleep(60)"
    assert launcher.supervise("script", script(waiting, str(ready)), KEY) == -signal.SIGTERM
    thread.join()
