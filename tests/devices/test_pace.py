"""The pace of a device: steps that compute prompts beside rows stay about as long as they may, whatever the device."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from kernos.kernel.devices.arithmetic import fastest
from kernos.kernel.devices.pace import LEAST, LEAST_BEHIND, MOST, START, Pace


def learned(step: float, token: float, steps: int = 200) -> Pace:
    pace = Pace()
    for _ in range(steps):
        pace.learn(8, 0, step)
        pace.learn(8, 32, step + 32 * token)
    return pace


def test_before_anything_is_known_it_is_careful() -> None:
    assert Pace().beside(8) == LEAST
    assert Pace().alone() == START


def test_a_device_that_takes_prompt_tokens_along_almost_for_free_gets_many() -> None:
    pace = learned(step=0.08, token=0.00066)
    assert pace.beside(8) == 144
    assert pace.alone() == 480
    assert learned(step=0.08, token=0.0001).alone() == MOST


def test_steps_that_are_short_may_take_more_than_as_long_again() -> None:
    """Nobody notices; and who comes with others is not answered before they have been read."""
    pace = learned(step=0.01, token=0.0007)
    assert pace.beside(8) == 136
    assert pace.alone() == 424


def test_a_device_that_pays_for_each_gets_few() -> None:
    pace = learned(step=0.06, token=0.0028)
    assert pace.beside(8) == 32
    assert 96 <= pace.alone() <= 112


def test_less_urgent_prompts_make_a_step_hardly_longer() -> None:
    pace = learned(step=0.08, token=0.00066)
    assert pace.beside(8, behind=True) == 24
    assert learned(step=0.039, token=0.0018).beside(8, behind=True) == LEAST_BEHIND


@given(st.floats(1e-3, 1.0), st.floats(1e-6, 1e-1), st.integers(0, 256))
def test_it_stays_within_its_limits(step: float, token: float, rows: int) -> None:
    pace = learned(step, token, steps=3)
    assert LEAST <= pace.beside(rows) <= MOST
    assert LEAST <= pace.alone() <= MOST
    assert pace.beside(rows) * token <= max(LEAST * token, 1.01 * max(step, 0.1))


def test_steps_that_something_held_up_hardly_count() -> None:
    pace = learned(step=0.08, token=0.00066)
    for _ in range(3):
        pace.learn(8, 0, 0.5)
        pace.learn(8, 32, 0.5)
        for _ in range(20):
            pace.learn(8, 0, 0.08)
            pace.learn(8, 32, 0.08 + 32 * 0.00066)
    assert 136 <= pace.beside(8) <= 168


def test_a_tenth_of_the_time_may_be_lost() -> None:
    pace = Pace()
    assert not pace.can_waste(0.001)
    for _ in range(10):
        pace.learn(8, 0, 0.03)
    assert pace.can_waste(0.029)
    assert not pace.can_waste(0.031)
    pace.waste(0.02)
    assert not pace.can_waste(0.02)
    for _ in range(10_000):
        pace.learn(8, 0, 0.03)
    assert not pace.can_waste(1.1), "what was not used for long is not saved up for ever"


def test_a_processor_is_fastest_in_one_of_two() -> None:
    assert fastest(torch.device("cpu")) in (torch.bfloat16, torch.float32)
    assert fastest(torch.device("cpu")) is fastest(torch.device("cpu"))
