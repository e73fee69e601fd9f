"""`kernos run customer_service`, or `python -m kernos.apps.customer_service`: chat, play a script, or read the human queue."""

import argparse
import asyncio
import os
import sys
from pathlib import Path

import msgspec

from kernos.agents import Agent
from kernos.syscalls import AsyncKernel
from kernos.syscalls.errors import KernosError

from .chat import chat
from .handover import waiting_cases
from .knowledge import SHIPPED, Entry
from .lines import InputError, read_lines
from .screens import JsonScreen, LiveScreen, PlainScreen, explain
from .script import DEMO, CustomerName, Question, run_script
from .service import Desk


def main() -> int:
    """Do what the arguments say; 0 if all went well, 1 if not."""
    try:
        return asyncio.run(_run(_arguments()))
    except KernosError as error:
        print(f"customer_service: {explain(error)}", file=sys.stderr)
    except InputError as error:
        print(f"customer_service: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        return 130
    return 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("customer_service", description="Customer service of a shop, over Kernos.")
    parser.add_argument(
        "--customer", metavar="NAME", type=_name, default=os.environ.get("USER") or "guest", help="who chats (default: you)"
    )
    parser.add_argument("--knowledge", metavar="FILE", type=Path, default=SHIPPED, help="entries of your own, one JSON document per line")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--script", metavar="FILE", type=Path, help='play a file of lines {"customer": …, "text": …}, all customers at once')
    mode.add_argument("--demo", dest="script", action="store_const", const=DEMO, help="play the shipped script of three customers")
    mode.add_argument("--humans", action="store_true", help="print and take the hand-overs that wait for your staff")
    parser.add_argument("--json", action="store_true", help="with a script: print each answer as a line of JSON")
    return parser.parse_args()


def _name(text: str) -> str:
    try:
        return msgspec.convert(text, CustomerName)
    except msgspec.ValidationError:
        raise argparse.ArgumentTypeError(f"{text!r} is no name for a customer. Use letters, digits and _ . @ -") from None


async def _run(arguments: argparse.Namespace) -> int:
    questions = read_lines(arguments.script, Question) if arguments.script else []
    entries = read_lines(arguments.knowledge, Entry)
    async with AsyncKernel() as kernel:
        if arguments.humans:
            return await _show_cases(kernel)
        async with Desk.open(kernel, entries) as desk:
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
            print(f"{case.customer}: {case.reason}")
            for message in case.messages:
                print(f"    {message.role}: {message.text}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
