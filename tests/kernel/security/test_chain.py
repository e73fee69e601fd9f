"""A line of the audit log cannot be changed, moved, added or taken out unseen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernos.kernel.security import chain
from kernos.kernel.security.chain import ZERO, BrokenError, CutError, Position
from kernos.syscalls.audit import Entry
from tests.kernel.fakes import examples

KEY = b"k" * 32
START = Position(0, ZERO, 0)


def log(*entries: Entry, key: bytes = KEY) -> bytes:
    lines, mark = [], ZERO
    for entry in entries:
        line, mark = chain.write(key, mark, entry)
        lines.append(line)
    return b"".join(lines)


def reached(data: bytes, key: bytes = KEY) -> int:
    """The number of the last entry that stands as it was written."""
    last = 0
    try:
        for place in chain.follow(key, data, START):
            last = place.number
    except BrokenError:
        pass
    return last


ENTRIES = [Entry(number, 1.5, "app:shop", 3, "user:anna", "store.put", ["store/a:write"], "allow", outcome="ok") for number in range(1, 6)]


def test_what_was_written_is_followed_to_its_end() -> None:
    data = log(*ENTRIES)
    places = list(chain.follow(KEY, data, START))
    assert [place.number for place in places] == [1, 2, 3, 4, 5]
    assert places[-1].size == len(data)
    assert [chain.read(line) for line in data.splitlines()] == ENTRIES


def test_it_can_be_followed_from_any_line() -> None:
    data = log(*ENTRIES)
    places = list(chain.follow(KEY, data, START))
    assert list(chain.follow(KEY, data, places[2])) == places[3:]


def test_every_one_byte_change_is_found_where_it_is() -> None:
    data = log(*ENTRIES)
    ends = [place.size for place in chain.follow(KEY, data, START)]
    for at in range(len(data)):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        line = next(number for number, end in enumerate(ends) if at < end)
        assert reached(changed) == line, f"byte {at}"


@examples(300)
@given(at=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_any_other_byte_is_found(at: int, byte: int) -> None:
    data = log(*ENTRIES)
    at %= len(data)
    changed = data[:at] + bytes([byte]) + data[at + 1 :]
    assert (reached(changed) < 5) == (changed != data)


def test_lines_taken_out_moved_or_added() -> None:
    lines = log(*ENTRIES).splitlines(keepends=True)
    for at in range(4):
        assert reached(b"".join(lines[:at] + lines[at + 1 :])) == at
        assert reached(b"".join([*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]])) == at
        assert reached(b"".join(lines[: at + 1] + lines[at:])) == at + 1


def test_another_key_makes_another_chain() -> None:
    assert reached(log(*ENTRIES, key=b"x" * 32)) == 0


def test_every_cut_is_told_from_a_change() -> None:
    data = log(*ENTRIES)
    ends = {place.size for place in chain.follow(KEY, data, START)} | {0}
    for size in range(len(data)):
        if size in ends:
            list(chain.follow(KEY, data[:size], START))  # only the anchor knows
        else:
            with pytest.raises(CutError):
                list(chain.follow(KEY, data[:size], START))


def test_after_a_changed_line_the_others_can_be_checked() -> None:
    data = log(*ENTRIES)
    changed = data.replace(b"user:anna", b"user:eve2", 1)
    with pytest.raises(BrokenError) as broken:
        list(chain.follow(KEY, changed, START))
    assert broken.value.then is not None
    assert [place.number for place in chain.follow(KEY, changed, broken.value.then)] == [2, 3, 4, 5]


@pytest.mark.parametrize(
    "line", [b"", b"{}", b"null", b"\xff" * 80, b'{"number":1}', b"x" * 200, b'{"number":1,"seal":"' + b"0" * 32 + b'"}']
)
def test_what_is_no_line_is_found(line: bytes) -> None:
    assert reached(line + b"\n") == 0
