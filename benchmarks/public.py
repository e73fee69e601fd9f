"""Where the public data sets lie that nothing here may ship: `KERNOS_DATA`, or `shared/data` beside the repository."""

import os
from pathlib import Path
from typing import Final

BESIDE: Final = Path(__file__).parents[2] / "shared" / "data"


def data_folder() -> Path:
    """The folder with a folder per set. It need not exist: whoever reads a set says what is missing."""
    return Path(os.environ.get("KERNOS_DATA") or BESIDE)
