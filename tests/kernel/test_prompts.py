"""What leaves a window and what stays, for any conversation."""

from hypothesis import given
from hypothesis import strategies as st

from kernos.kernel.limits import HIGH_WATER, LOW_WATER
from kernos.kernel.prompts import Line, conversation, leaving, room, staying, with_recalled
from tests.kernel.fakes import examples

WINDOW = 100


def lines(sizes: list[int], pinned: set[int]) -> list[Line]:
    return [Line("pinned" if seq in pinned else "resident", "user", f"{seq}", size, seq) for seq, size in enumerate(sizes)]


NEW = Line("new", "user", "question", 10)


@given(st.lists(st.integers(1, 120), max_size=20), st.sets(st.integers(0, 19)))
@examples(200)
def test_room_is_made_as_far_as_pins_allow(sizes: list[int], pinned: set[int]) -> None:
    shown = [*lines(sizes, pinned), NEW]
    until = leaving(shown, WINDOW)
    left = staying(shown, until)
    kept = sum(line.tokens for line in left)
    assert [line for line in shown if line.why != "resident"] == [line for line in left if line.why != "resident"]
    if sum(line.tokens for line in shown) <= HIGH_WATER * WINDOW:
        assert left == shown
    else:
        assert kept <= LOW_WATER * WINDOW or all(line.why != "resident" for line in left)
        gone = [line for line in shown if line not in left]
        assert gone == shown[: len(shown)][: len(gone)] or pinned, "the oldest leave first"
    assert not leaving(left, WINDOW) or until == len(sizes) or all(line.why != "resident" for line in left)
    assert 0 <= room(left, WINDOW, 1) <= WINDOW // 8


def test_what_was_recalled_stands_before_the_last_message_in_the_order_it_was_said() -> None:
    recalled = [Line("recalled", "assistant", "later", 1, 7), Line("recalled", "user", "earlier", 1, 3)]
    shown = with_recalled([*lines([1], set()), NEW], recalled)
    assert [line.text for line in shown] == ["0", "earlier", "later", "question"]
    messages = conversation(shown)
    assert [message.role for message in messages] == ["user", "user"]
    assert messages[1].text == "From earlier in this conversation:\n[user, message 3] earlier\n[assistant, message 7] later\n\nquestion"
    assert conversation([]) == []
