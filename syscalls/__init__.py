"""The system call interface of Kernos: everything an app needs to talk to the kernel, on msgspec and pyzmq alone."""

from . import bounds, context, errors, message, model, policy, process, store, system, tool
from .aio import AsyncKernel, AsyncStream
from .call import Call, Done, StreamingCall
from .client import Kernel, Stream
from .keys import Key
from .objects import Context, Store
from .places import Places, places
from .table import NAMES, ROWS, TABLE, Cost, Row
from .version import MAJOR, MINOR

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
