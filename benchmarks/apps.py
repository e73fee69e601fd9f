"""The bundled apps: what each reaches on public data, all of them at once on a small machine, and what a flood in one does to the others.

Parts: `--evaluate` runs `kernos run NAME evaluate` of every app and joins their figures (data: see `public.py`; rows to test on also from
`KERNOS_TEST_DATA`). `--together` plays a script of 32 customers while the other apps show their demos, on two cores. `--flood` is in
`flood.py`. `--quick` takes samples: about a minute for each app and part.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from kernos.syscalls.audit import ReadAudit

from . import flood, report
from .kernel import RunningKernel, booted
from .public import data_folder
from .report import Target

TARGETS: Final = {
    "customer_intent": Target(0.925, at_least=True),
    "customer_oos_auroc": Target(0.88, at_least=True),
    "finance_sentiment": Target(0.80, at_least=True),
    "finance_topic_gain": Target(0.01, at_least=True),
    "finance_shock_found": Target(0.90, at_least=True),
    "finance_false_alarms_per_1000": Target(1.0),
    "medical_recall1_gain": Target(0.02, at_least=True),
    "medical_pubmedqa": Target(0.58, at_least=True),
    "medical_field_f1": Target(0.90, at_least=True),
    "served": Target(1.0, at_least=True),
    "memory_mb": Target(4_096.0),
    "flood_ratio": Target(1.5),
}

APPS: Final = ("customer_service", "finance_monitor", "medical_qa")
CUSTOMERS: Final = 32
QUESTIONS: Final = ("How long can I keep something before I send it back?", "What do you charge for shipping?", "Where is my order F-1042?")
EVALUATE_S: Final = 3_600.0
LOOK_S: Final = 0.5
"""How often it is looked how much memory is taken."""


def main() -> None:
    """Measure the parts asked for, and publish them together."""
    parts: dict[str, Callable[[bool], dict[str, float]]] = {"evaluate": evaluate, "together": together, "flood": flood.measure}
    given = report.options(__doc__, list(parts))
    figures: dict[str, float] = {}
    for part in given.parts:
        figures |= parts[part](given.quick)
    report.publish("apps", given, figures, {name: target for name, target in TARGETS.items() if name in figures})


def evaluate(quick: bool) -> dict[str, float]:
    """The figures of all apps, measured one after the other through one kernel."""
    figures: dict[str, float] = {}
    with booted() as kernel:
        kernel.load_models()
        for app in APPS:
            words = ["evaluate", "--data", str(data_folder()), "--json", *(["--quick"] if quick else [])]
            done = subprocess.run(_command(app, *words), env=_environment(kernel), stdout=subprocess.PIPE, check=True, timeout=EVALUATE_S)
            figures |= json.loads(done.stdout.splitlines()[-1])
    return figures


def together(quick: bool) -> dict[str, float]:
    """All apps at once under one kernel: the share of turns served, and the memory that all of it takes."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    before, customers = os.sched_getaffinity(0), CUSTOMERS // 4 if quick else CUSTOMERS
    os.sched_setaffinity(0, cores)
    try:
        with booted(config='audit = "all"\n') as kernel, tempfile.TemporaryDirectory() as folder, _memory_of(kernel) as used:
            kernel.load_models()
            script = Path(folder) / "script.jsonl"
            lines = [{"customer": f"c{number}", "text": text} for number in range(customers) for text in QUESTIONS]
            script.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
            words = {"customer_service": ["--script", str(script), "--json"]}
            running = {app: _start(kernel, app, *words.get(app, ["--demo"])) for app in APPS}
            said = {app: process.communicate()[0] for app, process in running.items()}
            failed = [app for app, process in running.items() if process.returncode]
            answered = len(said["customer_service"].splitlines())
            turns = _turns(kernel)
    finally:
        os.sched_setaffinity(0, before)
    return {
        "served": min(answered / len(lines), turns["ok"] / sum(turns.values()), 1 - len(failed) / len(APPS)),
        "customers_at_once": float(customers),
        "answers": float(answered),
        "turns": float(sum(turns.values())),
        "memory_mb": max(used),
    }


def _turns(kernel: RunningKernel) -> Counter[str]:
    """How turns ended, by outcome. One that was turned away as the kernel was busy is no turn: it was made again."""
    with kernel.connect() as admin:
        entries = admin.call(ReadAudit(name="model.generate", limit=1_000)).entries
    return Counter(entry.outcome or "none" for entry in entries if entry.outcome != "busy")


def _start(kernel: RunningKernel, app: str, *words: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(_command(app, *words), env=_environment(kernel), stdout=subprocess.PIPE)


def _command(app: str, *words: str) -> list[str]:
    return [sys.executable, "-m", "kernos.apps.cli", "run", app, *words]


def _environment(kernel: RunningKernel) -> dict[str, str]:
    return os.environ | {"KERNOS_HOME": str(kernel.where.config.parent), "KERNOS_MODELS": str(kernel.where.models)}


@contextmanager
def _memory_of(kernel: RunningKernel) -> Iterator[list[float]]:
    """Looks, while the block lasts, at the MB that the processes of an installation take together (shared pages count once)."""
    mark = f"KERNOS_HOME={kernel.where.config.parent}".encode()
    used, over = [0.0], threading.Event()

    def look() -> None:
        while not over.wait(LOOK_S):
            used.append(sum(_proportional_kb(process) for process in Path("/proc").glob("[0-9]*") if _started_with(process, mark)) / 1_024)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield used
    finally:
        over.set()
        thread.join()


def _started_with(process: Path, mark: bytes) -> bool:
    try:
        return mark in (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _proportional_kb(process: Path) -> int:
    try:
        lines = (process / "smaps_rollup").read_text("ascii").splitlines()
    except OSError:  # it has ended
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


if __name__ == "__main__":
    main()
