"""What `/proc` says of a process: whose child it is, and what tells it from a later one of the same pid."""

from pathlib import Path


def start_time(os_pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 if there is none of this pid."""
    return _field(os_pid, 19)


def parent_of(os_pid: int) -> int:
    """The process that started another; 0 if there is none of this pid."""
    return _field(os_pid, 1)


def _field(os_pid: int, at: int) -> int:
    try:
        text = Path(f"/proc/{os_pid}/stat").read_text("ascii", "replace")
    except OSError:
        return 0
    # The name in parentheses may hold spaces and parentheses; the fields are counted from behind it.
    return int(text.rpartition(")")[2].split()[at])
