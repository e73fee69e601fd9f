"""The shapes of what crosses the wire: every string, list and map is bounded here, so that no request can be large by surprise.

A bound is part of the ABI: widening one is a minor change, narrowing one a major change.
"""

from typing import Annotated, Final

from msgspec import Meta

MAX_MESSAGE_BYTES: Final = 1 << 20
"""Largest frame a kernel takes, in bytes (libzmq cuts a peer that sends a larger one before it is buffered)."""

MAX_FRAMES: Final = 2
"""Frames of a message: header and body."""

Name = Annotated[str, Meta(max_length=64, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*\Z")]
"""A plain name of an agent, an app or a model: letters, digits, `_`, `.` and `-`."""

Principal = Annotated[str, Meta(max_length=80, pattern=r"^(user|app|agent|device|admin):[A-Za-z0-9_][A-Za-z0-9_.@-]*\Z")]
"""Who holds a key or is acted for: a kind, a colon and a name, as in `app:customer_service`."""

PublicKey = Annotated[str, Meta(min_length=40, max_length=40)]
"""A public CURVE key, as Z85 text."""

User = Annotated[str, Meta(max_length=80, pattern=r"^user:[A-Za-z0-9_][A-Za-z0-9_.@-]*\Z")]
"""A principal an agent can act for. No other kind: whoever an agent acts for owns what it sees."""

Path = Annotated[str, Meta(max_length=200, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*\Z")]
"""Segments joined by `/`; none is empty or begins with a dot, so a path cannot leave its root."""

Id = Annotated[str, Meta(max_length=40, pattern=r"^[a-z0-9]+\Z")]
"""An identifier made by the kernel."""

Pid = Annotated[int, Meta(ge=0, le=(1 << 53))]
"""A row of the process table; 0 stands for the principal itself, which has no row."""

CallId = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
"""Chosen by the client at random for its first call and counted up from there, so ids of two clients do not meet."""

Time = Annotated[float, Meta(ge=0, le=253_402_300_799)]
"""Seconds since the Unix epoch, up to the end of the year 9999."""

Text = Annotated[str, Meta(max_length=262_144)]
"""Text of a prompt or a message, in characters."""

ShortText = Annotated[str, Meta(max_length=1_024)]
"""A sentence or two: a description, a reason."""

Json = Annotated[str, Meta(max_length=65_536)]
"""A JSON document as text. It stays text on the wire because an open-ended type would let a request nest without bound."""

LabelNames = Annotated[list[Name], Meta(max_length=64)]
"""Labels of data, such as `phi` and `untrusted`: whoever reads the data carries them from then on."""

Labels = Annotated[dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=1_024)]], Meta(max_length=32)]
"""Small facts by name, as in the details of an error."""
