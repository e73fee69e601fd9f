"""Records: notes of patients and what was read from them, kept by the kernel for one clinician.

    async with Records.open(kernel, "carla") as records:
        kept = await records.add("p-17", note)
        kept = await records.read("p-17", "ward round")

Every file of a record carries the label `phi`. The policy (`flows.csv`) lets `phi` reach agents of this app that act for a user with the
role `clinician`, and nobody else, whatever call would take it there; so what keeps records apart is the kernel, not this module. Who looks
at a record says why, and that is written down first, as a version of the file `accesses/ID` beside it, whose author is the reader: so
`Records.accesses` tells its owner of all looks, those of colleagues too, and as it is a write the audit log has them as well.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Annotated, Final, Self

import msgspec
from msgspec import Meta

from kernos.agents import Agent
from kernos.agents.rows import InputError
from kernos.syscalls import AsyncKernel
from kernos.syscalls.errors import BusyError, DeadlineError, DeniedError
from kernos.syscalls.message import Receive, Send
from kernos.syscalls.store import DeleteFile, File, FoundPassage, GetFile, ListFiles, ListVersions, PutFile, SearchFiles, ShareFiles

from .notes import Record, read_note

LABEL: Final = "phi"
QUEUE: Final = "queue/medical_qa"
"""Where clinicians are told of values that are out of range; the label may go there and no further."""

LONGEST: Final = 100_000
"""Characters of a note: some forty pages."""

_EMPTY_S: Final = 0.5
"""A queue that gives nothing for so long is empty."""

RecordId = Annotated[str, Meta(max_length=64, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*\Z")]


class Note(msgspec.Struct, frozen=True):
    """A note as somebody brings it, under a name of theirs."""

    id: RecordId
    text: Annotated[str, Meta(min_length=1, max_length=LONGEST)]


class Kept(msgspec.Struct, frozen=True):
    """A record: the note and what was read from it, every field with its span of the note."""

    id: str
    text: str
    record: Record


class NoClinicianError(InputError):
    """Somebody who is not a clinician wants something of records."""

    def __init__(self, user: str) -> None:
        super().__init__(
            f"{user} may not read records: they carry the label {LABEL}, which reaches only clinicians. An administrator makes one: "
            f"`kernos policy edit roles.d/50-clinic.csv`, a line `g, {user}, role:clinician`, then `kernos policy apply`."
        )


class Records:
    """The records of one clinician."""

    def __init__(self, agent: Agent, user: str) -> None:
        self._agent = agent
        self._user = user

    @classmethod
    @asynccontextmanager
    async def open(cls, kernel: AsyncKernel, clinician: str) -> AsyncIterator[Self]:
        """As this clinician, for as long as the block lasts; `NoClinicianError` leaves it where a record may not be read."""
        user = f"user:{clinician}"
        async with Agent.spawn(kernel, "records", user=user, priority="interactive") as agent:
            try:
                yield cls(agent, user)
            except DeniedError as error:
                raise (NoClinicianError(user) if LABEL in error.details.get("action", "") else error) from None

    async def add(self, id_: str, text: str) -> Kept:
        """Read a note and keep it with what was read; a note of the same name becomes its next version."""
        note = f"records/{id_}/note"
        await self._agent.call(PutFile(path=note, data=text.encode(), labels=[LABEL]))
        try:
            await self._agent.call(GetFile(path=note, limit=1))
        except DeniedError:
            await self._agent.call(DeleteFile(path=note))
            raise
        record = read_note(text)
        await self._agent.call(PutFile(path=f"records/{id_}/record", data=msgspec.json.encode(record), labels=[LABEL]))
        if flagged := [value for value in record.laboratory if value.flag and value.flag.value != "normal"]:
            told = ", ".join(f"{value.name.value} {value.value.value}" for value in flagged)
            with suppress(BusyError):  # a queue that nobody empties; the record says it too
                await self._agent.kernel.call(Send(to=QUEUE, text=f"{self._user}: {id_}: out of range: {told}", labels=[LABEL]))
        return Kept(id_, text, record)

    async def read(self, id_: str, why: str, *, owner: str | None = None) -> Kept:
        """A record of one's own, or of a colleague who shares it; who looks at it, when and why is written down first."""
        await self._agent.call(PutFile(path=f"accesses/{id_}", data=why.encode(), owner=owner))
        text, record = [await self._bytes(f"records/{id_}/{part}", owner) for part in ("note", "record")]
        return Kept(id_, text.decode(), msgspec.json.decode(record, type=Record))

    async def ids(self) -> list[str]:
        """The names of all records."""
        files = (await self._agent.call(ListFiles(prefix="records/"))).files
        return sorted({file.path.split("/")[1] for file in files})

    async def find(self, query: str, limit: int = 5) -> list[FoundPassage]:
        """Passages of notes that have to do with a query, the best first."""
        found = await self._agent.call(SearchFiles(query=query, prefix="records/", limit=2 * limit))
        return [passage for passage in found.passages if passage.file.path.endswith("/note")][:limit]

    async def share(self, id_: str, colleague: str) -> None:
        """Let a colleague read a record, and write down each look; `NoClinicianError` for whoever is none."""
        await self._agent.call(GetFile(path=f"records/{id_}/note", limit=1))
        try:
            await self._agent.call(ShareFiles(path=f"accesses/{id_}", principal=f"user:{colleague}", access="write"))
            await self._agent.call(ShareFiles(path=f"records/{id_}", principal=f"user:{colleague}", access="read"))
        except DeniedError:
            raise NoClinicianError(f"user:{colleague}") from None

    async def accesses(self, id_: str) -> list[tuple[str, File]]:
        """Each look at a record of one's own: why, and the file that says by whom and when."""
        versions = (await self._agent.call(ListVersions(path=f"accesses/{id_}"))).files
        reasons = [await self._agent.call(GetFile(path=file.path, version=file.version)) for file in versions]
        return [(part.data.decode(), file) for part, file in zip(reasons, versions, strict=True)]

    async def flagged(self) -> AsyncIterator[str]:
        """Take what waits in the queue of values that are out of range."""
        while True:
            try:
                yield (await self._agent.call(Receive(mailbox=QUEUE), timeout=_EMPTY_S)).text
            except DeadlineError:
                return

    async def _bytes(self, path: str, owner: str | None) -> bytes:
        data = bytearray()
        while True:
            part = await self._agent.call(GetFile(path=path, start=len(data), owner=owner))
            data += part.data
            if len(data) >= part.file.size:
                return bytes(data)


def seen(file: File) -> str:
    """When a file was written, for people."""
    return datetime.fromtimestamp(file.time, UTC).isoformat(sep=" ", timespec="seconds")
