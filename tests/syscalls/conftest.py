"""An installation in a temporary folder, a key, and a stand-in for the kernel."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernos.syscalls import Key, Places, places
from kernos.syscalls.keys import make_key, write_key
from tests.syscalls.standin import StandIn, standing_in


@pytest.fixture
def where() -> Iterator[Places]:
    # Not tmp_path: its name holds the test's, and the path of a socket has to be short.
    with tempfile.TemporaryDirectory(prefix="kernos-") as folder:
        yield places(Path(folder))


@pytest.fixture
def key(where: Places) -> Key:
    made = make_key("admin:tester")
    write_key(where, made)
    return made


@pytest.fixture
def standin(where: Places, key: Key) -> Iterator[StandIn]:
    with standing_in(where, key) as kernel:
        yield kernel
