"""`store.*` and `context.*` through the gate, and their tables."""

import pytest

from kernos.kernel.memory import contexts
from kernos.syscalls.context import AppendContext, DeleteContext, ListContexts, OpenContext, ReadContext
from kernos.syscalls.errors import ConflictError, LimitError, NotFoundError
from kernos.syscalls.model import Message
from kernos.syscalls.store import DeleteFile, GetFile, ListFiles, PutFile
from tests.kernel.fakes import App, World


@pytest.fixture
def agent(world: World) -> App:
    return world.connect("app:shop").spawn()


class TestFiles:
    def test_versions_count_writes(self, agent: App) -> None:
        versions = [agent.call(PutFile(path="a/b", data=bytes(n))).version for n in range(3)]
        assert versions == [1, 2, 3]
        found = agent.call(GetFile(path="a/b"))
        assert (found.data, found.file.size, found.file.version) == (b"\0\0", 2, 3)

    @pytest.mark.parametrize(("expect", "carried_out"), [(0, False), (1, False), (2, True), (3, False), (None, True)])
    def test_only_over_the_version_expected(self, agent: App, expect: int | None, carried_out: bool) -> None:
        for _ in range(2):
            agent.call(PutFile(path="x", data=b"old"))
        call = PutFile(path="x", data=b"new", expect=expect)
        if carried_out:
            assert agent.call(call).version == 3
        else:
            error = agent.refused(call)
            assert isinstance(error, ConflictError)
            assert error.details["version"] == "2"
            assert agent.call(GetFile(path="x")).data == b"old"

    def test_only_if_new(self, agent: App) -> None:
        assert agent.call(PutFile(path="x", data=b"", expect=0)).version == 1
        assert isinstance(agent.refused(PutFile(path="x", data=b"", expect=0)), ConflictError)

    def test_a_deleted_file_begins_anew(self, agent: App) -> None:
        agent.call(PutFile(path="x", data=b""))
        agent.call(DeleteFile(path="x"))
        assert isinstance(agent.refused(GetFile(path="x")), NotFoundError)
        assert isinstance(agent.refused(DeleteFile(path="x")), NotFoundError)
        assert agent.call(PutFile(path="x", data=b"", expect=0)).version == 1

    def test_every_owner_has_a_root_of_their_own(self, world: World, agent: App) -> None:
        agent.call(PutFile(path="x", data=b"shop"))
        anna, twin = App(world, agent.client).spawn(user="user:anna"), App(world, agent.client).spawn()
        assert isinstance(anna.refused(GetFile(path="x")), NotFoundError)
        assert twin.call(GetFile(path="x")).data == b"shop"
        anna.call(PutFile(path="x", data=b"anna"))
        assert world.connect("app:other").spawn(user="user:anna").call(GetFile(path="x")).data == b"anna"

    def test_the_list_is_sorted_and_by_prefix(self, agent: App) -> None:
        for path in ("b", "a/2", "a/1", "ab"):
            agent.call(PutFile(path=path, data=b""))
        assert [file.path for file in agent.call(ListFiles()).files] == ["a/1", "a/2", "ab", "b"]
        assert [file.path for file in agent.call(ListFiles(prefix="a/")).files] == ["a/1", "a/2"]

    def test_limits_of_an_owner(self, world: World, agent: App) -> None:
        world.system.quotas.set_limits("app:shop", {"files": 2, "bytes": 10})
        agent.call(PutFile(path="a", data=bytes(6)))
        assert isinstance(agent.refused(PutFile(path="b", data=bytes(5))), LimitError)
        agent.call(PutFile(path="a", data=bytes(10)))  # what it replaces does not count
        agent.call(PutFile(path="b", data=b""))
        assert isinstance(agent.refused(PutFile(path="c", data=b"")), LimitError)
        world.connect("app:other").spawn().call(PutFile(path="c", data=bytes(10)))


class TestContexts:
    def test_open_makes_and_finds(self, agent: App) -> None:
        first = agent.call(OpenContext(name="chat"))
        assert (first.name, first.owner, first.messages) == ("chat", "app:shop", 0)
        assert agent.call(OpenContext(name="chat")).context == first.context

    def test_append_and_read(self, agent: App) -> None:
        id_ = agent.call(OpenContext(name="chat")).context
        messages = [Message("user", str(n)) for n in range(5)]
        assert agent.call(AppendContext(context=id_, messages=messages[:3])).messages == 3
        agent.call(AppendContext(context=id_, messages=messages[3:]))
        part = agent.call(ReadContext(context=id_, start=1, limit=3))
        assert (part.messages, part.start, part.total) == (messages[1:4], 1, 5)
        assert agent.call(ReadContext(context=id_, start=9)).messages == []

    def test_all_or_none(self, agent: App, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(contexts, "CONTEXT_BYTES", 10)
        id_ = agent.call(OpenContext(name="chat")).context
        agent.call(AppendContext(context=id_, messages=[Message("user", "12345")]))
        error = agent.refused(AppendContext(context=id_, messages=[Message("user", "1"), Message("user", "23456")]))
        assert isinstance(error, LimitError)
        assert agent.call(ReadContext(context=id_)).total == 1
        agent.call(AppendContext(context=id_, messages=[Message("user", "67890")]))

    def test_delete(self, agent: App) -> None:
        id_ = agent.call(OpenContext(name="chat")).context
        agent.call(DeleteContext(context=id_))
        assert isinstance(agent.refused(ReadContext(context=id_)), NotFoundError)
        assert agent.call(ListContexts()).contexts == []
        assert agent.call(OpenContext(name="chat")).context != id_

    def test_the_list_is_the_owners(self, world: World, agent: App) -> None:
        for name in ("b", "a"):
            agent.call(OpenContext(name=name))
        world.connect("app:other").spawn().call(OpenContext(name="c"))
        assert [info.name for info in agent.call(ListContexts()).contexts] == ["a", "b"]

    def test_the_number_is_bounded(self, world: World, agent: App) -> None:
        world.system.quotas.set_limits("app:shop", {"contexts": 1})
        agent.call(OpenContext(name="a"))
        assert isinstance(agent.refused(OpenContext(name="b")), LimitError)
        agent.call(OpenContext(name="a"))
