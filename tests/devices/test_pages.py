"""Pages: what comes back by copy goes on as if it had never been away, and what cannot be had is refused."""

import gc
import os
import select
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from kernos.kernel.devices.messages import (
    PAGE,
    Begin,
    Copied,
    Copy,
    Dtype,
    Extend,
    Failed,
    Load,
    Loaded,
    LoadFailed,
    Sampling,
    Save,
    Saved,
    Stop,
    Tier,
    Unload,
)
from kernos.kernel.devices.pace import START
from kernos.kernel.devices.shape import page_bytes
from kernos.kernel.devices.swap import SwapFile
from kernos.kernel.devices.torch_driver import TorchDriver

GENERATOR = torch.Generator().manual_seed(4)
LONG: list[int] = torch.randint(128, (400,), generator=GENERATOR).tolist()
PROMPT = LONG[:200]
LIVELY = Sampling(temperature=1.0, seed=3, ignore_eos=True)
"""The greedy choice of random weights soon is the same token for ever, whatever the cache holds."""


@dataclass
class Kernel:
    """The commands for pages, as the kernel gives them."""

    bench: Any
    copies: list[int] = field(default_factory=list)
    reports: list[Copied | Failed] = field(default_factory=list)

    @property
    def pool(self) -> Any:
        return self.bench.driver._engines["it"].pool

    def begin(self, prompt: list[int], max_tokens: int, **options: Any) -> int:
        seq: int = self.bench.begin(prompt, max_tokens, **{"sampling": LIVELY} | options)
        return seq

    def run(self, prompt: list[int], max_tokens: int) -> list[int]:
        seq = self.begin(prompt, max_tokens)
        self.bench.drain()
        tokens: list[int] = self.bench.tokens[seq]
        return tokens

    def held(self, seq: int) -> int:
        """Make a step."""
        held: int = {output.seq: output.held for output in self.bench.step().outputs}[seq]
        return held

    def row(self, seq: int, tokens: int) -> Any:
        return self.bench.driver._engines["it"]._model.row(seq)[..., :tokens, :].clone()

    def save(self, seq: int, first: int, slots: list[int]) -> Saved | Failed:
        report = self.bench.driver.save(Save(seq, "it", first, slots))
        assert isinstance(report, Saved | Failed)
        return report

    def order(self, source: Tier, target: Tier, *pairs: tuple[int, int]) -> Copied | Failed | None:
        self.copies.append(len(self.copies))
        report = self.bench.driver.copy(Copy(self.copies[-1], "it", source, target, list(pairs)))
        assert report is None or isinstance(report, Copied | Failed)
        return report

    def wait(self) -> Copied | Failed:
        if not self.reports:
            assert select.select([self.bench.driver], [], [], 30)[0], "no report came"
            self.reports += self.bench.driver.collect()
        return self.reports.pop(0)

    def copy(self, source: Tier, target: Tier, *pairs: tuple[int, int]) -> Copied | Failed:
        return self.order(source, target, *pairs) or self.wait()

    def filled(self, slots: list[int], prompt: list[int] = PROMPT) -> None:
        """Put the pages of a prompt into slots."""
        seq = self.begin(prompt, 1, keep=True)
        self.bench.drain()
        saved = self.save(seq, 0, slots)
        assert isinstance(saved, Saved)
        self.bench.driver.stop(Stop(seq))

    def page(self, slot: int) -> bytes:
        return bytes(self.pool._device[slot].view(torch.uint8).numpy().tobytes())


def why(report: object) -> str:
    assert isinstance(report, Failed), report
    return report.reason


