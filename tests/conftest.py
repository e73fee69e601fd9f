"""What the tests of several folders share: the models, and one real kernel for those that do not kill it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.kernel import RunningKernel, booted, models_folder


@pytest.fixture(scope="session")
def models() -> Path:
    """The model store with the two embedded models."""
    folder = models_folder()
    missing = [name for name in ("smollm2-135m", "minilm") if not (folder / name / "kernos.json").exists()]
    if missing:
        pytest.fail(f"The model store {folder} lacks {', '.join(missing)}. Run `make test`, which pulls them.")
    return folder


@pytest.fixture(scope="session")
def kernel(models: Path) -> Iterator[RunningKernel]:
    """A kernel in fp32 with both models ready, for the whole session. Leave it as you found it."""
    with booted("--dtype", "float32") as running:
        running.load_models()
        yield running


@pytest.fixture
def own_kernel(models: Path) -> Iterator[RunningKernel]:
    """A kernel for one test, which may do to it what it wants; models load behind it."""
    with booted("--dtype", "float32") as running:
        yield running
