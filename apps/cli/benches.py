"""`kernos bench`: run one of the project's benchmarks, where a working copy of the project is at hand."""

import subprocess
import sys
from pathlib import Path

import click

import kernos


@click.command(context_settings={"allow_interspersed_args": False})
@click.argument("name")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def bench(ctx: click.Context, name: str, args: tuple[str, ...]) -> None:
    """Run the benchmark NAME; ARGS go to it, for instance --quick."""
    folder = _folder()
    names = sorted(path.stem for path in folder.glob("*.py") if '__name__ == "__main__"' in path.read_text("utf-8"))
    if name not in names:
        raise click.BadParameter(f"there is no benchmark {name!r}. {_known(folder, names)}", param_hint="NAME")
    done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *args], cwd=folder.parent, check=False)  # noqa: S603
    ctx.exit(done.returncode)


def _folder() -> Path:
    """Beside the package in a working copy; a plain installation has none."""
    return Path(kernos.__file__).resolve().parents[2] / "benchmarks"


def _known(folder: Path, names: list[str]) -> str:
    if names:
        return f"There are: {', '.join(names)}."
    return f"Benchmarks come with a working copy of the project, not with the installed package (looked in {folder})."
