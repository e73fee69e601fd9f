"""The bundled apps as a user meets them: the commands of their READMEs, the rights that they use, and what a crash of one does.

Every app is started by `kernos run`, as a process of its own that is confined to what it needs, on a kernel of this module. By default the
first commands of each README are tried; `KERNOS_PROVE=1` tries all of them, and then looks whether each app needs each line of its policy.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

import kernos.apps
from benchmarks.kernel import RunningKernel, booted
from benchmarks.public import data_folder
from kernos.apps.cli.launcher import apps
from kernos.apps.medical_qa.emergency import ADVICE
from kernos.syscalls import Kernel
from kernos.syscalls.context import OpenContext
from kernos.syscalls.policy import ApplyPolicy, FetchPolicy, SuggestPolicy
from kernos.syscalls.process import GetUsage, ListProcesses

PROVE = bool(os.environ.get("KERNOS_PROVE"))
FOLDER = Path(kernos.apps.__path__[0])
APPS = apps()

FINANCE_ROWS = "".join(
    f"Firm {number},2026-03-{number + 1:02},Firm {number} {said},{label},{topic}\n"
    for number, (said, label, topic) in enumerate([("gains", "positive", "markets"), ("loses", "negative", "results")] * 10)
)
PAIRS = "".join(f"What {kind} it number {number}?,It {kind} {number}.,{kind}\n" for number in range(6) for kind in ("treats", "causes"))
STUDY = '{{"question": "Does it help?", "context": ["It was tried."], "label": "{0}", "long_answer": "The answer is {0}."}}\n'
DATA = str(data_folder())
STANDS_FOR: dict[str, dict[str, str | tuple[str, str]]] = {
    "customer_service": {
        "$QUESTIONS": ("questions.csv", "customer,text\nana,When are your stores open?\nben,Please refund my order F-1043\n"),
        "$ENTRIES": ("entries.csv", "id,topic,question,answer\nopen-1,stores,When are your stores open?,We are open from 10 to 7.\n"),
        "$ORDERS": ("orders.csv", "order,customer,items,status\nF-1043,ben,a lamp,cancelled\n"),
        "$EXAMPLES": ("examples.csv", "text,intent\nwhere is it,place\nis it here,place\npay me back,money\nmoney back,money\n"),
        "$DATA": DATA,
    },
    "finance_monitor": {
        "FILE": ("news.csv", "title,published,text,sentiment,topic\n" + FINANCE_ROWS),
        "FOLDER": DATA,
        "URL": "http://127.0.0.1:80/",
    },
    "medical_qa": {
        "questions.csv": ("questions.csv", "question\nWhat is an aura?\n"),
        "note.txt": ("note.txt", "Problems: hypertension.\nMedication: ramipril 5 mg once daily by mouth.\nPotassium 6.1 mmol/l.\n"),
        "pairs.csv": ("pairs.csv", "question,answer,qtype\n" + PAIRS),
        "studies.jsonl": ("studies.jsonl", "".join(map(STUDY.format, ("yes", "no", "maybe") * 6))),
        "FILE": ("library.csv", "id,title,text\naura-1,Aura,An aura is a warning sign before a migraine attack.\n"),
        "DIR": DATA,
    },
}
"""What names in the READMEs stand for: a file with its text, or something else."""


@pytest.fixture(scope="module")
def own(models: Path) -> Iterator[RunningKernel]:
    with booted(config='audit = "all"\n') as running, running.connect() as admin:
        files = admin.call(FetchPolicy()).files | {
            "roles.d/80-clinicians.csv": b"g, user:carla, role:clinician\ng, user:dan, role:clinician\n# end\n"
        }
        admin.call(ApplyPolicy(files=files, reason="those who read records in the README of medical_qa"))
        yield running


def commands(app: str) -> list[str]:
    """What the README tells a user to type, without remarks and redirections."""
    page = (FOLDER / app / "README.md").read_text("utf-8")
    return re.findall(r"^(?:\$ |    (?:\w+ \| )?)(kernos run .*?)(?: +# .*| > .*)?$", page, re.MULTILINE)


def typed(app: str, folder: Path, line: str) -> list[str]:
    """A command as it is run, with files in the place of names."""
    words = []
    for word in shlex.split(line)[1:]:
        meant = STANDS_FOR[app].get(word, word)
        if isinstance(meant, tuple):
            (folder / meant[0]).write_text(meant[1])
            meant = str(folder / meant[0])
        words.append(meant)
    return [sys.executable, "-m", "kernos.apps.cli", *words, *(["--quick"] if "evaluate" in words and "--quick" not in words else [])]


def environment(kernel: RunningKernel) -> dict[str, str]:
    return os.environ | {"KERNOS_HOME": str(kernel.where.config.parent), "KERNOS_MODELS": str(kernel.where.models)}


def run(kernel: RunningKernel, app: str, folder: Path, line: str) -> "subprocess.CompletedProcess[str]":
    command = typed(app, folder, line)
    return subprocess.run(command, env=environment(kernel), cwd=folder, input="", capture_output=True, text=True, timeout=900)


def tried(app: str) -> list[str]:
    """All commands of a README that end by themselves, or the few of one app that use all of its rights."""
    enough = {"customer_service": ("--orders $ORDERS --script $QUESTIONS", "--humans")}
    return [line for line in commands(app) if (" --watch " not in line if PROVE else line.endswith(enough.get(app, ())))]


@pytest.mark.parametrize(("app", "line"), [(app, line) for app in APPS for line in tried(app)])
def test_what_a_readme_tells_a_user_to_type_works(app: str, line: str, own: RunningKernel, tmp_path: Path) -> None:
    if " evaluate " in line and not data_folder().exists():
        pytest.skip(f"There is no {data_folder()} with the public sets; KERNOS_DATA names another.")
    done = run(own, app, tmp_path, line)
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"


def test_every_app_that_ships_has_commands_in_its_readme() -> None:
    assert [app for app in APPS if not commands(app)] == []


@pytest.mark.parametrize("app", [app for app in APPS if tried(app)])
def test_an_app_needs_every_line_of_its_policy_and_no_other(app: str, own: RunningKernel) -> None:
    """By the law's own record of what the commands above asked for."""
    with own.connect() as admin:
        suggested = admin.call(SuggestPolicy(subject=f"app:{app}"))
    assert suggested.lines, "it was not run"
    assert suggested.unused == []
    assert suggested.denied == []


