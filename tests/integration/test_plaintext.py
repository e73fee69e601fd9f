"""A marker that is said, kept, paged out, recalled, mailed and computed with is in no file, the swap file in use included."""

from collections.abc import Iterator
from pathlib import Path
from time import monotonic

from benchmarks.kernel import RunningKernel, booted
from kernos.syscalls import Context, Kernel, Store
from kernos.syscalls.client import Stream
from kernos.syscalls.message import Send
from kernos.syscalls.model import Chunk, Generate, Generation, Message
from kernos.syscalls.process import SendSignal
from kernos.syscalls.system import BackUp, GetStatus

MODEL = "smollm2-135m"
MARKER = "xylophonequokka"
FEW = "slots = 2\nkv_pages = 12\nhost_pages = 6\ndisk_pages = 256\n"


def test_no_file_holds_a_marker_in_plain_text(models: object) -> None:
    with booted(config=FEW) as running, running.connect() as kernel:
        running.load_models()
        agent = kernel.spawn("writer")
        chat = Context(agent, "chat")
        chat.append(*(Message("user", f"The {MARKER} of day {number} is kept in a box.") for number in range(12)))
        chat.page_out(8)
        assert chat.recall(f"Where is the {MARKER}?")
        chat.label("secret")
        Store(agent).put("box", f"A file about the {MARKER}.".encode() * 100)
        agent.call(Send(to=f"agent/{agent.pid}", text=f"A mail about the {MARKER}."))
        agent.call(Generate(model=MODEL, context=chat.id, messages=[Message("user", f"Say {MARKER}!")], max_tokens=4), timeout=120)
        backup = running.where.state / "backup"
        kernel.call(BackUp(path=str(backup)))
        streams = _filled_swap(kernel)
        files = list(_written(running, kernel))
        assert backup in files
        assert any("swap." in str(_target(file)) for file in files)
        assert sum(file.stat().st_size for file in files) > 1 << 20
        assert [file for file in files if MARKER.encode() in file.read_bytes()] == []
        for stream in streams:
            stream.close()


def _filled_swap(kernel: Kernel) -> list[Stream[Chunk, Generation]]:
    """Stop turns whose prompts hold the marker until their pages are on disk."""
    streams = []
    for number in range(4):
        agent = kernel.spawn(f"sleeper{number}")
        prompt = f"{number}. " + f"Tell me of the {MARKER} and " * 20
        stream = agent.stream(Generate(model=MODEL, messages=[Message("user", prompt)], max_tokens=200, ignore_eos=True))
        next(stream)
        kernel.call(SendSignal(pid=agent.pid, signal="stop"))
        streams.append(stream)
    until = monotonic() + 60
    while not any(use.tier == "disk" and use.held for use in kernel.call(GetStatus(), urgent=True).pages):
        assert monotonic() < until, "no page went to disk"
    return streams


def _written(running: RunningKernel, kernel: Kernel) -> Iterator[Path]:
    """All files under the home, and those that have lost their names but are open."""
    yield from (path for path in running.where.config.parent.rglob("*") if path.is_file())
    for device in kernel.call(GetStatus()).devices:
        yield from (link for link in Path(f"/proc/{device.os_pid}/fd").iterdir() if "swap." in str(_target(link)))


def _target(path: Path) -> Path:
    return path.readlink() if path.is_symlink() else path
