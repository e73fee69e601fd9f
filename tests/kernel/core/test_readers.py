from hypothesis import given
from hypothesis import strategies as st

from kernos.kernel.core.readers import Readers
from tests.kernel.fakes import examples

steps = st.lists(st.tuples(st.sampled_from(("wait", "next", "give_up")), st.sampled_from("xyz"), st.integers(0, 5)), max_size=80)


@examples(200)
@given(steps)
def test_against_a_naive_queue(steps: list[tuple[str, str, int]]) -> None:
    readers: Readers[str] = Readers()
    naive: list[tuple[str, str]] = []
    for number, (step, box, which) in enumerate(steps):
        here = [reader for place, reader in naive if place == box]
        if step == "wait":
            readers.wait(box, f"reader {number}")
            naive.append((box, f"reader {number}"))
        elif step == "next":
            assert readers.next(box) == (here[0] if here else None)
            naive = [pair for pair in naive if not here or pair != (box, here[0])]
        else:
            reader = here[which % len(here)] if here else "nobody"
            readers.give_up(box, reader)
            naive = [pair for pair in naive if pair != (box, reader)]
        assert {place: list(waiting) for place, waiting in readers.waiting.items()} == {
            place: [reader for at, reader in naive if at == place] for place in dict(naive)
        }
