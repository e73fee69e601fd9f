"""`kernos run medical_qa`, or `python -m kernos.apps.medical_qa`: ask questions, keep records, train, measure."""

import argparse
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console

from kernos.agents.command import run_command
from kernos.syscalls import AsyncKernel

from . import commands, evaluate
from .library import SHIPPED
from .records import RecordId

Verb = Callable[[AsyncKernel, argparse.Namespace, Console], Awaitable[None]]

_VERBS: Final[dict[str, Verb]] = {
    "serve": commands.serve,
    "demo": commands.demo,
    "ask": commands.ask,
    "add": commands.add,
    "show": commands.show,
    "list": commands.list_,
    "find": commands.find,
    "share": commands.share,
    "accesses": commands.accesses,
    "flagged": commands.flagged,
    "verdict": commands.verdict,
    "train": commands.train,
    "evaluate": evaluate.run,
}


def main() -> int:
    """Do what the arguments say; 0 if all went well, 1 if not."""
    arguments = _arguments()
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 160)
    return run_command("medical_qa", _run(_VERBS[arguments.verb], arguments, console))


async def _run(verb: Verb, arguments: argparse.Namespace, console: Console) -> None:
    async with AsyncKernel() as kernel:
        await verb(kernel, arguments, console)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("medical_qa", description="Medical questions and records, over Kernos. Not a medical device.")
    parser.set_defaults(verb="serve", library=SHIPPED, user=_user(os.environ.get("USER") or "guest"))
    parser.add_argument("--demo", dest="verb", action="store_const", const="demo", help="a tour on shipped data")
    verbs = parser.add_subparsers(metavar="VERB")
    _asking(parser, verbs)
    _records(verbs)
    _measuring(verbs)
    return parser.parse_args()


def _asking(parser: argparse.ArgumentParser, verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    ask = _verb(verbs, "ask", "answer one question, or each of a file")
    ask.add_argument("question", nargs="*", help="the question")
    ask.add_argument("--file", metavar="FILE", type=Path, help="CSV or JSONL with a column `question`")
    ask.add_argument("--json", action="store_true", help="print each answer as a line of JSON")
    for one in (parser, ask):
        one.add_argument("--library", metavar="FILE", type=Path, default=SHIPPED, help="CSV or JSONL of passages: id, title, text")
        one.add_argument("--user", metavar="NAME", type=_user, default=argparse.SUPPRESS, help="who asks (default: you)")


def _records(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    add = _verb(verbs, "add", "read notes and keep them as records of a clinician")
    add.add_argument("files", metavar="FILE", nargs="+", type=Path, help="a note (.txt), or CSV or JSONL with the columns id, text")
    show = _verb(verbs, "show", "show a record with its sources")
    show.add_argument("--why", default="not said", help="why you look at it; it is written down")
    show.add_argument("--owner", type=_user, help="the colleague who shares it")
    form = show.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print it as JSON")
    form.add_argument("--html", action="store_true", help="print it as an HTML page")
    find = _verb(verbs, "find", "find passages of notes by meaning and words")
    find.add_argument("query", nargs="+")
    share = _verb(verbs, "share", "let a colleague read a record")
    share.add_argument("--colleague", type=_user, required=True)
    accesses = _verb(verbs, "accesses", "tell who looked at a record, when and why")
    for one in (show, share, accesses):
        one.add_argument("id", type=_id)
    listing, flagged = _verb(verbs, "list", "list records"), _verb(verbs, "flagged", "take what waits of values out of range")
    for one in (add, show, find, share, accesses, listing, flagged):
        one.add_argument("--clinician", dest="user", metavar="NAME", type=_user, default=argparse.SUPPRESS, help="whose (default: you)")


def _measuring(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    told = {"train": "train the heads of verdicts (JSONL) or of kinds of questions (CSV)", "verdict": "say whether studies answer with yes"}
    for name, text in told.items():
        one = _verb(verbs, name, text)
        one.add_argument("--data", metavar="FILE", type=Path, required=True, help="rows; see README.md")
    measure = _verb(verbs, "evaluate", "measure on public data")
    measure.add_argument("--data", metavar="DIR", type=Path, required=True, help="the folder with medquad/ and pubmedqa/")
    measure.add_argument("--quick", action="store_true", help="on samples, in under a minute")
    measure.add_argument("--json", action="store_true", help="print one JSON object")


def _verb(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, told: str) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=told, description=told)
    parser.set_defaults(verb=name)
    return parser


def _id(text: str) -> str:
    try:
        return msgspec.convert(text, RecordId)
    except msgspec.ValidationError:
        raise argparse.ArgumentTypeError(f"{text!r} is no name for a record. Use letters, digits and _ . -") from None


def _user(text: str) -> str:
    try:
        return msgspec.convert(text, commands.UserName)
    except msgspec.ValidationError:
        raise argparse.ArgumentTypeError(f"{text!r} is no name for a user. Use letters, digits and _ . @ -") from None


if __name__ == "__main__":
    sys.exit(main())
