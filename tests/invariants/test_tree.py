"""The size of files and functions, and what no tracked file may hold."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("syscalls", "kernel", "agents", "apps", "benchmarks", "docs", "examples")
MAX_FILE = 500
MAX_FUNCTION = 50

MACHINE = re.compile(
    # Word parts in classes of one letter, so that this file does not match itself.
    r"/[w]ork/(main|shared)|/[r]oot/|/[h]ome/[a-z]|/[t]mp/v/|/[o]pt/(pypi|wheels)|[a]rtifactory|[n]exus\.|[m]irrors?\.|index[-_]url|[f]ind[-_]links"
)
"""Paths of a developer's machine, and where its packages came from."""


def sources() -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def tracked() -> Iterator[Path]:
    """Files that git has or would take."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    yield from (ROOT / name for name in listed if name and (ROOT / name).is_file())


def test_no_file_is_too_long_to_read() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in sources()}
    assert len(lengths) > 20
    assert {name: length for name, length in lengths.items() if length > MAX_FILE} == {}


def test_no_function_is_too_long_to_read() -> None:
    lengths = {
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert len(lengths) > 100
    assert {name: length for name, length in lengths.items() if length > MAX_FUNCTION} == {}


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in tracked()
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if MACHINE.search(line)
    ]
    assert found == []


def test_the_pattern_finds_such_paths() -> None:
    assert MACHINE.search("/".join(["", "work", "main", "kernel"]))
    assert MACHINE.search("-".join(["--extra", "index", "url"]))
