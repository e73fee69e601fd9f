"""An app as a command: what it says when it fails, and its exit code."""

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any

from kernos.syscalls.errors import KernosError

from .rows import InputError


def run_command(app: str, work: Coroutine[Any, Any, int | None]) -> int:
    """Do the work of an app; its exit code: the work's own (`None`: 0), 1 after an error, which is told, 130 when it was interrupted."""
    try:
        return asyncio.run(work) or 0
    except KernosError as error:
        print(f"{app}: {explain(error)}", file=sys.stderr)
    except InputError as error:
        print(f"{app}: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        return 130
    return 1


def explain(error: KernosError) -> str:
    """An error of the system in two sentences: what happened, and what to do."""
    return f"{error.message} ({error.code}) {error.advice}"
