"""What several tests of real kernels share."""

import tempfile
from collections.abc import Iterator

import pytest


@pytest.fixture
def home() -> Iterator[str]:
    """A folder in which one kernel after another may run. Not pytest's own: the path of a socket has to be short."""
    with tempfile.TemporaryDirectory(prefix="kernos-") as folder:
        yield folder
