"""`store.*`. The policy was asked about the path; whether somebody else's files are shared with the caller, the database says.

A file is charged with all its versions, to those on whose behalf it was last written: its owner and an app.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from kernos.syscalls import store as abi
from kernos.syscalls.call import Done

from ..conversations import count
from ..core.quotas import Payers
from ..memory import filestore, library, recall, uploads
from ..memory.connection import Connection
from ..memory.filestore import FileRow, Total
from ..memory.library import Change
from ..outflows import to_principal
from ..recalls import Vector, points_of
from ..storage import Charge
from ..system import System
from ..tickets import LATER, Later, Ticket


@dataclass(frozen=True)
class _Written:
    """A version that was written, what its file was charged before and what it is charged now."""

    row: FileRow
    before: Total | None
    after: Total
    change: Change


def put(system: System, ticket: Ticket, call: abi.PutFile) -> Later:
    """Write whole."""
    actor, payers, now = ticket.agent.owner, ticket.payers, system.storage.clock
    labels = system.flows.marked(ticket.agent, call.labels)

    def job(connection: Connection) -> FileRow:
        return filestore.put(connection, actor, call.owner or actor, call.path, call.data, call.expect, payers, now, labels)

    return _write(system, ticket, call.owner or actor, call.path, len(call.data), job)


def rollback(system: System, ticket: Ticket, call: abi.RollbackFile) -> Later:
    """Write an old version again; its bytes are shared, but each version counts."""
    actor, payers, now = ticket.agent.owner, ticket.payers, system.storage.clock
    owner, labels = call.owner or actor, system.flows.marked(ticket.agent)

    def job(connection: Connection) -> FileRow:
        return filestore.rollback(connection, actor, owner, call.path, call.version, payers, now, labels)

    return system.storage.fetch(
        ticket,
        lambda connection: filestore.find(connection, actor, owner, call.path, call.version).size,
        lambda size: _write(system, ticket, owner, call.path, size, job),
    )


def get(system: System, ticket: Ticket, call: abi.GetFile) -> Later:
    """Read, whole or a part."""
    actor = ticket.agent.owner

    def query(connection: Connection) -> abi.FileData:
        file = filestore.find(connection, actor, call.owner or actor, call.path, call.version)
        data = filestore.read(connection, file, call.start, call.start + call.limit)
        return abi.FileData(_view(file), data, call.start, list(file.labels))

    return system.storage.query(ticket, query, _as_it_is)


def list_(system: System, ticket: Ticket, call: abi.ListFiles) -> Later:
    """The owner's files, but for those whose labels may not reach the agent."""
    agent, flows = ticket.agent, system.flows
    owner = call.owner or agent.owner

    def query(connection: Connection) -> list[FileRow]:
        files = filestore.of(connection, agent.owner, owner, call.prefix)
        return [file for file in files if flows.reaches(agent, file.labels, own=owner == agent.owner)]

    return system.storage.query(ticket, query, _views)


def history(system: System, ticket: Ticket, call: abi.ListVersions) -> Later:
    """All versions."""
    actor = ticket.agent.owner
    return system.storage.query(ticket, lambda connection: filestore.history(connection, actor, call.owner or actor, call.path), _views)


def search(system: System, ticket: Ticket, call: abi.SearchFiles) -> Later:
    """Search the files that both their owner and the policy let the caller read."""
    actor, memory, flows = ticket.agent.owner, system.embedder.memory, system.flows
    owner = call.owner or actor
    model = system.contexts.model("")
    tokenizer = system.registry.get(model).tokenizer if model in system.registry.entries else None

    def listed(files: list[FileRow]) -> None:
        allowed = [file for file in files if system.authority.may(ticket, f"store/{file.path}", "read")]
        keys = {file.key for file in allowed if flows.reaches(ticket.agent, file.labels, own=owner == actor)}

        def rank(connection: Connection, vector: Vector) -> list[abi.FoundPassage]:
            ranked = memory.search(connection, actor, owner, call.prefix, keys, call.query, vector)
            best = recall.fitting(ranked, lambda passage: count(tokenizer, [passage.text])[0], call.budget, call.limit, 0.0)
            return [abi.FoundPassage(_view(found.file), found.start, found.text, size, points_of(found)) for found, size in best]

        topic = call.query if keys else None

        def tell(found: list[abi.FoundPassage], by_meaning: bool) -> None:
            ticket.reply(abi.FoundPassages(found, by_meaning, _together(passage.file for passage in found)))

        system.recalls.ask(ticket, lambda _: topic, rank, tell)

    return system.storage.fetch(ticket, lambda connection: filestore.of(connection, actor, owner, call.prefix), listed)


