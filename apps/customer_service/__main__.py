"""`kernos run customer_service`, or `python -m kernos.apps.customer_service`: chat, play a script, train, evaluate."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Final

import msgspec

from kernos.agents import Agent
from kernos.agents.command import run_command
from kernos.agents.folder import own_folder
from kernos.agents.rows import good_rows
from kernos.syscalls import AsyncKernel

from . import evaluate, intents, knowledge, orders
from .chat import chat
from .handover import waiting_cases
from .screens import JsonScreen, LiveScreen, PlainScreen
from .script import DEMO, CustomerName, Question, run_script
from .service import Desk

APP: Final = "customer_service"


def main() -> int:
    """Do what the arguments say; 0 if all went well, 1 if not."""
    return run_command(APP, _run(_arguments()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(APP, description="Customer service of a shop, over Kernos.")
    parser.add_argument(
        "--customer", metavar="NAME", type=_name, default=os.environ.get("USER") or "guest", help="who chats (default: you)"
    )
    parser.add_argument("--knowledge", metavar="FILE", type=Path, default=knowledge.SHIPPED, help="entries of your own, CSV or JSONL")
    parser.add_argument("--orders", metavar="FILE", type=Path, default=orders.SHIPPED, help="orders of your own, CSV or JSONL")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--script", metavar="FILE", type=Path, help="play a file (columns customer, text), all customers at once")
    mode.add_argument("--demo", dest="script", action="store_const", const=DEMO, help="play the shipped script")
    mode.add_argument("--humans", action="store_true", help="print and take the hand-overs that wait for your staff")
    parser.add_argument("--json", action="store_true", help="with a script: print each answer as a line of JSON")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    train = verbs.add_parser("train", help="learn intents from examples of your own")
    train.add_argument("--data", metavar="FILE", type=Path, required=True, help="examples (columns text, intent), CSV or JSONL")
    route = verbs.add_parser("route", help="tell the intents of texts")
    route.add_argument("--data", metavar="FILE", type=Path, required=True, help="texts (column text), CSV or JSONL")
    evaluate.add_arguments(verbs.add_parser("evaluate", help="measure intents and scope on public data"))
    return parser.parse_args()


def _name(text: str) -> str:
    try:
        return msgspec.convert(text, CustomerName)
    except msgspec.ValidationError:
        raise argparse.ArgumentTypeError(f"{text!r} is no name for a customer. Use letters, digits and _ . @ -") from None


async def _run(arguments: argparse.Namespace) -> int:
    async with AsyncKernel() as kernel:
        if arguments.verb == "train":
            return await _train(kernel, arguments.data)
        if arguments.verb == "route":
            return await _route(kernel, arguments.data)
        if arguments.verb == "evaluate":
            return await evaluate.run(kernel, arguments, own_folder(APP))
        if arguments.humans:
            return await _show_cases(kernel)
        return await _serve(kernel, arguments)


async def _serve(kernel: AsyncKernel, arguments: argparse.Namespace) -> int:
    questions = good_rows(arguments.script, Question) if arguments.script else []
    entries, known = good_rows(arguments.knowledge, knowledge.Entry), good_rows(arguments.orders, orders.Order)
    async with Desk.open(kernel, entries, known, own_folder(APP)) as desk:
        if questions:
            return await _play(desk, questions, as_json=arguments.json)
        await chat(desk, arguments.customer)
    return 0


async def _play(desk: Desk, questions: list[Question], *, as_json: bool) -> int:
    if as_json or not sys.stdout.isatty():
        return 0 if await run_script(desk, questions, JsonScreen() if as_json else PlainScreen()) else 1
    with LiveScreen() as screen:
        return 0 if await run_script(desk, questions, screen) else 1


async def _show_cases(kernel: AsyncKernel) -> int:
    async with Agent.spawn(kernel, "staff") as agent:
        async for case in waiting_cases(agent):
            print(f"{case.customer}: {case.reason}\n{case.summary}")
            for message in case.messages:
                print(f"    {message.role}: {message.text}", flush=True)
    return 0


async def _train(kernel: AsyncKernel, file: Path) -> int:
    examples = good_rows(file, intents.Example)
    async with Agent.spawn(kernel, "trainer", priority="batch") as agent:
        card = await intents.train(agent, examples, file.name, own_folder(APP))
    print(f"Learned {len(card.labels)} intents from {card.rows} examples of {card.data}; the next start of the desk uses them.")
    for name, value in card.figures.items():
        print(f"  {name.replace('_', ' ')}: {value:.3f}")
    return 0


async def _route(kernel: AsyncKernel, file: Path) -> int:
    texts = [row.text for row in good_rows(file, intents.Text)]
    async with Agent.spawn(kernel, "router") as agent:
        for text, route in zip(texts, await intents.route_all(agent, texts, own_folder(APP)), strict=True):
            print(json.dumps({"text": text, **route._asdict()}, ensure_ascii=False), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
