from collections.abc import Callable
from pathlib import Path

from click.testing import Result

Shell = Callable[..., Result]


def write_log(home: Path, name: str, lines: int) -> None:
    folder = home / "state" / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(f"line {number}\n" for number in range(1, lines + 1)))


def test_the_last_lines_of_the_kernel_are_printed(home: Path, shell: Shell) -> None:
    write_log(home, "kernel.log", 9)
    assert shell("logs", "-n", "2").stdout == "line 8\nline 9\n"


def test_a_log_is_named_with_or_without_its_ending(home: Path, shell: Shell) -> None:
    write_log(home, "decoders.log", 1)
    assert shell("logs", "decoders").stdout == shell("logs", "decoders.log").stdout == "line 1\n"


def test_a_wrong_name_is_told_the_logs_there_are(home: Path, shell: Shell) -> None:
    write_log(home, "kernel.log", 1)
    result = shell("logs", "../../config/keys/admin")
    assert result.exit_code == 2
    assert "There are: kernel." in result.stderr


def test_before_the_first_start_it_says_how_logs_come_about(shell: Shell) -> None:
    assert "kernos serve --detach" in shell("logs").stderr
