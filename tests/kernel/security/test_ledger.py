"""The files of the audit log: what is done to them is found, what a crash does to them is taken up, and the two are told apart."""

import os
from pathlib import Path

import pytest

from kernos.kernel.security import chain
from kernos.kernel.security.chain import ZERO
from kernos.kernel.security.ledger import Anchor, take_up, verify
from kernos.syscalls.audit import Entry

KEY = b"k" * 32
SMALL = 600


def entries(first: int, count: int) -> list[Entry]:
    return [Entry(number, 1.5, "app:shop", call="store.put", verdict="allow", outcome="ok") for number in range(first, first + count)]


class Log:
    """A ledger and the database that knows of it."""

    def __init__(self, folder: Path, most: int = SMALL) -> None:
        self.folder, self.most = folder, most
        self.anchors: dict[int, Anchor] = {}
        self.found = self.open()

    def open(self) -> str:
        self.ledger, new, found = take_up(self.folder, KEY, self.known, self.most)
        self.learn(new)
        return found

    def learn(self, new: list[Anchor]) -> None:
        self.anchors |= {anchor.first: anchor for anchor in new}

    @property
    def known(self) -> list[Anchor]:
        return [self.anchors[first] for first in sorted(self.anchors)]

    def write(self, count: int = 1, *, anchored: bool = True) -> None:
        self.ledger.append(entries(self.ledger.anchor.last + 1, count))
        if anchored:
            self.learn(self.ledger.sync())

    def path(self, at: int = -1) -> Path:
        return sorted(self.folder.glob("*.jsonl"))[at]

    def findings(self) -> list[tuple[str, int, str]]:
        return [(found.file, found.line, found.what) for found in verify(self.folder, KEY, self.known, lambda: None)[1]]


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "audit")


def test_files_are_begun_when_one_is_full(log: Log) -> None:
    for _ in range(20):
        log.write()
    assert len(list(log.folder.iterdir())) > 3
    assert log.findings() == []
    assert verify(log.folder, KEY, log.known, lambda: None)[0] == 20


def test_files_are_the_owners_alone(log: Log) -> None:
    log.write()
    assert (log.folder.stat().st_mode & 0o777, log.path().stat().st_mode & 0o777) == (0o700, 0o600)


def test_it_goes_on_after_a_restart(log: Log) -> None:
    for _ in range(7):
        log.write()
        log.ledger.close()
        assert log.open() == ""
    assert log.ledger.anchor.last == 7
    assert log.findings() == []


def test_every_one_byte_change_of_every_file_is_found(log: Log) -> None:
    for _ in range(6):
        log.write()
    assert len(log.known) > 1
    for path in log.folder.iterdir():
        data = path.read_bytes()
        for at in range(len(data)):
            path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            assert any(file == path.name for file, _, _ in log.findings()), f"byte {at} of {path.name}"
        path.write_bytes(data)
    assert log.findings() == []


def test_every_removed_tail_is_found(log: Log) -> None:
    log.write(3)
    data = log.path().read_bytes()
    for size in range(len(data)):
        log.path().write_bytes(data[:size])
        assert log.findings(), f"{size} bytes were left"


def test_a_removed_file_is_found_and_named(log: Log) -> None:
    for _ in range(9):
        log.write()
    gone = log.path(1)
    gone.unlink()
    assert [(file, line) for file, line, _ in log.findings()] == [(gone.name, 0)]


def test_a_wholly_recomputed_chain_is_found(log: Log) -> None:
    log.write(4)
    lines, mark = [], ZERO
    for entry in entries(1, 4):
        line, mark = chain.write(KEY, mark, Entry(entry.number, 1.5, "app:none", call="store.put", verdict="allow", outcome="ok"))
        lines.append(line)
    log.path().write_bytes(b"".join(lines))
    (found,) = log.findings()
    assert "made anew" in found[2]


def test_a_finding_says_where(log: Log) -> None:
    log.most = log.ledger._most = 10_000
    log.write(5)
    data = log.path().read_bytes()
    second = data.index(b"\n") + 1
    log.path().write_bytes(data[:second] + data[second:].replace(b"shop", b"shoe", 1))
    (found,) = verify(log.folder, KEY, log.known, lambda: None)[1]
    assert (found.file, found.line, found.offset) == (log.path().name, 2, second)
    assert "entry 2 was changed" in found.what


