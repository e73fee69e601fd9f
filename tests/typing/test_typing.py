"""Both type checkers see in `example.py` what its comments say, line by line, and errors nowhere else."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).with_name("example.py")
ROOT = Path(__file__).parents[2]

Findings = dict[int, str]
"""By line: the type revealed, without its modules, or `error`."""


def said() -> Findings:
    """What the comments say."""
    lines = enumerate(EXAMPLE.read_text(encoding="utf-8").splitlines(), 1)
    return {number: comment for number, line in lines if (comment := line.partition("  # ")[2])}


def bare(revealed: str) -> str:
    """A type without its modules."""
    return re.sub(r"\b(\w+\.)+", "", revealed)


def run(*command: str) -> str:
    environment = os.environ | {"MYPYPATH": str(ROOT / "src")}
    return subprocess.run([sys.executable, "-m", *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False).stdout


def findings(messages: list[tuple[int, str, str]], revealed: re.Pattern[str]) -> Findings:
    """From line, severity and text of each message."""
    found: Findings = {}
    for line, severity, text in messages:
        match = revealed.search(text)
        if match or severity == "error":
            found[line] = bare(match[1]) if match else "error"
    return found


def test_the_comments_cover_every_line_of_interest() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    assert len(said()) == text.count("reveal_type(") + text.count("# error")


def test_mypy_sees_it() -> None:
    output = run("mypy", "--strict", "--no-error-summary", str(EXAMPLE))
    lines = re.findall(r"^.*example\.py:(\d+): (error|note): (.*)$", output, re.MULTILINE)
    assert findings([(int(line), severity, text) for line, severity, text in lines], re.compile(r'Revealed type is "(.*)"')) == said(), (
        output
    )


def test_pyright_sees_it() -> None:
    output = run("pyright", "--outputjson", str(EXAMPLE))
    reports = json.loads(output)["generalDiagnostics"]
    messages = [(report["range"]["start"]["line"] + 1, report["severity"], report["message"]) for report in reports]
    assert findings(messages, re.compile(r'Type of ".*" is "(.*)"', re.DOTALL)) == said(), output
