"""Leases, resuming, stopping, schemas and failures, on the real model."""

import json
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

import pytest

from kernos.kernel.devices.messages import Extend, Sampling, Stepped, Stop
from kernos.kernel.devices.pace import LEAST, LEAST_BEHIND, START, Pace
from tests.devices.conftest import SteadyPace

PERSON = json.dumps(
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 12},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "likes": {"enum": ["tea", "coffee"]},
        },
        "required": ["name", "age", "likes"],
        "additionalProperties": False,
    }
)
WARM = Sampling(temperature=0.9, top_p=0.95, seed=7, ignore_eos=True)


def used_rows(bench: Any) -> int:
    return sum(row.seq is not None for row in bench.driver._engines["it"]._model._kv.rows)


def test_resuming_gives_the_rest_of_the_same_tokens(bench: Any, prompts: list[list[int]], greedy: list[list[int]]) -> None:
    known = (40, 50, 63)
    seqs = [bench.begin(prompts[n] + greedy[n][:count], 64, resumed=count) for n, count in enumerate(known)]
    bench.drain()
    assert [bench.tokens[seq] for seq in seqs] == [greedy[n][count:] for n, count in enumerate(known)]


def test_lease_and_extension_change_nothing(bench: Any, prompts: list[list[int]], greedy: list[list[int]]) -> None:
    first = bench.begin(prompts[0], 24, lease=5)
    second = bench.begin(prompts[1], 24)
    bench.drain()
    assert bench.tokens[first] == greedy[0][:5]
    assert bench.tokens[second] == greedy[1][:24]
    assert bench.finish[first] == ""
    for more in (1, 9, 100):
        bench.driver.extend(Extend(first, more))
        bench.drain()
    assert bench.tokens[first] == greedy[0][:24]
    assert bench.finish[first] == "length"


def test_without_a_lease_not_even_the_prompt_is_computed(bench: Any, prompts: list[list[int]]) -> None:
    bench.begin(prompts[0], 4, lease=0)
    assert not bench.driver.busy


def test_a_sequence_that_sits_out_is_not_disturbed(bench: Any, prompts: list[list[int]], greedy: list[list[int]]) -> None:
    waiting = [bench.begin(prompts[n], 20, lease=3 + n) for n in (0, 1, 2)]
    bench.drain()
    bench.driver.stop(Stop(waiting[1]))  # moves the last row into the gap
    bench.run(prompts[3], 10)
    for seq in waiting:
        bench.driver.extend(Extend(seq, 100))
    bench.drain()
    assert bench.tokens[waiting[0]] == greedy[0][:20]
    assert bench.tokens[waiting[2]] == greedy[2][:20]


def test_stop_acts_at_the_next_token_and_frees_the_row(bench: Any, prompts: list[list[int]]) -> None:
    seqs = [bench.begin(prompt, 50) for prompt in prompts[:3]]
    for _ in range(3):
        bench.step()
    before = {seq: len(bench.tokens[seq]) for seq in seqs}
    assert used_rows(bench) == 3
    for seq in seqs:
        bench.driver.stop(Stop(seq))
    assert not bench.driver.busy
    assert used_rows(bench) == 0
    assert {seq: len(bench.tokens[seq]) for seq in seqs} == before


def test_a_long_prompt_is_computed_in_chunks_beside_the_others(bench: Any, prompts: list[list[int]]) -> None:
    decoding = bench.begin(prompts[0], 30)
    bench.step()
    long = bench.begin(prompts[7], 1)
    assert len(prompts[7]) > 2 * LEAST
    while not bench.finish.get(long):
        stepped = bench.step()
        done = {output.seq: output for output in stepped.outputs}
        assert done[long].prefilled <= LEAST
        assert len(done[decoding].tokens) == 1
    bench.drain()


def prefilled(stepped: Stepped) -> dict[int, int]:
    return {output.seq: output.prefilled for output in stepped.outputs}


