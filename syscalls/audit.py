"""`audit.*`: what was decided, read from a log in which every line is sealed on the one before.

Recorded are all denied calls, refused connections, and calls that change something (with `audit = "all"` in kernos.toml, every call). A
line holds who asked for what and how it ended, never what a call carried: no text, no keys, no data.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from .bounds import Pid, ShortText
from .call import Call

Number = Annotated[int, Meta(ge=0, le=(1 << 53))]
"""The place of an entry in the log, from 1; the next one has the next number, and none is left out."""

Who = Annotated[str, Meta(max_length=80)]
"""A principal, or empty where none was proven."""

Time = Annotated[float, Meta(ge=0)]
"""Seconds since the Unix epoch."""


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """A decision, or how a call ended whose decision has an entry of its own already."""

    number: Number
    time: Time
    principal: Who = ""
    pid: Pid = 0
    """The agent that called; 0: the principal itself."""
    user: Who = ""
    """Whom the agent acts for."""
    call: Annotated[str, Meta(max_length=64)] = ""
    """The call, or `connect`, or an event of the kernel itself (`kernel.start`, `audit.lost`)."""
    objects: Annotated[list[ShortText], Meta(max_length=8)] = []
    """What the policy was asked about, each as `object:action`; of a denied call the one that was denied."""
    verdict: Literal["allow", "deny", ""] = ""
    rule: ShortText = ""
    """What decided where something was denied: the rule with its place, or a reason; empty: no rule allowed it."""
    policy: ShortText = ""
    """Hash of the policy that decided."""
    outcome: ShortText = ""
    """`ok`, the code of an error, `repeated` (an idempotency key was answered from memory), or empty: it had not ended when this was
    written, and `of` of a later entry is this one's number."""
    of: Number = 0
    """The entry of the decision, if this one only says how its call ended."""


class Entries(msgspec.Struct, frozen=True):
    """Entries in the order of their numbers; each has its outcome by now, if it is known."""

    entries: Annotated[list[Entry], Meta(max_length=1_000)]


class Lines(msgspec.Struct, frozen=True):
    """Lines as they stand in the log, seals included."""

    lines: Annotated[list[Annotated[str, Meta(max_length=16_384)]], Meta(max_length=1_000)]
    next: Number
    """Number of the entry to go on from; 0: that was all."""


class Finding(msgspec.Struct, frozen=True):
    """Something that is not as it was written."""

    file: ShortText
    line: Number
    """From 1; 0: the file as a whole."""
    offset: Number
    """Where that line begins, in bytes."""
    what: ShortText


class Verified(msgspec.Struct, frozen=True):
    """What was found. `findings` is empty if every line since the first kept one stands as it was written, and none is missing."""

    entries: Number
    files: Number
    last: Number
    findings: Annotated[list[Finding], Meta(max_length=1_000)]


class ReadAudit(Call[Entries], tag="audit.read", frozen=True):
    """The newest entries that fit all that is given, at most `limit`."""

    limit: Annotated[int, Meta(ge=1, le=1_000)] = 50
    after: Number = 0
    """Only those with a higher number."""
    principal: Who = ""
    """Whose calls, or whom they were made for."""
    name: Annotated[str, Meta(max_length=64)] = ""
    """A call (`tool.call`), or a family (`tool`)."""
    text: Annotated[str, Meta(max_length=256)] = ""
    """Something that stands in an object, a rule, a policy or an outcome."""
    verdict: Literal["allow", "deny", ""] = ""
    since: Time = 0.0
    until: Time | None = None


class ExportAudit(Call[Lines], tag="audit.export", frozen=True):
    """The log's own lines from an entry on (0: from the first that is kept), to be stored elsewhere."""

    start: Number = 0
    limit: Annotated[int, Meta(ge=1, le=1_000)] = 1_000


class VerifyAudit(Call[Verified], tag="audit.verify", frozen=True):
    """Check every line that is kept against its seal, and the end of every file against what the database says of it."""
