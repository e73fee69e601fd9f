"""`store.*`. Every path is below the owner's own root."""

from kernos.syscalls.call import Done
from kernos.syscalls.store import DeleteFile, File, FileData, Files, GetFile, ListFiles, PutFile

from ..memory.files import StoredFile
from ..system import System
from ..tickets import Ticket


def put(system: System, ticket: Ticket, call: PutFile) -> File:
    """Write whole."""
    return _view(system.files.put(ticket.agent.owner, call.path, call.data, call.expect, ticket.payers, system.host.now))


def get(system: System, ticket: Ticket, call: GetFile) -> FileData:
    """Read whole."""
    file = system.files.get(ticket.agent.owner, call.path)
    return FileData(_view(file), file.data)


def list_(system: System, ticket: Ticket, call: ListFiles) -> Files:
    """The owner's files."""
    return Files([_view(file) for file in system.files.list(ticket.agent.owner, call.prefix)])


def delete(system: System, ticket: Ticket, call: DeleteFile) -> Done:
    """Remove."""
    system.files.delete(ticket.agent.owner, call.path)
    return Done()


def _view(file: StoredFile) -> File:
    return File(file.path, len(file.data), file.version)