def move(system: System, ticket: Ticket, call: abi.MoveFile) -> Later:
    """Rename."""
    actor = ticket.agent.owner
    owner, labels = call.owner or actor, system.flows.marked(ticket.agent)
    return system.storage.change(
        ticket, lambda connection: filestore.move(connection, actor, owner, call.path, call.to, call.expect, labels), _view
    )


def share(system: System, ticket: Ticket, call: abi.ShareFiles) -> Later:
    """Share one's own, or share it no more."""
    owner = ticket.agent.owner
    return system.storage.change(
        ticket, lambda connection: filestore.share(connection, owner, call.path, call.principal, call.access), _done
    )


def delete(system: System, ticket: Ticket, call: abi.DeleteFile) -> Later:
    """Remove."""
    actor = ticket.agent.owner
    owner = call.owner or actor

    def job(connection: Connection) -> tuple[Total, Change]:
        file = filestore.find(connection, actor, owner, call.path)
        total = filestore.total(connection, owner, call.path)
        change = library.removal(connection, file)
        filestore.delete(connection, actor, owner, call.path)
        assert total is not None  # noqa: S101  (it was found)
        return total, change

    def after(deleted: tuple[Total, Change]) -> None:
        total, change = deleted
        system.quotas.give(*_charge(total))
        system.embedder.shelved(change)

    return system.storage.change(ticket, job, _done, after=after, erases=True)


def begin(system: System, ticket: Ticket, call: abi.BeginUpload) -> Later:
    """Begin a large file."""
    actor, now, labels = ticket.agent.owner, system.storage.clock, system.flows.marked(ticket.agent)
    return system.storage.change(
        ticket,
        lambda connection: uploads.begin(connection, actor, call.owner or actor, call.path, now, labels),
        lambda upload: abi.Upload(upload, 0),
    )


def part(system: System, ticket: Ticket, call: abi.UploadPart) -> Later:
    """Take a part; it is charged when all are there, and must find room until then."""
    actor, labels = ticket.agent.owner, system.flows.marked(ticket.agent)
    system.quotas.check(ticket.payers, {"bytes": call.number * abi.CHUNK + len(call.data)})
    return system.storage.change(
        ticket,
        lambda connection: uploads.add(connection, actor, call.upload, call.number, call.data, labels),
        lambda size: abi.Upload(call.upload, size),
    )


def finish(system: System, ticket: Ticket, call: abi.FinishUpload) -> Later:
    """Make it a version."""
    actor, payers, now = ticket.agent.owner, ticket.payers, system.storage.clock
    labels = system.flows.marked(ticket.agent, call.labels)

    def found(upload: uploads.Upload) -> None:
        if upload.owner != actor:
            sink = to_principal(system, actor, upload.owner)
            system.flows.require(ticket.agent, {*labels, *upload.labels}, [sink], call)

        def job(connection: Connection) -> FileRow:
            return uploads.finish(connection, actor, call.upload, call.digest, call.expect, payers, now, labels)

        _write(system, ticket, upload.owner, upload.path, upload.size, job)

    return system.storage.fetch(ticket, lambda connection: uploads.find(connection, actor, call.upload), found)


def _write(system: System, ticket: Ticket, owner: str, path: str, size: int, write: Callable[[Connection], FileRow]) -> Later:
    """Make a version of a file: charge it as a new one or as one more, as it seems; and when it is durable, as it was."""
    quotas, payers = system.quotas, ticket.payers

    def job(connection: Connection) -> _Written:
        before = filestore.total(connection, owner, path)
        row = write(connection)
        after = filestore.total(connection, owner, path)
        assert after is not None  # noqa: S101  (it was written just now)
        return _Written(row, before, after, library.shelve(connection, row))

    def found(before: Total | None) -> None:
        charge: Charge = (payers, {"files": 0 if before else 1, "bytes": size})

        def after(written: _Written) -> None:
            quotas.hold(*_charge(written.after), system.host.now)
            quotas.give(*charge)
            if written.before is not None:
                quotas.give(*_charge(written.before))
            system.embedder.shelved(written.change)

        system.storage.change(ticket, job, lambda written: _view(written.row), charge=charge, after=after)

    system.storage.fetch(ticket, lambda connection: filestore.total(connection, owner, path), found)
    return LATER


def _charge(total: Total) -> tuple[Payers, dict[Any, int]]:
    return total.payers, {"files": 1, "bytes": total.bytes}


def _view(row: FileRow) -> abi.File:
    return abi.File(row.path, row.size, row.version, row.owner, row.author, row.time, row.digest.hex(), list(row.labels))


def _views(rows: list[FileRow]) -> abi.Files:
    files = [*map(_view, rows)]
    return abi.Files(files, _together(files))


def _together(files: Iterable[abi.File]) -> list[str]:
    """The labels of all of them."""
    return sorted({label for file in files for label in file.labels})


def _done(_: object) -> Done:
    return Done()


def _as_it_is(reply: abi.FileData) -> abi.FileData:
    return reply
