"""How long a turn runs before it gives way, by the pace of its lane."""

import pytest

from kernos.kernel.core.lanes import Lane
from kernos.kernel.limits import QUANTUM_S, QUANTUM_SLOW, QUANTUM_TOKENS


@pytest.mark.parametrize(
    ("step_s", "quantum"),
    [(0.001, QUANTUM_TOKENS), (QUANTUM_S / 32, 32), (QUANTUM_S / 20, 20), (QUANTUM_S / 16, QUANTUM_SLOW), (3.0, QUANTUM_SLOW)],
)
def test_a_quantum_takes_about_as_long_on_any_device(step_s: float, quantum: int) -> None:
    lane = Lane()
    for _ in range(200):
        lane.pace(step_s)
    assert lane.quantum == quantum


def test_one_odd_step_changes_little() -> None:
    lane = Lane()
    for _ in range(200):
        lane.pace(QUANTUM_S / 30)
    lane.pace(5 * QUANTUM_S / 30)
    assert lane.quantum >= 25


def test_a_fixed_quantum_stays() -> None:
    lane = Lane()
    lane.fixed_quantum = 256
    lane.pace(10.0)
    assert lane.quantum == 256