@pytest.fixture(scope="module")
def folder(small_model: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    small_model(folder, "llama")
    return folder


@pytest.fixture
def kernel(folder: Path, new_bench: Callable[..., Any], tmp_path: Path) -> Iterator[Kernel]:
    bench = new_bench(folder, pages=16, host_pages=8, disk_pages=8, swap=str(tmp_path / "swap"))
    yield Kernel(bench)
    bench.driver.unload(Unload("it"))


@pytest.fixture
def undisturbed(kernel: Kernel) -> list[int]:
    tokens = kernel.run(PROMPT, 100)
    assert len(set(tokens)) > 20
    return tokens


# --- what comes back goes on


@pytest.mark.parametrize("cached", [1, 63, 64, 65, 127, 128, 150, 192, 199])
def test_a_prompt_with_pages_gives_the_same_tokens(kernel: Kernel, undisturbed: list[int], cached: int) -> None:
    kernel.pool._device.fill_(float("nan"))  # what is not filled must not come along
    first = kernel.begin(PROMPT, 1, keep=True)
    kernel.bench.drain()
    assert isinstance(kernel.save(first, 0, [9, 2, 5, 0]), Saved)
    row = kernel.row(first, cached)
    kernel.bench.driver.stop(Stop(first))
    needed = -(-cached // PAGE)
    seq = kernel.begin(PROMPT, 100, pages=[9, 2, 5, 0][:needed], cached=cached)
    assert torch.equal(kernel.row(seq, cached), row)
    first_share = min(200 - cached, START)
    stepped = kernel.bench.step()
    assert [(output.prefilled, output.held) for output in stepped.outputs] == [(first_share, cached + first_share)]
    kernel.bench.drain()
    assert kernel.bench.tokens[seq] == undisturbed


@pytest.mark.parametrize("produced", [1, 2, 55, 56, 57, 58, 99])
def test_a_preempted_turn_goes_on(kernel: Kernel, undisturbed: list[int], produced: int) -> None:
    """The last token has no KV yet: 200 + 57 - 1 is a page boundary."""
    seq = kernel.begin(PROMPT, 100, lease=produced)
    other = kernel.begin(LONG[200:300], 120)
    held = 0
    while len(kernel.bench.tokens[seq]) < produced:
        held = kernel.held(seq)
    assert held == 200 + produced - 1
    slots = list(range(-(-held // PAGE)))
    saved = kernel.save(seq, 0, slots)
    assert isinstance(saved, Saved)
    assert (saved.seq, saved.first, saved.held) == (seq, 0, held)
    kernel.bench.driver.stop(Stop(seq))
    kernel.bench.step()
    again = kernel.begin(PROMPT + undisturbed[:produced], 100, resumed=produced, pages=slots, cached=held)
    kernel.bench.drain()
    assert kernel.bench.tokens[seq] + kernel.bench.tokens[again] == undisturbed
    assert kernel.bench.finish[other] == "length"


def test_pages_are_saved_one_after_another_while_the_sequence_runs(kernel: Kernel, undisturbed: list[int]) -> None:
    seq = kernel.begin(PROMPT, 100)
    saved = 0
    while kernel.bench.driver.busy:
        held = kernel.held(seq)
        if held // PAGE > saved and kernel.bench.driver.busy:
            assert isinstance(kernel.save(seq, saved, list(range(saved, held // PAGE))), Saved)
            saved = held // PAGE
    assert saved == 4
    again = kernel.begin(PROMPT + undisturbed[:80], 100, resumed=80, pages=[0, 1, 2, 3], cached=256)
    kernel.bench.drain()
    assert kernel.bench.tokens[again] == undisturbed[80:]


def test_sequences_share_pages(kernel: Kernel) -> None:
    """The same first 150 tokens, each its own rest; none of them changes what the others read."""
    prompts = [PROMPT[:150] + LONG[200 + 50 * n : 250 + 50 * n] for n in range(3)]
    expected = [kernel.run(prompt, 30) for prompt in prompts]
    kernel.filled([3, 4, 5], PROMPT[:150])
    before = [kernel.page(slot) for slot in (3, 4, 5)]
    seqs = [kernel.begin(prompt, 30, pages=[3, 4, 5], cached=150) for prompt in prompts]
    kernel.bench.drain()
    assert [kernel.bench.tokens[seq] for seq in seqs] == expected
    assert [kernel.page(slot) for slot in (3, 4, 5)] == before


def test_a_prompt_is_saved_when_half_of_it_is_computed(kernel: Kernel) -> None:
    expected = kernel.run(LONG, 20)
    seq = kernel.begin(LONG, 20)
    (output,) = kernel.bench.step().outputs
    assert (output.tokens, output.held) == ([], START)
    assert isinstance(kernel.save(seq, 0, [0, 1, 2]), Saved)
    kernel.bench.driver.stop(Stop(seq))
    again = kernel.begin(LONG, 20, pages=[0, 1, 2], cached=START)
    kernel.bench.drain()
    assert kernel.bench.tokens[again] == expected


def test_a_save_may_ask_for_more_pages_than_there_are(kernel: Kernel, undisturbed: list[int]) -> None:
    kernel.filled([4, 5, 6, 7], LONG[200:])
    seq = kernel.begin(PROMPT, 100, lease=50)
    kernel.bench.drain()
    saved = kernel.save(seq, 2, [2, 3, 4, 5])
    assert isinstance(saved, Saved)
    assert saved.held == 249
    assert kernel.pool._filled["device"][2:8] == [64, 57, 0, 0, 64, 8]
    assert isinstance(kernel.save(seq, 0, [0, 1]), Saved)
    assert isinstance(kernel.save(seq, 0, []), Saved), "nor need it ask for any"
    again = kernel.begin(PROMPT + undisturbed[:50], 100, resumed=50, pages=[0, 1, 2, 3], cached=249)
    kernel.bench.drain()
    assert kernel.bench.tokens[again] == undisturbed[50:]


def test_memory_is_had_ahead_of_pages_and_changes_none(kernel: Kernel) -> None:
    def prepared() -> int:
        return sum(iter(kernel.bench.driver.prepare, False))

    pool = kernel.pool
    pool._ahead = 4
    pool._device[:] = 1
    assert prepared() == 4
    kernel.filled([4, 5, 6, 7])
    before = [kernel.page(slot) for slot in range(4, 8)]
    assert prepared() == 8 - 4 + 4
    assert [kernel.page(slot) for slot in range(4, 8)] == before
    assert not pool._device[:4].any(), "it was written to, so it is there"
    assert pool._device[12:].all()
    kernel.filled([0, 1, 2, 13])
    assert prepared() == 16 - 12


def test_a_finished_sequence_is_kept_until_it_is_stopped(kernel: Kernel, undisturbed: list[int]) -> None:
    driver = kernel.bench.driver
    seq = kernel.begin(PROMPT, 57, keep=True)
    kernel.bench.drain()
    assert kernel.bench.finish[seq] == "length"
    driver.extend(Extend(seq, 10))
    assert not driver.busy
    assert isinstance(kernel.save(seq, 0, [0, 1, 2, 3]), Saved)
    driver.stop(Stop(seq))
    assert "not there" in why(kernel.save(seq, 0, [0, 1, 2, 3]))


# --- down the tiers and back


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_pages_come_back_byte_for_byte(folder: Path, new_bench: Callable[..., Any], tmp_path: Path, dtype: Dtype) -> None:
    kernel = Kernel(new_bench(folder, dtype, pages=8, host_pages=8, disk_pages=8, swap=str(tmp_path / "swap")))
    expected = kernel.run(PROMPT, 30)
    slots = [0, 1, 2, 3]
    kernel.filled(slots)
    assert kernel.pool.page_bytes == len(kernel.page(0)) == page_bytes(folder, dtype)
    before = [kernel.page(slot) for slot in slots]
    size = 4 * len(before[0])
    orders: list[tuple[Tier, Tier, list[int], list[int]]] = [
        ("device", "host", slots, [7, 5, 3, 1]),
        ("host", "disk", [7, 5, 3, 1], [0, 2, 4, 7]),
        ("disk", "host", [0, 2, 4, 7], [0, 1, 2, 3]),
        ("host", "device", [0, 1, 2, 3], [4, 5, 6, 7]),
    ]
    for source, target, from_, to in orders:
        copied = kernel.copy(source, target, *zip(from_, to, strict=True))
        assert isinstance(copied, Copied), copied
        assert (copied.id, copied.bytes) == (kernel.copies[-1], size)
    assert [kernel.page(slot) for slot in (4, 5, 6, 7)] == before
    seq = kernel.begin(PROMPT, 30, pages=[4, 5, 6, 7], cached=199)
    kernel.bench.drain()
    assert kernel.bench.tokens[seq] == expected


def test_copies_run_beside_the_steps(kernel: Kernel, undisturbed: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk hangs: steps go on, and so do other copies; the report comes when the disk is back."""
    kernel.filled([0, 1, 2, 3])
    kernel.copy("device", "host", (0, 0), (1, 1), (2, 2))
    free, write = threading.Event(), SwapFile.write

    def slow(self: SwapFile, slot: int, page: memoryview) -> None:
        assert free.wait(30)
        write(self, slot, page)

    monkeypatch.setattr(SwapFile, "write", slow)
    seq = kernel.begin(PROMPT, 100)
    assert kernel.order("host", "disk", (0, 0), (1, 1)) is None
    assert kernel.order("host", "disk", (2, 2)) is None
    kernel.bench.drain()
    assert kernel.bench.tokens[seq] == undisturbed
    assert isinstance(kernel.order("device", "host", (3, 3)), Copied)
    for source, target, pair in (
        ("device", "host", (3, 0)),
        ("host", "device", (1, 4)),
        ("disk", "host", (0, 5)),
        ("host", "disk", (3, 1)),
    ):
        assert "in use" in why(kernel.order(source, target, pair))  # type: ignore[arg-type]
    assert kernel.bench.driver.collect() == []
    free.set()
    first = kernel.wait()
    second = kernel.wait()
    assert isinstance(first, Copied)
    assert isinstance(second, Copied)
    assert second.id == first.id + 1
    assert isinstance(kernel.copy("disk", "host", (0, 0), (1, 1), (2, 2)), Copied)


# --- the swap file


def swap_file(kernel: Kernel) -> int:
    file: int = kernel.pool._swap._file.fileno()
    return file


def test_nothing_of_the_swap_file_can_be_read(kernel: Kernel, tmp_path: Path) -> None:
    kernel.filled([0, 1, 2, 3])
    kernel.copy("device", "host", (0, 0))
    kernel.copy("host", "disk", (0, 2))
    assert list(tmp_path.iterdir()) == []
    assert os.fstat(swap_file(kernel)).st_mode & 0o777 == 0o600
    content = os.pread(swap_file(kernel), 1 << 24, 0)
    page = kernel.page(0)
    assert len(content) >= 2 * len(page)
    assert not any(page[start : start + 8] in content for start in range(0, len(page), 8))


@pytest.mark.parametrize("place", [0, 11, 12, 5000, -1])
def test_changed_bytes_are_detected(kernel: Kernel, place: int) -> None:
    kernel.filled([0, 1, 2, 3])
    kernel.copy("device", "host", (0, 0), (1, 1))
    kernel.copy("host", "disk", (0, 0), (1, 1))
    file, where = swap_file(kernel), place if place >= 0 else 12 + len(kernel.page(0)) + 16 - 1
    os.pwrite(file, bytes([os.pread(file, 1, where)[0] ^ 1]), where)
    assert "damaged" in why(kernel.copy("disk", "host", (0, 2)))
    assert "holds nothing" in why(kernel.copy("host", "device", (2, 8)))
    assert isinstance(kernel.copy("disk", "host", (1, 2)), Copied)


def test_an_older_page_and_that_of_another_slot_are_detected(kernel: Kernel) -> None:
    kernel.filled([0, 1, 2, 3])
    kernel.copy("device", "host", (0, 0), (1, 1))
    kernel.copy("host", "disk", (0, 0), (1, 1))
    file = swap_file(kernel)
    stride = os.fstat(file).st_size // 2 // 4096 * 4096 + 4096
    old = os.pread(file, 12 + len(kernel.page(0)) + 16, 0)
    kernel.copy("host", "disk", (1, 0))
    os.pwrite(file, old, 0)
    assert "damaged" in why(kernel.copy("disk", "host", (0, 2)))
    os.pwrite(file, old, stride)
    assert "damaged" in why(kernel.copy("disk", "host", (1, 2)))


def test_a_full_disk_fails_the_copy_alone(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel.filled([0, 1, 2, 3])
    kernel.copy("device", "host", (0, 0), (1, 1))
    kernel.copy("host", "disk", (0, 0))
    monkeypatch.setattr(os, "pwritev", lambda *_: 100)
    assert "is the disk full" in why(kernel.copy("host", "disk", (1, 0)))
    assert "holds nothing" in why(kernel.copy("disk", "host", (0, 2)))
    assert isinstance(kernel.copy("host", "device", (1, 4)), Copied)


def test_a_file_in_the_way_is_not_touched(folder: Path, tmp_path: Path) -> None:
    swap, driver = tmp_path / "swap", TorchDriver(torch.device("cpu"))
    swap.write_text("mine")
    load = Load("it", str(folder), "decoder", "float32", 1, disk_pages=1, swap=str(swap))
    failed = driver.load(load)
    assert isinstance(failed, LoadFailed)
    assert "exists" in failed.reason
    assert swap.read_text() == "mine"
    swap.write_text("")  # left by a crash between making and unlinking it
    assert isinstance(driver.load(load), Loaded)
    assert not swap.exists()
    driver.unload(Unload("it"))


# --- refusals


def test_orders_that_cannot_be_carried_out(kernel: Kernel) -> None:
    kernel.filled([0, 1, 2, 3])
    seq = kernel.begin(PROMPT, 100, lease=1)
    kernel.bench.drain()
    assert "page 4 is not in a row of 200" in why(kernel.save(seq, 4, [4]))
    assert "page -1 is not in a row" in why(kernel.save(seq, -1, [4]))
    assert "no device slot 16" in why(kernel.save(seq, 0, [15, 16]))
    assert "no device slot -1" in why(kernel.save(seq, 0, [-1]))
    assert "two pages" in why(kernel.save(seq, 0, [4, 4]))
    assert "not there" in why(kernel.save(99, 0, [4]))
    assert why(kernel.bench.driver.save(Save(seq, "none", 0, [4]))) == "no decoder 'none' is loaded"
    assert why(kernel.bench.driver.copy(Copy(1, "none", "host", "disk", []))) == "no decoder 'none' is loaded"
    assert "no host slot 8" in why(kernel.order("device", "host", (0, 8)))
    assert "no device slot -2" in why(kernel.order("device", "host", (-2, 0)))
    assert "no disk slot 8" in why(kernel.order("host", "disk", (0, 8)))
    assert "two pages" in why(kernel.order("device", "host", (0, 0), (1, 0)))
    assert "device slot 9 holds nothing" in why(kernel.order("device", "host", (0, 0), (9, 1)))
    assert "from device to disk" in why(kernel.order("device", "disk", (0, 0)))
    assert "from device to device" in why(kernel.order("device", "device", (0, 9)))
    kernel.bench.driver.extend(Extend(seq, 100))
    kernel.bench.drain()
    assert kernel.bench.tokens[seq] == kernel.run(PROMPT, 100)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"pages": [0, 1, 2, 3], "cached": 200}, "last one must be computed"),
        ({"pages": [], "cached": -1}, "last one must be computed"),
        ({"pages": [0], "cached": 65}, "do not lie in 1 pages"),
        ({"pages": [0], "cached": 0}, "do not lie in 1 pages"),
        ({"pages": [16], "cached": 10}, "no device slot 16"),
        ({"pages": [8], "cached": 10}, "device slot 8 holds 0 tokens"),
        ({"pages": [0, 3], "cached": 100}, "device slot 3 holds 8 tokens of KV, not the 36 of page 1"),
    ],
)
def test_pages_that_do_not_fit_are_refused(kernel: Kernel, options: dict[str, Any], reason: str) -> None:
    kernel.filled([0, 1, 2, 3])
    seq = kernel.begin(PROMPT, 10, **options)
    assert reason in kernel.bench.failed[seq]
    assert len(kernel.bench.driver._engines["it"]._sequences) == 0


def test_what_was_begun_in_trust_of_a_failed_order_is_refused(kernel: Kernel) -> None:
    """The slots held other pages before; they are never taken for the new ones."""
    kernel.filled([0, 1, 2, 3])
    kernel.copy("device", "host", (0, 0))
    why(kernel.save(99, 0, [0]))
    assert "slot 0 holds 0" in kernel.bench.failed[kernel.begin(PROMPT, 10, pages=[0], cached=64)]
    why(kernel.order("host", "device", (0, 1), (5, 2)))
    assert "slot 1 holds 0" in kernel.bench.failed[kernel.begin(PROMPT, 10, pages=[1], cached=64)]


def test_a_row_that_memory_has_no_room_for_is_refused(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel.filled([0, 1, 2, 3])
    model = kernel.bench.driver._engines["it"]._model

    def no_memory(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(model._kv, "_resize", no_memory)
    assert kernel.bench.failed[kernel.begin(LONG, 10, pages=[0], cached=64)] == "out of memory"
    assert not any(row.seq for row in model._kv.rows)


def test_unload_frees_the_pools(kernel: Kernel) -> None:
    kernel.filled([0, 1, 2, 3])
    kernel.copy("device", "host", (0, 0))
    pool, file = kernel.pool, os.dup(swap_file(kernel))
    link = Path(f"/proc/self/fd/{file}").readlink()
    gone = [weakref.ref(tensor) for tensor in (pool._device, pool._host)]
    assert kernel.order("host", "disk", (0, 0)) is None
    kernel.bench.driver.unload(Unload("it"))
    del pool
    assert isinstance(kernel.wait(), Copied), "copies under way report"
    done = threading.Event()
    kernel.bench.driver._background.submit(done.set)
    assert done.wait(30)
    os.close(file)
    gc.collect()
    assert [ref() for ref in gone] == [None, None]
    assert link not in [path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]


def test_the_generic_path_has_no_pages(small_model: Callable[..., Any], tmp_path: Path) -> None:
    small_model(tmp_path, "gpt_neox", rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5})
    driver = TorchDriver(torch.device("cpu"))
    loaded = driver.load(Load("it", str(tmp_path), "decoder", "float32", 2, 8, 8, 8, str(tmp_path / "swap")))
    assert isinstance(loaded, Loaded)
    assert loaded.page_bytes == page_bytes(tmp_path, "float32") == 0
    assert why(driver.begin(Begin(1, "it", PROMPT, 2, 2, Sampling(), pages=[0], cached=64))) == "'it' has no pages"
    assert driver.begin(Begin(2, "it", PROMPT[:100], 2, 1, Sampling(ignore_eos=True))) is None
    (stepped,) = driver.step()
    assert not isinstance(stepped, Failed)
    assert stepped.outputs[0].held == 100
    assert why(driver.save(Save(2, "it", 0, [0]))) == "'it' has no pages"
    assert why(driver.copy(Copy(1, "it", "device", "host", [(0, 0)]))) == "'it' has no pages"


# --- the real model


def test_the_real_model_goes_on_after_a_stay_on_disk(
    smollm: Path, new_bench: Callable[..., Any], prompts: list[list[int]], greedy: list[list[int]], tmp_path: Path
) -> None:
    kernel = Kernel(new_bench(smollm, pages=8, host_pages=8, disk_pages=8, swap=str(tmp_path / "swap")))
    prompt, expected = prompts[7], greedy[7]
    seq = kernel.bench.begin(prompt, 64, lease=20)
    kernel.bench.drain()
    held = len(prompt) + 19
    slots = list(range(-(-held // PAGE)))
    assert isinstance(kernel.save(seq, 0, slots), Saved)
    kernel.bench.driver.stop(Stop(seq))
    down: list[tuple[Tier, Tier]] = [("device", "host"), ("host", "disk"), ("disk", "host"), ("host", "device")]
    for source, target in down:
        assert isinstance(kernel.copy(source, target, *((slot, slot) for slot in slots)), Copied)
    again = kernel.bench.begin(prompt + expected[:20], 64, resumed=20, pages=slots, cached=held)
    kernel.bench.drain()
    assert kernel.bench.tokens[seq] + kernel.bench.tokens[again] == expected


def test_a_turn_that_ended_by_itself_holds_all_its_tokens(smollm: Path, new_bench: Callable[..., Any], tokenizer: Any) -> None:
    """The end-of-sequence token was the last one produced, so the KV of all those that were sent is there for the next turn."""
    kernel = Kernel(new_bench(smollm, pages=4))
    prompt = tokenizer.encode("<|im_start|>user\nSay: yes<|im_end|>\n<|im_start|>assistant\nYes.").ids
    seq = kernel.bench.begin(prompt, 100, sampling=Sampling(), keep=True)
    held = 0
    while not kernel.bench.finish.get(seq):
        held = kernel.held(seq)
    tokens = kernel.bench.tokens[seq]
    assert kernel.bench.finish[seq] == "stop"
    assert held == len(prompt) + len(tokens)
    slots = list(range(-(-held // PAGE)))
    assert isinstance(kernel.save(seq, 0, slots), Saved)
    kernel.bench.driver.stop(Stop(seq))
    following = prompt + tokens + tokenizer.encode("<|im_end|>\n<|im_start|>user\nAnd now?<|im_end|>\n<|im_start|>assistant\n").ids
    again = kernel.bench.begin(following, 12, pages=slots, cached=held)
    kernel.bench.drain()
    assert kernel.bench.tokens[again] == kernel.bench.run(following, 12)