class Crowd:
    """All apps at once, each under its launcher, with something to do for each."""

    def __init__(self, kernel: RunningKernel, folder: Path, stack: ExitStack) -> None:
        self.kernel = kernel
        self.news = folder / "news"
        self.news.mkdir()
        self.admin = stack.enter_context(kernel.connect())
        self.bystander = stack.enter_context(kernel.connect(kernel.enroll("app:bystander"))).spawn("bystander")
        lines = {"customer_service": "--customer eve", "finance_monitor": f"--json --watch {self.news}", "medical_qa": ""}
        self.running = {app: stack.enter_context(started(kernel, f"{app} {line}")) for app, line in lines.items()}
        self._items = 0

    def ask(self, app: str) -> str:
        """Have an app do what it is for, and wait until it has; what it said up to then."""
        process = self.running[app]
        match app:
            case "customer_service":
                say(process, "Where is my order F-1042?")
                return wait_for(process, "There is no order F-1042 of yours.")
            case "medical_qa":
                say(process, "My husband's face is drooping on one side and he can't speak properly.")
                return wait_for(process, ADVICE[:20])
            case _:
                self._items += 1
                kept = self.used("finance_monitor", "bytes")
                (self.news / f"{self._items}.jsonl").write_text(f'{{"title": "Firm {self._items} gains", "published": "2026-03-01"}}\n')
                said = wait_for(process, f"Firm {self._items} gains")
                while self.used("finance_monitor", "bytes") == kept:  # what it has read it tells first and keeps then
                    assert process.poll() is None
                return said

    def kill(self, app: str) -> None:
        os.kill(child_of(self.running[app]), signal.SIGKILL)

    def used(self, app: str, limit: str) -> int:
        meters = self.admin.call(GetUsage(principal=f"app:{app}")).meters
        return next(meter.used for meter in meters if meter.limit == limit)

    def agents(self) -> dict[str, set[int]]:
        return {app: agents(self.admin, app) for app in (*self.running, "bystander")}


