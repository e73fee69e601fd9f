"""Vectors of many texts, each computed once."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np

from kernos.agents import Agent
from kernos.agents.embedding import Embedding
from kernos.agents.testing import FakeKernel
from kernos.syscalls.model import Embed

TEXTS = [f"text number {number} of some" for number in range(150)]


def embedded(fake: FakeKernel) -> list[str]:
    return [text for call in fake.made if isinstance(call, Embed) for text in call.texts if not text.startswith("Which weights")]


def work(fake: FakeKernel, folder: Path | None, body: Callable[[Embedding], Awaitable[None]], model: str | None = None) -> None:
    async def run() -> None:
        async with Agent.spawn(fake, "reader") as agent:
            await body(await Embedding.open(agent, folder, model=model))

    asyncio.run(run())


def test_each_text_is_computed_once_and_comes_in_its_place(tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []

    async def body(embedding: Embedding) -> None:
        found = await embedding.embed([*TEXTS, TEXTS[7]], lambda done, of: heard.append((done, of)))
        assert found.shape == (151, embedding.dim)
        np.testing.assert_array_equal(found[150], found[7])
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-3)
        np.testing.assert_array_equal(await embedding.embed(TEXTS[3:4]), found[3:4])
        assert (await embedding.embed([])).shape == (0, embedding.dim)

    fake = FakeKernel()
    work(fake, None, body)
    assert sorted(embedded(fake)) == sorted(TEXTS)
    assert heard == [(64, 150), (128, 150), (150, 150)]
    assert list(tmp_path.iterdir()) == []


def test_the_next_run_knows_them_and_a_cut_file_loses_only_its_end(tmp_path: Path) -> None:
    async def all_of_them(embedding: Embedding) -> None:
        await embedding.embed(TEXTS)

    work(first := FakeKernel(), tmp_path, all_of_them)
    work(second := FakeKernel(), tmp_path, all_of_them)
    assert len(embedded(first)) == 150
    assert embedded(second) == []
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-700])  # a record of the fake encoder takes 528 bytes
    work(third := FakeKernel(), tmp_path, all_of_them)
    work(fourth := FakeKernel(), tmp_path, all_of_them)
    assert len(embedded(third)) == 2
    assert embedded(fourth) == []


def test_vectors_of_other_weights_are_not_taken(tmp_path: Path) -> None:
    async def all_of_them(embedding: Embedding) -> None:
        await embedding.embed(TEXTS)

    work(FakeKernel(), tmp_path, all_of_them, model="mine")
    (file,) = tmp_path.iterdir()
    data = bytearray(file.read_bytes())
    data[16:528] = np.eye(1, 256, dtype=np.float16).tobytes()  # the first record tells whose they are
    file.write_bytes(data)
    work(again := FakeKernel(), tmp_path, all_of_them, model="mine")
    assert len(embedded(again)) == 150
