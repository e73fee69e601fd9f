"""The kernel's log: one line per event, for people; time, level, place, text."""

import logging
from pathlib import Path

_FORM = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


def open_log(folder: Path) -> None:
    """Log to `kernel.log` in a folder that only the owner can read."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    handler = logging.FileHandler(folder / "kernel.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter(_FORM))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("casbin").setLevel(logging.WARNING)  # it logs every policy line and every decision