@pytest.fixture(scope="module")
def crowd(own: RunningKernel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    with ExitStack() as stack:
        crowd = Crowd(own, tmp_path_factory.mktemp("crowd"), stack)
        for app in APPS:
            crowd.ask(app)
        yield crowd


def forgets_nobody(crowd: Crowd, folder: Path) -> None:
    wait_for(crowd.running["customer_service"], "Welcome back, eve! Last time you asked: “Where is my order F-1042?”")


def counts_no_item_twice(crowd: Crowd, folder: Path) -> None:
    """The folder is read again, and what was read before it died is known."""
    assert "Firm 1 gains" not in crowd.ask("finance_monitor")


def has_every_record(crowd: Crowd, folder: Path) -> None:
    wait_for(crowd.running["medical_qa"], "Ask a question")
    shown = run(crowd.kernel, "medical_qa", folder, "kernos run medical_qa show note --clinician carla --why kept")
    assert "ramipril" in shown.stdout, shown.stderr


@pytest.mark.parametrize(
    ("app", "has_its_state"),
    [("customer_service", forgets_nobody), ("finance_monitor", counts_no_item_twice), ("medical_qa", has_every_record)],
)
def test_an_app_that_is_killed_comes_back_with_its_state_and_nobody_else_notices(
    app: str, has_its_state: Callable[[Crowd, Path], None], crowd: Crowd, tmp_path: Path
) -> None:
    if app == "medical_qa":
        added = run(crowd.kernel, app, tmp_path, "kernos run medical_qa add note.txt --clinician carla")
        assert added.returncode == 0, added.stderr
    before = crowd.agents()
    crowd.kill(app)
    has_its_state(crowd, tmp_path)
    for each in APPS:
        crowd.ask(each)
    after = crowd.agents()
    assert not before.pop(app) & after.pop(app)
    assert before == after
    assert all(process.poll() is None for process in crowd.running.values())
    crowd.bystander.call(OpenContext(name=f"here-without-{app}"))


def test_the_crowd_is_all_apps_that_ship(crowd: Crowd) -> None:
    assert sorted(crowd.running) == APPS


def agents(admin: Kernel, app: str) -> set[int]:
    """The living agents of an app."""
    rows = admin.call(ListProcesses(scope="all")).processes
    return {row.pid for row in rows if row.principal == f"app:{app}" and row.state != "exited"}


def child_of(launcher: "subprocess.Popen[str]") -> int:
    """The process of an app."""
    (child,) = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text("ascii").split()
    return int(child)


@contextmanager
def started(kernel: RunningKernel, line: str) -> "Iterator[subprocess.Popen[str]]":
    """An app under its launcher, until the end of its input."""
    command = [sys.executable, "-m", "kernos.apps.cli", "run", *line.split()]
    process = subprocess.Popen(command, env=environment(kernel), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    try:
        yield process
    finally:
        process.terminate()  # the launcher passes it on
        with suppress(BrokenPipeError):
            process.communicate()


def say(app: "subprocess.Popen[str]", text: str) -> None:
    assert app.stdin is not None
    print(text, file=app.stdin, flush=True)


def wait_for(app: "subprocess.Popen[str]", text: str) -> str:
    """Read what an app prints until it has said something; all of it."""
    assert app.stdout is not None
    said = ""
    while text not in said:
        piece = app.stdout.read(1)
        assert piece, f"it ended after {said!r}"
        said += piece
    return said
