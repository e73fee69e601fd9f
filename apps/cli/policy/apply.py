"""`status`, `apply`, `rollback`, `history` and `fetch`: which policy is in force, and its change."""

from datetime import datetime
from pathlib import Path

import click

from kernos.syscalls.errors import BadRequestError, ConflictError
from kernos.syscalls.policy import ApplyPolicy, CheckPolicy, FetchPolicy, GetPolicy, Installed, ListGenerations, RollBackPolicy
from kernos.syscalls.sources import hash_files, read_files

from ..output import json_option, print_json, print_table
from ..session import ask
from .findings import print_changes, print_review
from .offline import folder_argument, working_copy


@click.command()
@json_option
def status(as_json: bool) -> None:
    """Show which policy is in force, and whether the working copy says the same."""
    reply = ask(GetPolicy())
    if as_json:
        print_json(reply)
        return
    click.echo(f"in force   {reply.hash}: {reply.rules} rules, {reply.roles} roles, {reply.cached} decisions remembered")
    if reply.generation:
        click.echo(f"came       generation {reply.generation}, {_when(reply.time)}, by {reply.author}: {reply.reason}")
    click.echo(f"draft      {_draft(reply.hash)}")
    if reply.shadow:
        click.echo(f"shadow     {reply.shadow}: see `kernos policy shadow --report`")
    if reply.alarm:
        click.secho(f"ALARM      {reply.alarm}", fg="red")


def _draft(active: str) -> str:
    folder = working_copy()
    try:
        same = hash_files(read_files(folder)) == active
    except BadRequestError as error:
        return f"none that can be read: {error}"
    return f"{folder} is what is in force" if same else f"{folder} differs: see `kernos policy diff`"


def _when(time: float) -> str:
    return datetime.fromtimestamp(time).astimezone().isoformat(" ", "seconds")


reason_option = click.option("--reason", "-m", default="", help="Why, for those who come after you.")


@click.command()
@folder_argument
@reason_option
@click.option("--dry-run", is_flag=True, help="Only show what would happen.")
@click.pass_context
def apply(ctx: click.Context, folder: Path | None, reason: str, dry_run: bool) -> None:
    """Put the policy in FOLDER (the working copy, if left out) into force, if it is sound and its tests pass.

    What is wrong with it, and what it changes, is shown first. Ends with 1, and the policy in force stays, if it is refused.
    """
    files = read_files(folder or working_copy())
    base = ask(GetPolicy()).hash
    review = ask(CheckPolicy(files=files))
    print_review(review)
    if not review.sound:
        click.secho(f"Refused. The policy in force is still {base}.", fg="red", err=True)
        ctx.exit(1)
    print_changes(review)
    if not dry_run:
        _confirm(ask(ApplyPolicy(files=files, reason=reason, base=base)), hash_files(files))


@click.command()
@click.argument("generation", type=click.IntRange(min=1), required=False)
@reason_option
def rollback(generation: int | None, reason: str) -> None:
    """Put GENERATION into force again, as a new one; if left out, the one before that in force.

    The working copy stays as it is, for you to correct.
    """
    _confirm(ask(RollBackPolicy(generation=generation or 0, reason=reason)))


def _confirm(done: Installed, expected: str = "") -> None:
    """Read back what the kernel decides by."""
    now = ask(GetPolicy())
    if now.hash != done.hash or (expected and now.hash != expected):
        raise ConflictError(f"The kernel decides by {now.hash}, not by {expected or done.hash}. Somebody has applied another policy since.")
    click.echo(f"Generation {done.generation} is in force: {now.hash}, {done.changed} decisions are other than before.")


@click.command()
@json_option
def history(as_json: bool) -> None:
    """List the generations that are kept, newest first."""
    reply = ask(ListGenerations())
    if as_json:
        print_json(reply)
        return
    rows = [
        (entry.number, "*" if entry.active else "", entry.hash, _when(entry.time), entry.author, entry.reason)
        for entry in reply.generations
    ]
    print_table(("GENERATION", "ACTIVE", "HASH", "INSTALLED", "BY", "REASON"), rows)


@click.command()
@click.argument("generation", type=click.IntRange(min=1))
@click.argument("folder", type=click.Path(path_type=Path))
def fetch(generation: int, folder: Path) -> None:
    """Write the files of GENERATION to FOLDER, which must not exist yet."""
    reply = ask(FetchPolicy(generation=generation))
    if folder.exists():
        raise ConflictError(f"{folder} is there already. Name a new folder.")
    for name, data in reply.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    click.echo(f"{len(reply.files)} files of generation {generation} ({reply.hash}) are in {folder}.")
