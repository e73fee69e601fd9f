from hypothesis import given
from hypothesis import strategies as st

from kernos.kernel.core.supervision import RestartIntensity
from tests.kernel.fakes import examples


@examples(100)
@given(st.integers(0, 4), st.lists(st.integers(0, 8), max_size=40))
def test_against_the_definition(most: int, pauses: list[int]) -> None:
    """May restart unless this is more than `most` crashes within the window."""
    intensity = RestartIntensity(most, 10.0)
    crashes: list[float] = []
    now = 0.0
    for pause in pauses:
        now += pause
        crashes.append(now)
        assert intensity.may_restart(now) == (len([crash for crash in crashes if now - crash <= 10.0]) <= most)
    assert intensity.total == len(pauses)


def test_the_defaults_are_three_in_ten_seconds() -> None:
    intensity = RestartIntensity()
    assert [intensity.may_restart(now) for now in (0.0, 1.0, 2.0, 3.0)] == [True, True, True, False]
    assert intensity.may_restart(13.5)


def test_forgiving_starts_anew_and_keeps_the_total() -> None:
    intensity = RestartIntensity(1, 10.0)
    assert [intensity.may_restart(0.0), intensity.may_restart(0.0)] == [True, False]
    intensity.forgive()
    assert intensity.may_restart(0.0)
    assert intensity.total == 3
