"""Records of calls with a key, against a list that is searched from its end."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernos.kernel.core import repeats as module
from kernos.kernel.core.repeats import Repeats
from kernos.kernel.limits import IDEMPOTENCY_S
from tests.kernel.fakes import examples

KEPT = 3

steps = st.lists(
    st.tuples(st.sampled_from(["begin", "settle", "free", "wait"]), st.sampled_from("ab"), st.sampled_from("123456"), st.booleans()),
    max_size=40,
)


@dataclass
class Made:
    """What is known of a call, the slow way."""

    principal: str
    key: str
    since: float
    answer: bytes | None = None
    waiting: list[int] = field(default_factory=list)


@examples(300)
@given(steps)
def test_it_is_a_list_of_calls_that_forgets_the_oldest_that_have_ended(made: list[tuple[str, str, str, bool]]) -> None:
    found, calls = Repeats[int](), list[Made]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "IDEMPOTENCY_RECORDS", KEPT)
        for number, (what, principal, key, late) in enumerate(made):
            now = number + (IDEMPOTENCY_S if late else 0.0)
            known = next((call for call in calls if (call.principal, call.key) == (principal, key)), None)
            if what == "begin":
                _begin(found, calls, known, Made(principal, key, now))
            elif what == "wait" and known is not None and known.answer is None:
                found.records[principal][key].waiting.append(number)
                known.waiting.append(number)
            elif what == "settle":
                waiting, answer = (known.waiting if known else []), str(number).encode()
                assert found.settle(principal, key, answer) == waiting
                if known is not None:
                    known.answer, known.waiting = answer, []
            elif what == "free":
                assert found.free(principal, key) == (known.waiting if known else [])
                calls = [call for call in calls if call is not known]
            kept = {(name, key): record.answer for name, own in found.records.items() for key, record in own.items()}
            assert kept == {(call.principal, call.key): call.answer for call in calls}


def _begin(found: Repeats[int], calls: list[Made], known: Made | None, new: Made) -> None:
    record = found.begin(new.principal, new.key, b"digest", new.since)
    if known is not None and (known.answer is None or new.since - known.since <= IDEMPOTENCY_S):
        assert record is not None
        assert record.answer == known.answer
        return
    assert record is None
    if known is not None:
        calls.remove(known)
    calls.append(new)
    own = [call for call in calls if call.principal == new.principal]
    if len(own) > KEPT:
        calls.remove(next(call for call in own if call.answer is not None or call is new))