def test_two_changes_are_two_findings(log: Log) -> None:
    log.ledger._most = 10_000
    log.write(5)
    lines = log.path().read_bytes().splitlines(keepends=True)
    for at in (1, 3):
        lines[at] = lines[at].replace(b"shop", b"shoe")
    log.path().write_bytes(b"".join(lines))
    assert [line for _, line, _ in log.findings()] == [2, 4]


@pytest.mark.parametrize("anchored", [0, 2])
def test_every_cut_of_a_last_write_is_taken_up(tmp_path: Path, anchored: int) -> None:
    """Whatever part of an unacknowledged write reached the disk: the log goes on behind the last whole line, and is not called changed."""
    log = Log(tmp_path / "audit", 10_000)
    log.write(2)
    known, kept = dict(log.anchors), log.path().stat().st_size
    log.write(2, anchored=False)
    log.ledger.close()
    data = log.path().read_bytes()
    for size in range(kept, len(data) + 1):
        log.path().write_bytes(data[:size])
        log.anchors = dict(known)
        whole = data[:size].count(b"\n")
        found = log.open()
        assert found.startswith("cut") == (size != data[:size].rfind(b"\n") + 1)
        assert "damaged" not in found
        assert log.ledger.anchor.last == whole
        log.write()
        log.ledger.close()
        assert log.findings() == []


def test_a_crash_before_the_first_anchor_loses_nothing(log: Log) -> None:
    for _ in range(9):
        log.write(anchored=False)
    log.ledger.close()
    log.anchors.clear()
    assert log.open() == ""
    assert log.ledger.anchor.last == 9
    assert log.findings() == []


@pytest.mark.parametrize("damage", ["tail", "changed", "gone", "anew"])
def test_a_damaged_log_is_left_as_it_is_and_another_begun(log: Log, damage: str) -> None:
    log.ledger._most = 10_000
    log.write(4)
    log.ledger.close()
    path = log.path()
    data = path.read_bytes()
    match damage:
        case "tail":
            path.write_bytes(data[: data.rindex(b"\n", 0, -1) + 1])
        case "changed":
            path.write_bytes(data[:-20] + bytes([data[-20] ^ 1]) + data[-19:])
        case "gone":
            path.unlink()
        case "anew":
            path.write_bytes(data.replace(b"shop", b"shoe"))
    left = path.read_bytes() if path.exists() else None
    found = log.open()
    assert found.startswith("damaged") == (damage != "anew"), "a change before the end is for `verify` to find"
    log.write(2)
    log.ledger.close()
    if damage != "anew":
        assert (path.read_bytes() if path.exists() else None) == left
    assert log.findings(), "it stays known"
    assert {file for file, _, _ in log.findings()} == {path.name}


def test_lines_behind_the_anchor_that_do_not_belong_there(log: Log) -> None:
    log.ledger._most = 10_000
    log.write(2)
    log.write(2, anchored=False)
    log.ledger.close()
    log.path().write_bytes(log.path().read_bytes().replace(b'"number":4', b'"number":5'))
    assert log.open().startswith("damaged")
    assert log.ledger.anchor.first > 5, "new numbers stand apart from all that is in the damaged file"


def test_what_a_loss_of_power_leaves_is_taken_up(log: Log) -> None:
    """Blocks that never reached the disk are zeros, though later ones may have."""
    log.ledger._most = 10_000
    log.write(2)
    log.write(6, anchored=False)
    log.ledger.close()
    data = log.path().read_bytes()
    third = log.known[-1].size + len(data.splitlines()[2]) + 1
    log.path().write_bytes(data[:third] + bytes(100) + data[third + 100 :])
    assert log.open().startswith("cut")
    assert log.ledger.anchor.last == 3
    log.write()
    assert log.findings() == []


def test_what_the_disk_refuses_is_not_half_there(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    log.write(2)
    size, real = log.path().stat().st_size, os.write

    def full(fd: int, data: bytes) -> int:
        if len(data) < 100:
            raise OSError(28, "No space left on device")
        return real(fd, data[:50])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        log.write(1)
    monkeypatch.undo()
    assert log.path().stat().st_size == size
    log.write(1)
    assert log.ledger.anchor.last == 3
    assert log.findings() == []


def test_after_a_failed_sync_nothing_is_written(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", broken)
    with pytest.raises(OSError, match="Input/output"):
        log.write(1)
    monkeypatch.undo()
    for act in (log.ledger.sync, lambda: log.write(1)):
        with pytest.raises(OSError, match="Input/output"):
            act()