def test_short_prompts_are_computed_together(bench: Any, prompts: list[list[int]], greedy: list[list[int]]) -> None:
    assert sum(map(len, prompts[:4])) < START
    seqs = [bench.begin(prompt, 10) for prompt in prompts[:4]]
    assert list(prefilled(bench.step()).values()) == [len(prompt) for prompt in prompts[:4]]
    bench.drain()
    assert [bench.tokens[seq] for seq in seqs] == [tokens[:10] for tokens in greedy[:4]]


def test_prompts_go_by_rank_and_the_most_urgent_has_a_step_to_itself(bench: Any, prompts: list[list[int]], greedy: list[list[int]]) -> None:
    long, size = prompts[7], len(prompts[7])
    assert size - START > LEAST
    bench.begin(prompts[0], 30, rank=1)
    bench.step()
    late, equal, urgent = (bench.begin(long, 5, rank=rank) for rank in (2, 1, 0))
    assert prefilled(bench.step()) == {urgent: START}
    assert prefilled(bench.step()) == {urgent: size - START}
    while not bench.tokens[equal]:
        done = prefilled(bench.step())
        assert sum(done.values()) <= LEAST
        assert late not in done or bench.tokens[equal]
    bench.drain()
    for seq in (late, equal, urgent):
        assert bench.tokens[seq] == greedy[7][:5]


def test_an_urgent_prompt_is_not_computed_together_with_others(bench: Any, prompts: list[list[int]], greedy: list[list[int]]) -> None:
    assert sum(map(len, prompts[:2])) < START
    late, urgent = bench.begin(prompts[0], 10, rank=2), bench.begin(prompts[1], 10, rank=1)
    assert prefilled(bench.step()) == {urgent: len(prompts[1])}
    bench.drain()
    assert [bench.tokens[seq] for seq in (late, urgent)] == [tokens[:10] for tokens in greedy[:2]]


