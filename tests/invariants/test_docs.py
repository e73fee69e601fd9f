"""The generated pages say what the source says."""

import subprocess
import sys
from pathlib import Path

from kernos.syscalls import MAJOR, MINOR, NAMES, errors

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "syscalls.md"


def generate(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "docs.generate", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_reference_is_up_to_date() -> None:
    checked = generate("--check")
    assert checked.returncode == 0, checked.stderr


def test_the_reference_names_every_call_and_error() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert [name for name in NAMES if f"### {name}\n" not in page] == []
    assert [code for code in errors.ERRORS if f"| `{code}` |" not in page] == []


def test_the_protocol_document_is_of_the_same_version() -> None:
    assert f"version {MAJOR}.{MINOR}" in (ROOT / "docs" / "wire.md").read_text(encoding="utf-8")
