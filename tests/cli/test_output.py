import pytest

from kernos.apps.cli.output import size, span


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0.0s"), (4.23, "4.2s"), (59.4, "59s"), (185, "3m05s"), (7_800, "2h10m"), (443_000, "5d03h")]
)
def test_a_duration_has_two_units_at_most(seconds: float, text: str) -> None:
    assert span(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (269_000_000, "269 MB"), (1_500_000_000, "1.5 GB"), (3e15, "3e+03 TB")]
)
def test_a_size_is_in_powers_of_a_thousand(count: float, text: str) -> None:
    assert size(count) == text
