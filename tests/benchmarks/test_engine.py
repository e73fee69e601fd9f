"""What `benchmarks.engine` concludes from what it sees."""

import asyncio
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import arrivals, report
from benchmarks.agreement import CLOSE, agreement, equal
from benchmarks.engine import speed_figures
from benchmarks.paths import store
from benchmarks.peers.process import PeerError
from benchmarks.questions import Question, Questions
from benchmarks.report import Options, Target
from benchmarks.throughput import Size, Speed, compare, ratio
from kernos.kernel.devices.messages import PAGE
from kernos.kernel.devices.shape import supports

TOKENS = st.lists(st.integers(0, 9), min_size=1, max_size=8)


# --- agreement --------------------------------------------------------------------------------------------------------------------


@given(TOKENS, st.data())
def test_answers_are_compared_up_to_the_first_tie(reference: list[int], data: st.DataObject) -> None:
    gaps = data.draw(st.lists(st.sampled_from([0.0, CLOSE, 1.0]), min_size=len(reference), max_size=len(reference)))
    tokens = data.draw(st.lists(st.integers(0, 9), min_size=len(reference), max_size=len(reference)))
    wrong = [place for place, pair in enumerate(zip(tokens, reference, strict=True)) if len(set(pair)) == 2]
    ties = [place for place, gap in enumerate(gaps) if gap == 0.0]
    assert equal(tokens, reference, gaps) == (min(wrong, default=9) >= min(ties, default=8))


def test_agreement_is_a_share_of_places() -> None:
    assert agreement([[1, 2], [3, 4]], [[1, 2], [3, 5]]) == 0.75


def test_a_store_holds_the_same_model_in_a_shape_that_the_kernel_does_not_know(models: Path) -> None:
    folder = models / "smollm2-135m"
    with store(folder, hidden_act="swish") as found:
        copy = found / folder.name
        told, original = (json.loads((each / "config.json").read_text()) for each in (copy, folder))
        assert supports(original)
        assert not supports(told)
        assert told | {"hidden_act": "silu"} == original
        assert (copy / "model.safetensors").samefile(folder / "model.safetensors")
    assert not found.exists()


# --- questions --------------------------------------------------------------------------------------------------------------------


def test_questions_have_the_length_that_was_asked_for_and_share_no_page(models: Path) -> None:
    maker = Questions("smollm2-135m")
    found = [maker.ask(f"{number}", tokens) for number, tokens in enumerate((64, 200, 200))]
    assert [len(question.ids) for question in found] == [64, 200, 200]
    assert len({tuple(question.ids[:PAGE]) for question in found}) == 3


# --- throughput -------------------------------------------------------------------------------------------------------------------

SIZE = Size(prompt=100, new=11, rounds=2, batches=(1, 2))


class Clock:
    """Shows the time that engines take, and no other."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Recorder:
    """An engine that takes a second for a token, or has had enough after some answers."""

    def __init__(self, clock: Clock, batches: tuple[int, ...], answers: int = 1_000) -> None:
        self.batches = batches
        self._clock = clock
        self.asked: list[tuple[list[int], int]] = []
        self._answers = answers

    async def answer(self, row: int, question: Question, new: int) -> list[int]:
        if len(self.asked) == self._answers:
            raise PeerError("it had enough")
        self.asked.append((question.ids, new))
        self._clock.now += new
        return [row] * new


class Numbered(Questions):
    """Questions that no model has to be there for."""

    def __init__(self) -> None:
        self.made = 0

    def ask(self, name: str, tokens: int, question: str = "") -> Question:
        self.made += 1
        return Question([], [self.made] * tokens)


def test_engines_are_asked_the_same_in_turn_and_nothing_twice() -> None:
    clock = Clock()
    engines = {"kernos": Recorder(clock, (1, 2)), "small": Recorder(clock, (1,))}
    speeds, gone = asyncio.run(compare(engines, Numbered(), SIZE, clock))
    assert not gone
    assert [new for _, new in engines["kernos"].asked] == [11, 1, 11, 11, 1, 1, 11, 11] * 2
    asked = {name: {ids[0] for ids, _ in engine.asked} for name, engine in engines.items()}
    assert len(asked["kernos"]) == len(engines["kernos"].asked)
    assert asked["small"] < asked["kernos"]
    assert speeds["kernos"].decode == {1: [1.0, 1.0], 2: [1.0, 1.0]}
    assert speeds["kernos"].prefill == {1: [100.0, 100.0], 2: [100.0, 100.0]}
    assert set(speeds["small"].decode) == {1}


def test_an_engine_that_dies_is_left_out_and_the_others_go_on() -> None:
    clock = Clock()
    engines = {"kernos": Recorder(clock, (1, 2)), "frail": Recorder(clock, (1, 2), answers=4)}
    speeds, gone = asyncio.run(compare(engines, Numbered(), SIZE, clock))
    assert gone == {"frail": "it had enough"}
    assert set(speeds) == {"kernos"}
    assert len(speeds["kernos"].decode[2]) == 2


def test_a_speed_is_that_of_prompts_and_of_what_answers_take_more() -> None:
    speed = Speed()
    speed.add(2, SIZE, first_s=0.5, whole_s=2.5)
    assert speed.prefill == {2: [400.0]}
    assert speed.decode == {2: [10.0]}
    with pytest.raises(ValueError, match="measure again"):
        speed.add(2, SIZE, first_s=2.5, whole_s=2.5)


def test_a_ratio_is_the_median_of_the_rounds_own() -> None:
    assert ratio({1: [10.0, 20.0, 30.0]}, {1: [5.0, 20.0, 60.0]}, 1) == 1.0
    assert ratio({1: [10.0]}, {8: [5.0]}, 1) is None


def test_what_was_not_measured_is_null() -> None:
    ours, theirs = Speed(), Speed()
    for rows in (1, 8, 32):
        ours.add(rows, SIZE, 1.0, 2.0)
    theirs.add(1, SIZE, 1.0, 3.0)
    figures = speed_figures({"kernos": ours, "eager": ours, "hf": theirs})
    assert figures["hf_1"] == 2.0
    assert figures["tok_s_32"] == 320.0
    assert figures["prefill_tok_s"] == 800.0
    assert all(figures[key] is None for key in ("vllm_1", "vllm_8", "vllm_32", "vllm_prefill", "llama_1", "int8_tok_s_1"))


# --- arrivals and the report ------------------------------------------------------------------------------------------------------


def test_times_to_first_token_are_compared_at_their_99th_percentile() -> None:
    assert arrivals.figures([0.1, 0.2], [1.0, 3.0])["vllm_ttft"] == pytest.approx(15.0)
    alone = arrivals.figures([0.1, 0.2], None)
    assert alone["vllm_ttft"] is None
    assert alone["ttft_p99_ms"] == pytest.approx(200.0)


def test_a_figure_without_a_value_is_null_and_misses_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    targets = {name: Target(1.0, at_least=True) for name in ("low", "none", "high")}
    report.publish("it", Options(quick=True, json=False), {"low": 0.5, "none": None, "high": 2.0}, targets, peers={"vllm": "no"})
    table, _, line = capsys.readouterr().out.strip().rpartition("\n")
    told = json.loads(line)
    assert (told["none"], told["missed"], told["peers"]) == (None, ["low"], {"vllm": "no"})
    assert [row.split()[1] for row in table.splitlines() if row.startswith("none")] == ["-"]
