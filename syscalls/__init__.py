"""The system call interface of Kernos: everything an app needs to talk to the kernel, on msgspec and pyzmq alone."""

from typing import TYPE_CHECKING, Any

from . import bounds, context, errors, message, model, policy, process, store, system, tool
from .call import Call, Done, StreamingCall
from .client import Kernel, Stream
from .keys import Key
from .objects import Context, Store
from .places import Places, places
from .table import NAMES, ROWS, TABLE, Cost, Row
from .version import MAJOR, MINOR

if TYPE_CHECKING:
    from .aio import AsyncKernel, AsyncStream

__all__ = [
    "MAJOR",
    "MINOR",
    "NAMES",
    "ROWS",
    "TABLE",
    "AsyncKernel",
    "AsyncStream",
    "Call",
    "Context",
    "Cost",
    "Done",
    "Kernel",
    "Key",
    "Places",
    "Row",
    "Store",
    "Stream",
    "StreamingCall",
    "bounds",
    "context",
    "errors",
    "message",
    "model",
    "places",
    "policy",
    "process",
    "store",
    "system",
    "tool",
]


def __getattr__(name: str) -> Any:
    """What needs asyncio, when it is asked for: the kernel and most programs do not, and it would be a sixth of the kernel's start."""
    if name in ("AsyncKernel", "AsyncStream"):
        from . import aio

        return getattr(aio, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
