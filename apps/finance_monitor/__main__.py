"""`kernos run finance_monitor`, or `python -m kernos.apps.finance_monitor`: watch, replay, train, evaluate."""

import argparse
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import msgspec

from kernos.agents import Agent
from kernos.agents.command import run_command
from kernos.agents.embedding import Embedding
from kernos.agents.folder import own_folder
from kernos.agents.rows import InputError
from kernos.syscalls import AsyncKernel

from .alerts import Publisher, checked_url
from .companies import SHIPPED as COMPANIES
from .companies import Companies
from .heads import SHIPPED as EXAMPLES
from .heads import train
from .items import Item
from .monitor import Monitor
from .reader import Reader
from .report import write_report
from .screens import JsonScreen, Screen
from .sources import listen, read_source, replay, watch
from .state import Keeper, State

APP: Final = "finance_monitor"
ARCHIVE: Final = Path(__file__).with_name("data") / "archive.jsonl"


def main() -> int:
    """Do what the arguments say; 0 if all went well, 1 if not."""
    return run_command(APP, _run(_arguments()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(APP, description="A monitor of finance news, over Kernos. No investment advice.")
    parser.add_argument("--demo", action="store_true", help="replay the shipped archive of three weeks, as fast as it can be read")
    parser.add_argument("--replay", metavar="PATH", type=Path, help="replay a dated archive: a feed, CSV, JSONL, or a folder of them")
    parser.add_argument("--speed", metavar="TIMES", type=float, default=0.0, help="how many times as fast as it came (default: no pause)")
    parser.add_argument("--watch", metavar="FOLDER", type=Path, help="take what is put into a folder; what is known is kept")
    parser.add_argument("--companies", metavar="FILE", type=Path, default=COMPANIES, help="your list: name, ticker, aliases (apart by |)")
    parser.add_argument("--webhook", metavar="URL", help="post each alert there, as JSON")
    parser.add_argument("--json", action="store_true", help="lines of JSON instead of text")
    verbs = parser.add_subparsers(dest="verb", metavar="train | evaluate")
    learn = verbs.add_parser("train", help="train the heads on labelled texts")
    learn.add_argument("--data", metavar="FILE", type=Path, default=EXAMPLES, help="CSV or JSONL: text, sentiment, topic (one or both)")
    measure = verbs.add_parser("evaluate", help="measure on public data")
    measure.add_argument("--data", metavar="FOLDER", type=Path, required=True, help="the folder of the public data")
    measure.add_argument("--quick", action="store_true", help="a sample of each set, in less than a minute")
    measure.add_argument("--json", action="store_true", help="the figures as one JSON document")
    return parser.parse_args()


async def _run(arguments: argparse.Namespace) -> None:
    async with AsyncKernel() as kernel, Agent.spawn(kernel, "monitor", priority="batch" if arguments.verb else "normal") as agent:
        match arguments.verb:
            case "train":
                await _train(agent, arguments.data)
            case "evaluate":
                await _evaluate(agent, arguments)
            case _:
                await _monitor(agent, arguments)


async def _train(agent: Agent, data: Path) -> None:
    embedding = await Embedding.open(agent, own_folder(APP) / "vectors")
    for card in await train(data, embedding, own_folder(APP) / "heads"):
        print(msgspec.json.format(msgspec.json.encode(card)).decode())


async def _evaluate(agent: Agent, arguments: argparse.Namespace) -> None:
    from .evaluate import evaluate  # the baseline's libraries are of no use to the monitor

    embedding = await Embedding.open(agent, own_folder(APP) / "vectors")
    figures = await evaluate(embedding, arguments.data, quick=arguments.quick)
    print(msgspec.json.encode(figures).decode() if arguments.json else "\n".join(f"{key}: {value}" for key, value in figures.items()))


async def _monitor(agent: Agent, arguments: argparse.Namespace) -> None:
    if arguments.webhook:
        checked_url(arguments.webhook)
    items, kept = _source(arguments)
    reader = await Reader.open(agent, own_folder(APP) / "heads", Companies.read(arguments.companies))
    keeper, state = await Keeper.open(agent) if kept else (None, State())
    monitor = Monitor(reader, state)
    publisher, screen = Publisher(agent, arguments.webhook), JsonScreen() if arguments.json else Screen()
    async for batch in items:
        before = monitor.state.today
        taken = await monitor.take(batch)
        screen.show(taken)
        for alert in taken.alerts:  # told first and kept then: after a crash twice rather than never
            await publisher.publish(alert)
        if keeper:
            await keeper.keep(monitor.state)
        if before and before != monitor.state.today:
            screen.say(f"report: {write_report(monitor.state, before, own_folder(APP) / 'reports')}")
    if monitor.state.today:
        screen.close(monitor.state)
        screen.say(f"report: {write_report(monitor.state, monitor.state.today, own_folder(APP) / 'reports')}")


def _source(arguments: argparse.Namespace) -> tuple[AsyncIterator[list[Item]], bool]:
    """Where items come from, and whether what is learned from them is kept: of an archive it is not."""
    if arguments.demo or arguments.replay:
        archive = read_source(ARCHIVE if arguments.demo else arguments.replay)
        archive.report(sys.stderr)
        return replay(archive.rows, arguments.speed), False
    if arguments.watch:
        return watch(arguments.watch), True
    if sys.stdin.isatty():
        raise InputError("Name a folder to --watch or an archive to --replay, or send lines of JSON. --demo shows how it looks.")
    return listen(sys.stdin.fileno()), True


if __name__ == "__main__":
    sys.exit(main())
