"""What every benchmark has in common: its arguments, the facts of the machine, and where its figures go.

A benchmark is `python -m benchmarks.NAME [--quick] [--json]`; one in parts has a flag for each of them, and measures all without. It
prints a table (not with `--json`), and its last line is the same as one JSON object. A full run is kept in `benchmarks/results/NAME.json`;
one of some parts leaves the figures of the others there as they were, and `machine` is that of the last.
"""

import argparse
import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

RESULTS: Final = Path(__file__).with_name("results")


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    quick: bool
    """End within 50 s on two cores; the figures are rougher."""
    json: bool
    """Print nothing but the last line."""
    parts: tuple[str, ...] = ()
    """What to measure, of a benchmark in parts."""


@dataclass(frozen=True)
class Target:
    """What a figure has to reach: at most or at least a limit."""

    limit: float
    at_least: bool = False

    def met(self, value: float) -> bool:
        """Whether a figure reaches it."""
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}"


def options(description: str | None, parts: Sequence[str] = ()) -> Options:
    """The options of this run; `parts` names those of the benchmark."""
    parser = argparse.ArgumentParser(description=(description or "").strip().partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="end within 50 s; the figures are rougher")
    parser.add_argument("--json", action="store_true", help="print only the JSON line")
    for part in parts:
        parser.add_argument(f"--{part}", dest="parts", action="append_const", const=part, help="measure this part (all, if none is named)")
    given = parser.parse_args()
    chosen = getattr(given, "parts", None)
    return Options(given.quick, given.json, tuple(chosen or parts))


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that `percent` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def median(values: Sequence[float]) -> float:
    """The middle of the values."""
    return statistics.median(values)


def publish(
    name: str, given: Options, figures: Mapping[str, float | None], targets: Mapping[str, Target] | None = None, **facts: object
) -> None:
    """Print the figures of a run, and keep those of a full one. None: there was nothing to measure it with; `facts` may say why."""
    targets = targets or {}
    found = {key: _short(value) for key, value in figures.items()}
    missed = [key for key, target in targets.items() if (value := found.get(key)) is not None and not target.met(value)]
    line = {"benchmark": name, "quick": given.quick, **found, **facts, "missed": missed, "machine": machine()}
    if not given.quick:
        _keep(RESULTS / f"{name}.json", line, others=bool(given.parts))
    if not given.json:
        _print_table(name, figures, targets)
    print(json.dumps(line), flush=True)


def _keep(file: Path, line: dict[str, Any], others: bool) -> None:
    """Write the figures of a run, beside those that `others` measured before, as far as this one has not."""
    if others and file.exists():
        before = json.loads(file.read_text("utf-8"))
        line = before | line | {"missed": [key for key in before["missed"] if key not in line] + line["missed"]}
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(line, indent=2) + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    """The facts without which a figure means nothing."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 2),
        "linux": platform.release(),
        "python": platform.python_version(),
        "packages": {name: found for name in ("msgspec", "pyzmq", "torch", "transformers", "faiss-cpu") if (found := _version(name))},
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def _print_table(name: str, figures: Mapping[str, float | None], targets: Mapping[str, Target]) -> None:
    width = max(map(len, figures))
    print(f"{name}\n{'-' * (width + 36)}")
    for key, value in figures.items():
        if value is None:
            print(f"{key:<{width}}  {'-':>14}")
            continue
        target = targets.get(key)
        verdict = f"{target!s:>10}  {'met' if target.met(value) else 'MISSED'}" if target else ""
        print(f"{key:<{width}}  {_short(value):>14,}{verdict}".rstrip())
    print()
