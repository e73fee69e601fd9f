"""What the verbs of the command do, each over a kernel and a console."""

import argparse
import asyncio
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta
from rich.console import Console
from rich.text import Text

from kernos.agents import Agent, Toolbox
from kernos.agents.classifier import Card
from kernos.agents.embedding import Embedding
from kernos.agents.folder import own_folder
from kernos.agents.rows import InputError, good_rows
from kernos.syscalls import AsyncKernel

from .answers import APP, NOTICE, Answer, Desk
from .kinds import Kinds, Pair
from .library import SHIPPED, Passage
from .notes import read_note
from .notes.marked import FOLDER, read_marked
from .records import LONGEST, Kept, Note, Records, seen
from .verdicts import Study, Verdicts, cross_validated, labelled
from .views import page_of, show_answer, show_record

UserName = Annotated[str, Meta(max_length=64, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.@-]*\Z")]

_AT_ONCE: Final = 8
"""Questions of a file under way together: what a small machine computes side by side."""

_TOUR: Final = (
    "What is the most acetaminophen I may take in a day?",
    "Can I drink grapefruit juice with simvastatin?",
    "How is Wilson's disease inherited?",
    "My husband's face is drooping on one side and he can't speak properly.",
)


class Question(msgspec.Struct, frozen=True):
    """A row of a file of questions."""

    question: Annotated[str, Meta(min_length=1, max_length=4_000)]


async def serve(kernel: AsyncKernel, arguments: argparse.Namespace, console: Console) -> None:
    """Answer what is typed until the end of the input, and the agents of others by the tool `medical_qa/ask` meanwhile."""
    async with (
        _desk(kernel, arguments.library) as desk,
        Agent.spawn(kernel, "tools") as server,
        Toolbox(server.kernel, [desk.tool(server)]),
        _reader(kernel, arguments.user) as agent,
    ):
        console.print(f"{NOTICE} Ask a question (Ctrl-D ends).", style="dim")
        async for line in _typed():
            show_answer(console, await desk.answer(agent, line))


async def ask(kernel: AsyncKernel, arguments: argparse.Namespace, console: Console) -> None:
    """Answer one question, or all of a file, some at once."""
    if bool(arguments.question) == bool(arguments.file):
        raise InputError("Say one question, or name a file of questions with --file.")
    questions = [" ".join(arguments.question)] if arguments.question else [row.question for row in good_rows(arguments.file, Question)]
    limit = asyncio.Semaphore(_AT_ONCE)
    async with _desk(kernel, arguments.library) as desk, _reader(kernel, arguments.user) as agent:

        async def answered(question: str) -> Answer:
            async with limit:
                return await desk.answer(agent, question)

        for task in [asyncio.create_task(answered(question)) for question in questions]:
            _print_answer(console, await task, as_json=arguments.json)


async def add(kernel: AsyncKernel, arguments: argparse.Namespace, console: Console) -> None:
    """Keep notes as records, and show what was read."""
    notes = [note for path in arguments.files for note in _notes(path)]
    async with Records.open(kernel, arguments.user) as records:
        for note in notes:
            show_record(console, await records.add(note.id, note.text))


async def show(kernel: AsyncKernel, arguments: argparse.Namespace, console: Console) -> None:
    """Show one record."""
    async with Records.open(kernel, arguments.user) as records:
        owner = f"user:{arguments.owner}" if arguments.owner else None
        kept = await records.read(arguments.id, arguments.why, owner=owner)
    if arguments.json:
        print(msgspec.json.encode(kept).decode())
    elif arguments.html:
        print(page_of(kept))
    else:
        show_record(console, kept)


async def list_(kernel: AsyncKernel, arguments: argparse.Namespace, console: Console) -> None:
    """Name the records."""
    async with Records.open(kernel, arguments.user) as records:
        console.print("\n".join(await records.ids()) or "There are no records.")


async def find(kernel: AsyncKernel, arguments: argparse.Namespace, console: Console) -> None:
    """Show passages of notes that have to do with something."""
    async with Records.open(kernel, arguments.user) as records:
        for passage in await records.find(" ".join(arguments.query)):
            console.print(Text.assemble((passage.file.path.split("/")[1], "bold"), f"  {passage.text.strip()}"))


async def share(kernel: AsyncKernel, arguments: argparse.Namespace, console: Console) -> None:
    """Share a record with a colleague."""
    async with Records.open(kernel, arguments.user) as records:
        await records.share(arguments.id, arguments.colleague)
    console.print(f"{arguments.colleague} may read {arguments.id}.")


async def accesses(kernel: AsyncKernel, arguments: argparse.Namespace, console: Console) -> None:
    """Tell who looked at a record."""
    async with Records.open(kernel, arguments.user) as records:
        for why, file in await records.accesses(arguments.id):
            console.print(f"{seen(file)}  {file.author}  {why}")


async def flagged(kernel: AsyncKernel, arguments: argparse.Namespace, console: Console) -> None:
    """Show what waits in the queue of values out of range, and take it."""
    async with Records.open(kernel, arguments.user) as records:
        async for line in records.flagged():
            console.print(line)


async def train(kernel: AsyncKernel, arguments: argparse.Namespace, console: Console) -> None:
    """Train the head of verdicts (from JSONL of studies) or those of kinds (from CSV of questions and answers), and keep them."""
    if arguments.data.suffix.lower() == ".csv":
        async with Agent.spawn(kernel, "trainer") as agent:
            card = await _train_kinds(agent, arguments.data)
    else:
        studies = labelled(good_rows(arguments.data, Study), arguments.data)
        figures = {"accuracy": round(cross_validated(studies), 4)}
        card = Card(task="verdict", data=arguments.data.name, rows=len(studies), encoder="", figures=figures)
        Verdicts.fit(studies).save(own_folder(APP) / "verdict", card)
    told = "".join(f"; {name} {value:.3f} on rows left out" for name, value in card.figures.items())
    console.print(f"Trained the head of {card.task} on {card.rows} rows of {card.data}{told}.")


async def _train_kinds(agent: Agent, path: Path) -> Card:
    """Train the heads of kinds on the pairs of a file that have a kind."""
    pairs = [pair for pair in good_rows(path, Pair) if pair.qtype]
    embedding = await Embedding.open(agent, own_folder(APP) / "vectors")
    questions = await embedding.embed([pair.question for pair in pairs])
    texts = await embedding.embed([pair.answer for pair in pairs])
    card = Card(task="kinds", data=path.name, rows=len(pairs), encoder=embedding.model)
    Kinds.fit(pairs, questions, texts).save(own_folder(APP) / "kinds", card)
    return card


async def verdict(_kernel: AsyncKernel, arguments: argparse.Namespace, _console: Console) -> None:
    """Print a line of JSON for each study."""
    for said in Verdicts.load(own_folder(APP) / "verdict").of(good_rows(arguments.data, Study)):
        print(msgspec.json.encode(said).decode(), flush=True)


async def demo(kernel: AsyncKernel, arguments: argparse.Namespace, console: Console) -> None:
    """Four questions, then a note and what is read from it. No record is kept: who runs this need not be a clinician."""
    async with _desk(kernel, SHIPPED) as desk, _reader(kernel, arguments.user) as agent:
        for question in _TOUR:
            console.print(Text(f"\n? {question}", style="bold"))
            show_answer(console, await desk.answer(agent, question))
    note = read_marked(FOLDER / "tuning.txt")[2]
    console.print(Text("\nA note that was made up, and what is read from it:", style="bold"))
    console.print(note.text, style="dim")
    show_record(console, Kept(note.id, note.text, read_note(note.text)))


@asynccontextmanager
async def _desk(kernel: AsyncKernel, library: Path) -> AsyncIterator[Desk]:
    async with Desk.open(kernel, good_rows(library, Passage)) as desk:
        yield desk


@asynccontextmanager
async def _reader(kernel: AsyncKernel, user: str) -> AsyncIterator[Agent]:
    async with Agent.spawn(kernel, "reader", user=f"user:{user}", priority="interactive") as agent:
        yield agent


def _notes(path: Path) -> list[Note]:
    """The notes of a file: itself if it is plain text, else its rows."""
    if path.suffix.lower() in (".csv", ".jsonl"):
        return good_rows(path, Note)
    try:
        return [msgspec.convert({"id": path.stem, "text": path.read_text("utf-8")}, Note)]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}. It should be a file of text in UTF-8.") from None
    except msgspec.ValidationError as error:
        raise InputError(f"{path} is no note: {error}. Its name becomes the record's; a note has 1 to {LONGEST} characters.") from None


def _print_answer(console: Console, answer: Answer, *, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode(answer).decode(), flush=True)
    else:
        console.print(Text(f"\n? {answer.question}", style="bold"))
        show_answer(console, answer)


async def _typed() -> AsyncIterator[str]:
    """The lines of the input, without empty ones. A thread reads them that does not hold up the end of the program."""
    loop, lines = asyncio.get_running_loop(), asyncio.Queue[str]()

    def read() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(lines.put_nowait, line)
        loop.call_soon_threadsafe(lines.put_nowait, "")

    threading.Thread(target=read, daemon=True).start()
    while line := await lines.get():
        if line.strip():
            yield line.strip()
