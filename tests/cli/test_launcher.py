"""`kernos run`, with small scripts as apps and a kernel that answers by rote."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import Result

from kernos.apps.cli import launcher
from kernos.syscalls import Call, Key
from kernos.syscalls.call import Done
from kernos.syscalls.errors import DeniedError
from kernos.syscalls.process import LendKey, ReportCrash, Verdict

RESTART, GIVE_UP = Verdict(True, 0.0, "crash 1 of 3"), Verdict(False, 0.0, "too many crashes")


@pytest.fixture(autouse=True)
def lent(monkeypatch: pytest.MonkeyPatch) -> list[LendKey]:
    """What was lent by a kernel that lends to everybody, and gives up whoever crashes."""
    calls: list[LendKey] = []

    def answer(call: Call[Any]) -> Any:
        if isinstance(call, LendKey):
            calls.append(call)
            return Done()
        return GIVE_UP

    monkeypatch.setattr(launcher, "ask", answer)
    return calls


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
    assert launcher.supervise("script", script(f"raise SystemExit({code})")) == code


def test_the_key_comes_by_descriptor_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lent: list[LendKey]) -> None:
    monkeypatch.setenv("KERNOS_KEY", "elsewhere")
    text = "import os,sys,pathlib; fd=int(os.environ['KERNOS_KEY_FD']); pathlib.Path(sys.argv[1]).write_bytes(os.fdopen(fd,'rb').read()); "
    text += "pathlib.Path(sys.argv[1] + '.seen').write_text(repr([os.getpid(), sys.argv, dict(os.environ)]))"
    got = tmp_path / "key"
    assert launcher.supervise("script", script(text, str(got))) == 0
    key = msgspec.json.decode(got.read_bytes(), type=Key)
    seen = (tmp_path / "key.seen").read_text()
    assert key.principal == "app:script"
    assert key.secret not in seen
    assert "'KERNOS_KEY':" not in seen
    assert [(call.app, call.public_key) for call in lent] == [("script", key.public)]
    assert seen.startswith(f"[{lent[0].os_pid},")


def test_each_process_has_a_key_of_its_own(lent: list[LendKey], monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        launcher.supervise("script", script("pass"))
    assert len({call.public_key for call in lent}) == 2


def test_an_app_to_which_no_key_is_lent_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(call: Call[Any]) -> None:
        raise DeniedError("No.")

    monkeypatch.setattr(launcher, "ask", refuse)
    waiting = "import os, pathlib, sys; os.read(int(os.environ['KERNOS_KEY_FD']), 1) and pathlib.Path(sys.argv[1]).touch()"
    with pytest.raises(DeniedError):
        launcher.supervise("script", script(waiting, str(tmp_path / "key")))
    assert not (tmp_path / "key").exists()


def test_no_descriptor_is_left_open() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    launcher.supervise("script", script("pass"))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_crash_is_reported_and_the_kernel_decides(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts = iter([RESTART, GIVE_UP])
    reported = []

    def judge(call: Call[Any]) -> Any:
        if isinstance(call, LendKey):
            return Done()
        reported.append(call)
        return next(verdicts)

    monkeypatch.setattr(launcher, "ask", judge)
    assert launcher.supervise("script", script("raise SystemExit(70)")) == 70
    assert reported == [ReportCrash(app="script", code=70)] * 2
    assert "too many crashes" in capsys.readouterr().err


def test_death_by_a_signal_is_a_crash() -> None:
    assert launcher.supervise("script", script("import os; os.kill(os.getpid(), 9)")) == -9


def test_a_signal_to_the_launcher_ends_app_and_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "ask", lambda call: None if isinstance(call, LendKey) else pytest.fail("a wanted end is no crash"))
    ready = tmp_path / "ready"
    os.mkfifo(ready)

    def signal_when_ready() -> None:
        ready.read_bytes()  # returns when the app has opened it
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=signal_when_ready)
    thread.start()
    waiting = "import sys, time; open(sys.argv[1], 'wb').close(); time.sleep(60)"
    assert launcher.supervise("script", script(waiting, str(ready))) == -signal.SIGTERM
    thread.join()


def test_an_app_keeps_its_folder_from_one_run_to_the_next(
    shell: Callable[..., Result], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "packages" / "diary"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    text = "from kernos.agents.folder import own_folder\nwith (own_folder('diary') / 'days').open('a') as file: file.write('day\\n')\n"
    (package / "__main__.py").write_text(f"{text}print(own_folder('diary'))")
    monkeypatch.setattr("kernos.apps.__path__", [*sys.modules["kernos.apps"].__path__, str(package.parent)])
    monkeypatch.setattr(launcher, "confined", lambda command, needs, where, *own: [sys.executable, str(package / "__main__.py")])
    for _ in range(2):
        assert shell("run", "diary").exit_code == 0
    assert (home / "state" / "apps" / "diary" / "days").read_text() == "day\nday\n"
