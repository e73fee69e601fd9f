"""How a peer talks with the benchmark: JSON lines on its standard input and output. Runs in its environment, so: standard library only.

The first line that a peer writes says what it is: `{"version": "...", "dtype": "..."}`. From then on each line that it reads asks for
something, `{"id": 7, "do": "generate", "prompt": [...], "new": 64}`, and is answered by lines with the same id, of which the last has no
`more`. Whatever libraries print goes to standard error.
"""

import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

Line = dict[str, Any]
Tell = Callable[[Line], None]

_PR_SET_PDEATHSIG: Final = 1


def claim_output() -> Tell:
    """Take standard output for the protocol, before anybody else prints, and end with the benchmark; gives what writes a line."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    out = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)

    def tell(line: Line) -> None:
        out.write(json.dumps(line) + "\n")

    return tell


def serve(tell: Tell, facts: Line, does: Mapping[str, Callable[..., Line]]) -> None:
    """For engines that do one thing at a time: answer every line, until there are no more."""
    tell(facts)
    for line in sys.stdin:
        request = json.loads(line)
        tell({"id": request.pop("id")} | does[request.pop("do")](**request))
