"""`store.*` through the gate, and its table."""

import pytest

from kernos.syscalls.errors import ConflictError, LimitError, NotFoundError
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
