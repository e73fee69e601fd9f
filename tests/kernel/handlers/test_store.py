"""`store.*` through the gate, and its table."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from kernos.kernel.security.policy import load_policy
from kernos.syscalls.errors import ConflictError, DeniedError, LimitError, NotFoundError
from kernos.syscalls.store import (
    CHUNK,
    BeginUpload,
    DeleteFile,
    FinishUpload,
    GetFile,
    ListFiles,
    ListVersions,
    MoveFile,
    PutFile,
    RollbackFile,
    SearchFiles,
    ShareFiles,
    UploadPart,
)
from tests.kernel.fakes import OPEN_POLICY, App, World, make_policy, make_world


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
        assert isinstance(agent.refused(PutFile(path="a", data=bytes(5))), LimitError), "what it replaces is kept, and counts"
        agent.call(PutFile(path="a", data=bytes(4)))
        agent.call(PutFile(path="b", data=b""))
        assert isinstance(agent.refused(PutFile(path="c", data=b"")), LimitError)
        world.connect("app:other").spawn().call(PutFile(path="c", data=bytes(10)))
        agent.call(DeleteFile(path="a"))
        agent.call(PutFile(path="c", data=bytes(10)))


class TestVersions:
    def test_old_ones_are_read_and_brought_back(self, agent: App) -> None:
        for data in (b"one", b"two"):
            agent.call(PutFile(path="x", data=data))
        assert agent.call(GetFile(path="x", version=1)).data == b"one"
        back = agent.call(RollbackFile(path="x", version=1))
        assert (back.version, agent.call(GetFile(path="x")).data) == (3, b"one")
        assert [file.version for file in agent.call(ListVersions(path="x")).files] == [1, 2, 3]
        assert isinstance(agent.refused(RollbackFile(path="x", version=9)), NotFoundError)

    def test_they_move_with_their_file(self, agent: App) -> None:
        agent.call(PutFile(path="x", data=b"one"))
        agent.call(PutFile(path="y", data=b""))
        assert isinstance(agent.refused(MoveFile(path="x", to="y")), ConflictError)
        assert agent.call(MoveFile(path="x", to="z")).path == "z"
        assert [file.version for file in agent.call(ListVersions(path="z")).files] == [1]
        assert isinstance(agent.refused(GetFile(path="x")), NotFoundError)

    def test_everything_is_back_with_the_next_kernel(self, world: World, agent: App, tmp_path: Path) -> None:
        agent.call(PutFile(path="x", data=b"one"))
        agent.call(PutFile(path="x", data=b"four"))
        before = world.system.quotas.usage("app:shop", world.host.now)
        again = make_world(tmp_path)
        successor = again.connect("app:shop").agent(agent.pid)
        assert successor.call(GetFile(path="x")).data == b"four"
        assert again.system.quotas.usage("app:shop", again.host.now) == before


class TestSharing:
    def test_a_folder_for_reading_and_writing(self, world: World, agent: App) -> None:
        other = world.connect("app:other").spawn()
        agent.call(PutFile(path="a/x", data=b"mine"))
        theirs = GetFile(path="a/x", owner="app:shop")
        assert isinstance(other.refused(theirs), NotFoundError)
        agent.call(ShareFiles(path="a", principal="app:other", access="read"))
        assert other.call(theirs).data == b"mine"
        assert isinstance(other.refused(PutFile(path="a/x", data=b"", owner="app:shop")), DeniedError)
        agent.call(ShareFiles(path="a", principal="app:other", access="write"))
        assert other.call(PutFile(path="a/x", data=b"ours", owner="app:shop")).author == "app:other"
        assert [file.path for file in other.call(ListFiles(owner="app:shop")).files] == ["a/x"]
        agent.call(ShareFiles(path="a", principal="app:other"))
        assert isinstance(other.refused(theirs), NotFoundError)
        assert agent.call(GetFile(path="a/x")).data == b"ours"


class TestUploads:
    DATA = bytes(range(256)) * 2_048 + b"end"

    def parts(self) -> list[bytes]:
        return [self.DATA[start : start + CHUNK] for start in range(0, len(self.DATA), CHUNK)]

    def test_a_large_file_comes_and_goes_in_parts(self, world: World, agent: App) -> None:
        upload = agent.call(BeginUpload(path="big")).upload
        for number, part in enumerate(self.parts()):
            agent.call(UploadPart(upload=upload, number=number, data=part))
        assert isinstance(agent.refused(UploadPart(upload=upload, number=9, data=b"x")), ConflictError)
        assert isinstance(agent.refused(FinishUpload(upload=upload, digest=bytes(32))), ConflictError)
        file = agent.call(FinishUpload(upload=upload, digest=hashlib.sha256(self.DATA).digest()))
        assert (file.size, file.version, file.digest) == (len(self.DATA), 1, hashlib.sha256(self.DATA).hexdigest())
        pieces = [agent.call(GetFile(path="big", start=start, limit=100_000)).data for start in range(0, file.size, 100_000)]
        assert b"".join(pieces) == self.DATA
        meters = {meter.limit: meter.used for meter in world.system.quotas.usage("app:shop", world.host.now)}
        assert (meters["files"], meters["bytes"]) == (1, len(self.DATA))

    def test_it_is_ones_own_and_has_room(self, world: World, agent: App) -> None:
        upload = agent.call(BeginUpload(path="big")).upload
        part = UploadPart(upload=upload, number=0, data=b"x")
        assert isinstance(world.connect("app:other").spawn().refused(part), NotFoundError)
        world.system.quotas.set_limits("app:shop", {"bytes": 0})
        assert isinstance(agent.refused(part), LimitError)


class TestSearch:
    """Without an encoder: by words. Meaning is tried in `tests/integration`."""

    def paths(self, agent: App, query: str, **more: Any) -> list[str]:
        return [found.file.path for found in agent.call(SearchFiles(query=query, **more)).passages if found.points.score > 0]

    def test_what_is_written_is_found_and_says_why(self, agent: App) -> None:
        agent.call(PutFile(path="garden/tulips", data=b"The tulips by the gate are red."))
        agent.call(PutFile(path="kitchen/soup", data=b"The soup takes leeks and potatoes."))
        agent.call(PutFile(path="kitchen/photo", data=b"tulips\0\xff"))
        found = agent.call(SearchFiles(query="Which colour had the tulips?", limit=1))
        (best,) = found.passages
        assert (best.file.path, best.start, best.text) == ("garden/tulips", 0, "The tulips by the gate are red.")
        assert best.points.score == best.points.words > 0
        assert not found.by_meaning
        assert self.paths(agent, "tulips", prefix="kitchen/") == []
        assert agent.call(SearchFiles(query="soup", budget=1)).passages == []

    def test_the_newest_version_is_searched_wherever_the_file_is(self, agent: App) -> None:
        agent.call(PutFile(path="a", data=b"tulips"))
        assert self.paths(agent, "tulips") == ["a"]
        agent.call(PutFile(path="a", data=b"roses"))
        assert (self.paths(agent, "tulips"), self.paths(agent, "roses")) == ([], ["a"])
        agent.call(MoveFile(path="a", to="b"))
        assert self.paths(agent, "roses") == ["b"]
        agent.call(RollbackFile(path="b", version=1))
        assert (self.paths(agent, "tulips"), self.paths(agent, "roses")) == (["b"], [])
        agent.call(DeleteFile(path="b"))
        assert agent.call(SearchFiles(query="tulips")).passages == []

    def test_a_long_file_is_found_by_its_passages(self, agent: App) -> None:
        text = "Nothing of note happened. " * 200 + "Then the lighthouse burned. " + "Nothing of note happened. " * 200
        agent.call(PutFile(path="log", data=text.encode()))
        best = agent.call(SearchFiles(query="What burned?", limit=1)).passages[0]
        assert "lighthouse" in best.text
        assert text[best.start :].startswith(best.text)

    def test_files_are_no_neighbours(self, agent: App) -> None:
        for number in range(9):
            agent.call(PutFile(path=f"{number}", data=b"tulips" if number == 4 else b"leeks"))
        assert self.paths(agent, "tulips") == ["4"]

    def test_only_what_is_shared_and_allowed_is_found(self, world: World, agent: App, tmp_path: Path) -> None:
        other = world.connect("app:other").spawn()
        for path in ("open/x", "closed/y", "open/z"):
            agent.call(PutFile(path=path, data=b"tulips"))
        assert self.paths(other, "tulips", owner="app:shop") == []
        agent.call(ShareFiles(path="open", principal="app:other", access="read"))
        assert sorted(self.paths(other, "tulips", owner="app:shop")) == ["open/x", "open/z"]
        denied = "p, app:other, store/open/z, read, deny\n"
        world.system.law.policy = load_policy(make_policy(tmp_path / "strict", OPEN_POLICY + denied))
        assert self.paths(other, "tulips", owner="app:shop") == ["open/x"]
        agent.call(ShareFiles(path="open", principal="app:other"))
        assert self.paths(other, "tulips", owner="app:shop") == []
        assert self.paths(other, "tulips") == []

    def test_it_is_found_after_a_restart(self, agent: App, tmp_path: Path) -> None:
        agent.call(PutFile(path="a", data=b"tulips"))
        assert self.paths(make_world(tmp_path).connect("app:shop").spawn(), "tulips") == ["a"]
