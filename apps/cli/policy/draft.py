"""`check`, `test`, `diff` and `edit`: work on a policy that is not in force. None of it needs a kernel, but for generations by number."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from kernos.syscalls.errors import ConflictError
from kernos.syscalls.policy import CheckPolicy, ComparePolicies, FetchPolicy, Review
from kernos.syscalls.sources import TESTS, Files, read_files

from ..output import json_option, print_json
from ..session import ask
from .findings import print_changes, print_findings, print_review
from .offline import ask_offline, folder_argument, working_copy


@click.command()
@folder_argument
@click.option("--strict", is_flag=True, help="Let warnings fail too.")
@json_option
@click.pass_context
def check(ctx: click.Context, folder: Path | None, strict: bool, as_json: bool) -> None:
    """Check the policy in FOLDER (the working copy, if left out): its lines, its roles, its tests.

    Shows file, line and column of what is wrong, and ends with 1 if anything is. Needs no kernel.
    """
    review = ask_offline(CheckPolicy(files=read_files(folder or working_copy())))
    if as_json:
        print_json(review)
    else:
        print_review(review)
    warned = strict and any(finding.severity == "warning" for finding in review.findings)
    ctx.exit(0 if review.sound and not warned else 1)


@click.command()
@folder_argument
@json_option
@click.pass_context
def test(ctx: click.Context, folder: Path | None, as_json: bool) -> None:
    """Run the tests of the policy in FOLDER (the working copy, if left out). Ends with 1 if one fails. Needs no kernel."""
    review = ask_offline(CheckPolicy(files=read_files(folder or working_copy())))
    failed = [finding for finding in review.findings if finding.file.startswith(f"{TESTS}/")]
    others = [finding for finding in review.findings if finding.severity == "error" and finding not in failed]
    if as_json:
        print_json({"tests": review.tests, "failed": failed, "errors": others})
    elif others:
        print_findings(others)
        click.echo("The tests were not run: first correct what is wrong with the policy.")
    else:
        print_findings(failed)
        click.echo(f"{review.tests - len(failed)} of {review.tests} tests pass")
    ctx.exit(1 if failed or others else 0)


@click.command()
@click.argument("old", default="active")
@click.argument("new", required=False)
@click.option("--no-new-access", is_flag=True, help="End with 1 if NEW allows more than OLD, or lets a label go further: for CI.")
@json_option
@click.pass_context
def diff(ctx: click.Context, old: str, new: str | None, no_new_access: bool, as_json: bool) -> None:
    """Show in which decisions, and where labels go, the policies OLD and NEW differ, whatever their text.

    Each is a folder, the number of a generation, or `active`; if left out, `active` and the working copy.
    """
    found = ask_offline(ComparePolicies(old=_files(old), new=_files(new) if new else read_files(working_copy())))
    if as_json:
        print_json(found)
    else:
        print_changes(found)
    widened = any(change.allowed for change in found.changes) or any(flow.wider for flow in found.flows) or found.left_out
    ctx.exit(1 if no_new_access and widened else 0)


def _files(name: str) -> Files:
    if name == "active" or name.isdecimal():
        return ask(FetchPolicy(generation=0 if name == "active" else int(name))).files
    return read_files(Path(name))


@click.command()
@click.argument("file")
def edit(file: str) -> None:
    """Edit FILE of the working copy, for instance policy.d/20-shop.csv, with $VISUAL or $EDITOR.

    You edit a copy. It takes the file's place when it is free of mistakes and all tests pass; then it still has to be applied.
    """
    folder = working_copy()
    with _locked(folder):
        data = _edited(folder, file)
        if data is None:
            click.echo(f"{file} is as it was.")
            return
        _replace(folder / file, data)
    click.echo(f"{file} is saved. It counts after `kernos policy apply`.")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One editor at a time."""
    with (folder / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConflictError(f"Somebody is editing {folder} already. Wait until they are done.") from None
        yield


def _edited(folder: Path, file: str) -> bytes | None:
    """What the editor made of a file, once it is sound; None: nothing."""
    files = read_files(folder)
    before = files.get(file, b"# end\n" if file.endswith(".csv") else b"")
    draft = before
    while True:
        draft = _run_editor(draft, Path(file).suffix)
        if draft == files.get(file):
            return None
        review = ask_offline(CheckPolicy(files={**files, file: draft}))
        if review.sound:
            print_findings(review.findings)
            return draft
        _show(review)
        if click.prompt("Edit again (e), or throw the change away (t)?", type=click.Choice(["e", "t"])) == "t":
            return None


def _show(review: Review) -> None:
    print_review(review)
    click.echo("This cannot be saved.")


def _run_editor(data: bytes, suffix: str) -> bytes:
    # click's own way with editors: $VISUAL, $EDITOR, or what is there.
    with tempfile.TemporaryDirectory(prefix="kernos-policy-") as private:
        copy = Path(private) / f"draft{suffix}"
        copy.write_bytes(data)
        click.edit(filename=str(copy))
        return copy.read_bytes()


def _replace(file: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    file.parent.mkdir(exist_ok=True)
    part = file.with_name(f".{file.name}.part")
    with part.open("wb") as output:
        output.write(data)
        output.flush()
        os.fsync(output.fileno())
    part.replace(file)