def test_a_less_urgent_prompt_takes_less_of_a_step(
    bench: Any, prompts: list[list[int]], greedy: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pace = SteadyPace()
    Pace.learn(pace, 1, 0, 0.06)
    Pace.learn(pace, 1, 40, 0.12)
    monkeypatch.setattr(bench.driver._engines["it"], "_pace", pace)
    bench.begin(prompts[0], 30, rank=1)
    bench.step()
    late = bench.begin(prompts[7], 1, rank=2)
    assert prefilled(bench.step())[late] == LEAST_BEHIND
    bench.driver.stop(Stop(late))
    equal = bench.begin(prompts[7], 1, rank=1)
    assert prefilled(bench.step())[equal] == 64
    bench.drain()
    assert bench.tokens[equal] == greedy[7][:1]


def test_a_pass_is_given_up_for_somebody_more_urgent(bench: Any, prompts: list[list[int]], greedy: list[list[int]]) -> None:
    seqs = [bench.begin(prompts[n], 20, rank=2) for n in (0, 1)]
    bench.step()
    bench.driver._engines["it"]._pace.waste(-60.0)
    looks = iter([inf, inf, 1])
    assert bench.driver.step(lambda: next(looks)) == [], "it was noticed in the middle of the pass"
    assert bench.step(lambda: 2).outputs, "an equal has to wait"
    urgent = bench.begin(prompts[2], 20, rank=1)
    bench.drain()
    assert [bench.tokens[seq] for seq in (*seqs, urgent)] == [greedy[n][:20] for n in (0, 1, 2)]


def test_not_more_than_a_share_of_the_time_is_lost_to_newcomers(bench: Any, prompts: list[list[int]]) -> None:
    bench.begin(prompts[0], 100, rank=2)
    pace = bench.driver._engines["it"]._pace
    pace.waste(pace._credit)
    assert bench.step(lambda: 0).outputs
    bench.drain()


def test_who_lacks_one_token_is_never_kept_waiting(bench: Any, prompts: list[list[int]], greedy: list[list[int]]) -> None:
    """One token of a prompt costs as much as one of a row that decodes, so it is not counted."""
    long = bench.begin(prompts[7], 1)
    short = bench.begin([1], 1)
    assert prefilled(bench.step()) == {short: 1, long: LEAST}
    bench.drain()
    assert bench.tokens[long] == greedy[7][:1]


def test_sampling_depends_on_the_seed_only(bench: Any, prompts: list[list[int]], greedy: list[list[int]]) -> None:
    tokens = bench.run(prompts[0], 24, sampling=WARM)
    again = bench.begin(prompts[0], 24, sampling=WARM)
    other = bench.begin(prompts[0], 24, sampling=Sampling(temperature=0.9, top_p=0.95, seed=8, ignore_eos=True))
    rest = bench.begin(prompts[0] + tokens[:10], 24, sampling=WARM, resumed=10)
    bench.drain()
    assert bench.tokens[again] == tokens
    assert bench.tokens[rest] == tokens[10:]
    assert bench.tokens[other] != tokens != greedy[0][:24]


@pytest.mark.parametrize("sampling", [Sampling(), WARM])
def test_a_schema_is_followed(bench: Any, prompts: list[list[int]], tokenizer: Any, sampling: Sampling) -> None:
    seqs = [bench.begin(prompt, 200, schema=PERSON, sampling=sampling) for prompt in prompts[:3]]
    bench.drain()
    for seq in seqs:
        person = json.loads(tokenizer.decode(bench.tokens[seq]))
        assert list(person) == ["name", "age", "likes"]
        assert isinstance(person["age"], int)
        assert 0 <= person["age"] <= 150
        assert person["likes"] in ("tea", "coffee")
        assert bench.finish[seq] == "stop"


def test_a_schema_is_carried_on(bench: Any, prompts: list[list[int]]) -> None:
    tokens = bench.run(prompts[0], 100, schema=PERSON)
    assert bench.run(prompts[0] + tokens[:6], 100, schema=PERSON, resumed=6) == tokens[6:]


def test_the_end_of_sequence_token_ends_a_turn_and_is_not_sent(bench: Any, tokenizer: Any) -> None:
    prompt = tokenizer.encode("<|im_start|>user\nSay: yes<|im_end|>\n<|im_start|>assistant\nYes.").ids
    seq = bench.begin(prompt, 100, sampling=Sampling())
    bench.drain()
    assert bench.finish[seq] == "stop"
    assert 2 not in bench.tokens[seq]


@pytest.mark.parametrize(
    ("prompt", "options", "why"),
    [
        ([], {}, "empty"),
        ([1] * 8192, {}, "window"),
        ([1, 49152], {}, "token ids outside"),
        ([1, -1], {}, "token ids outside"),
        ([1], {"schema": "{"}, "not JSON"),
        ([1], {"schema": '{"type": "nonsense"}'}, "schema cannot be followed"),
        ([1], {"sampling": Sampling(temperature=-1)}, "temperature"),
        ([1], {"sampling": Sampling(temperature=float("nan"))}, "temperature"),
        ([1], {"sampling": Sampling(top_p=0)}, "top_p"),
        ([1, 2], {"resumed": 3}, "resumed"),
    ],
)
def test_what_cannot_be_served_fails_alone(bench: Any, prompts: list[list[int]], prompt: list[int], options: Any, why: str) -> None:
    good = bench.begin(prompts[0], 2)
    bad = bench.begin(prompt, 10, **options)
    assert why in bench.failed[bad]
    bench.drain()
    assert bench.finish[good] == "length"
    assert bench.tokens[bad] == []


def test_more_sequences_than_slots_are_refused(bench: Any, prompts: list[list[int]]) -> None:
    seqs = [bench.begin(prompts[0], 1, lease=0) for _ in range(9)]
    assert list(bench.failed).count(seqs[8]) == 1
    assert "8 slots" in bench.failed[seqs[8]]


def test_the_window_ends_a_turn(small_model: Callable[..., Any], new_bench: Callable[[Path], Any], tmp_path: Path) -> None:
    small_model(tmp_path, "llama", max_position_embeddings=64)
    bench = new_bench(tmp_path)
    seq = bench.begin(list(range(60)), 10)
    bench.drain()
    assert len(bench.tokens[seq]) == 4
    assert bench.finish[seq] == "length"
