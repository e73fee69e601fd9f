"""Simulate the scheduler: `python -m kernos.kernel.simulate [options]`, which `kernos simulate` runs.

Prints tables, or with `--json` one JSON document, on standard output. Exit codes: 0 done, 1 a picture could not be drawn, 2 wrong usage.
"""

import argparse
import gc
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, get_args

from kernos.syscalls.process import Priority

from ..core.policies import POLICIES, PolicyName
from ..core.scheduler import RANK
from .article import Article, write_article
from .engine import Fleet, Resume, simulate
from .measures import Measures, measure
from .plot import NoPlotError, draw
from .report import as_json, print_article, print_json, print_measures
from .workload import ARRIVAL_KINDS, LENGTH_KINDS, Lengths, Workload

IN_PROCESSES: Final = 5_000
"""Agents from which on it pays to start a process per processor."""


def main() -> int:
    """Parse the command line, simulate, report."""
    parser = _parser()
    args = parser.parse_args()
    gc.disable()  # a simulation makes no cycles to speak of, and looking for them takes a third of its time
    begun = time.perf_counter()
    if args.article:
        _article(write_article(args.seed), args, begun)
        return 0
    try:
        workload, fleet = _workload(args), _fleet(args)
        if not args.rate:
            workload = workload.at_rate(fleet.rate_for(args.load, workload))
    except ValueError as error:
        parser.error(str(error))
    results = _run(args.policy or list(POLICIES), partial(_one, workload, fleet, args.seed), parallel=workload.agents >= IN_PROCESSES)
    seconds = time.perf_counter() - begun
    if args.json:
        print_json(as_json(results, seconds))
    else:
        print_measures(results)
        print(f"\n{workload.agents:,} agents under {len(results)} policies in {seconds:.1f} s (seed {args.seed}).")
    return _picture(results, args.png)


def _article(article: Article, args: argparse.Namespace, begun: float) -> None:
    seconds = time.perf_counter() - begun
    if args.json:
        print_json(article.as_json())
    else:
        print_article(article)
        print(f"\nSimulated in {seconds:.1f} s (first seed {args.seed}).")


def _one(workload: Workload, fleet: Fleet, seed: int, policy: PolicyName) -> Measures:
    return measure(simulate(policy, workload, fleet, seed), len(fleet.speeds))


def _run(policies: list[PolicyName], one: Callable[[PolicyName], Measures], *, parallel: bool) -> list[Measures]:
    if not parallel or len(policies) == 1:
        return [one(policy) for policy in policies]
    with ProcessPoolExecutor(min(len(policies), os.cpu_count() or 1)) as pool:
        return list(pool.map(one, policies))


def _picture(results: list[Measures], path: Path | None) -> int:
    try:
        if path:
            draw(results, path)
    except (NoPlotError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _workload(args: argparse.Namespace) -> Workload:
    return Workload(
        agents=args.agents,
        arrivals=args.arrivals,
        rate=args.rate or 1.0,
        turns=args.turns,
        think_s=args.think,
        tokens=Lengths(args.lengths, args.tokens),
        prompt=Lengths("exponential", args.prompt),
        classes=tuple((_class(name), share) for name, share in _shares(args.classes)),
        weights=tuple((float(weight), share) for weight, share in _shares(args.weights)),
    )


def _fleet(args: argparse.Namespace) -> Fleet:
    speeds = tuple(float(speed) for speed in args.speeds.split(","))
    if min(speeds) <= 0:
        raise ValueError("a device has a speed above 0")
    return Fleet(speeds=speeds, slots=args.slots, resume=args.resume, groups=args.groups, load_s=args.load_time)


def _shares(text: str) -> list[tuple[str, float]]:
    """`a:3,b:1` as pairs."""
    return [(name, float(share)) for name, _, share in (part.partition(":") for part in text.split(","))]


def _class(name: str) -> Priority:
    found: dict[str, Priority] = {known: known for known in RANK}
    if name not in found:
        raise ValueError(f"there is no class {name!r}, only {', '.join(RANK)}")
    return found[name]


def _positive(text: str) -> int:
    if int(text) < 1:
        raise ValueError
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kernos simulate", description="The kernel's scheduler under a simulated clock.")
    add = parser.add_argument
    add("--agents", type=_positive, default=1_000, metavar="N", help="how many agents (1000)")
    add("--policy", action="append", choices=list(POLICIES), help="only this policy; may be repeated (all six)")
    add("--arrivals", choices=ARRIVAL_KINDS, default="poisson", help="how agents come; `closed`: all are there and think (poisson)")
    add("--load", type=float, default=0.7, help="arrivals as a share of what full batches can do (0.7)")
    add("--rate", type=float, default=0.0, help="agents a second, instead of --load")
    add("--turns", type=_positive, default=1, help="turns of an agent (1)")
    add("--think", type=float, default=5.0, metavar="S", help="mean pause between turns (5)")
    add("--lengths", choices=LENGTH_KINDS, default="lognormal", help="distribution of answers (lognormal)")
    add("--tokens", type=float, default=64, help="mean tokens of an answer (64)")
    add("--prompt", type=float, default=200, help="mean tokens of a prompt (200)")
    add("--classes", default="interactive:3,normal:5,batch:2", help="shares of the classes (interactive:3,normal:5,batch:2)")
    add("--weights", default="1:3,4:1", help="shares of the weights (1:3,4:1)")
    add("--speeds", default="1", metavar="R,…", help="a device for each speed; 1 is the machine that was measured (1)")
    add("--slots", type=_positive, default=8, help="slots of a device (8)")
    add("--resume", choices=get_args(Resume), default="copy", help="what a preempted turn costs when it comes back (copy)")
    add("--groups", type=_positive, default=1, help="agents in so many groups, each with a model to load (1)")
    add("--load-time", type=float, default=0.0, metavar="S", help="seconds to load a group's model (0)")
    add("--seed", type=int, default=1, help="another number, another trace (1)")
    add("--article", action="store_true", help="set the design article's formulas against simulations")
    add("--json", action="store_true", help="print one JSON document")
    add("--png", type=Path, metavar="FILE", help="draw the times by policy and class; needs the extra `plot`")
    return parser


if __name__ == "__main__":
    sys.exit(main())
