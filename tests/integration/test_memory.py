"""What a kernel keeps, over the death of the kernel."""

import os
import subprocess
import sys
from threading import Event, Thread
from time import monotonic

import pytest

from benchmarks.kernel import RunningKernel, booted
from kernos.syscalls import Context, Kernel, Key, Places, Store
from kernos.syscalls.context import AppendContext, OpenContext
from kernos.syscalls.errors import ConflictError, KernelRestartedError, StoppingError, UnreachableError
from kernos.syscalls.model import Generate, Message
from kernos.syscalls.system import BackUp

MODEL = "smollm2-135m"


def test_contexts_are_back_after_a_kill(models: object, home: str) -> None:
    with booted(home=home) as running, running.connect() as kernel:
        chat = Context(kernel.spawn("writer"), "chat")
        chat.append(Message("user", "first"), Message("assistant", "second"))
        chat.fork("other").append(Message("user", "third"))
        call = AppendContext(context=chat.id, messages=[Message("user", "fourth")])
        info = kernel.spawn("again").call(call, key="once")
        running.kill()
    with booted(home=home) as running, running.connect() as kernel:
        agent = kernel.spawn("writer")
        assert agent.call(call, key="once") == info
        assert [message.text for message in Context(agent, "chat")] == ["first", "second", "fourth"]
        assert [message.text for message in Context(agent, "other")] == ["first", "second", "third"]
        files = [path for path in running.where.state.rglob("*") if path.is_file()]
        assert files
        assert not [path for path in files if b"fourth" in path.read_bytes()]


def test_a_conversation_goes_on(kernel: RunningKernel) -> None:
    with kernel.connect() as connection:
        agent = connection.spawn("talker")
        chat = Context(agent, "talk")
        for question in ("My name is Iris.", "What is my name?"):
            answer = agent.call(Generate(model=MODEL, context=chat.id, messages=[Message("user", question)], max_tokens=16), timeout=120)
            assert answer.text
        stat = chat.stat()
        assert stat.info.messages == len(list(chat)) == 4
        # What was counted when the messages were appended is what the last prompt and its answer had, but for the system prompt.
        assert abs(stat.info.tokens - answer.usage.prompt_tokens - len(answer.tokens)) < 40
        chat.delete()


def test_what_left_the_window_is_recalled_by_meaning(kernel: RunningKernel) -> None:
    with kernel.connect() as connection:
        chat = Context(connection.spawn("rememberer"), "facts")
        small_talk = [Message("user", f"The train to platform {n} left on time, and the weather was fine.") for n in range(40)]
        chat.append(Message("user", "My sister Clara adopted a grey kitten."), *small_talk)
        chat.page_out(30)
        until = monotonic() + 60
        while chat.stat().embedded < 30 and monotonic() < until:
            chat.recall("Which animal lives with her?", limit=1)
        found = chat.recall("Which animal lives with her?", limit=1)
        assert found[0].message == 0
        assert found[0].points.meaning > found[0].points.words
        prompt = chat.explain(MODEL, Message("user", "Which animal lives with her?"))
        assert "kitten" in next(part.text for part in prompt.parts if part.why == "recalled")
        chat.delete()


def test_files_are_found_by_meaning(kernel: RunningKernel) -> None:
    with kernel.connect() as connection:
        store = Store(connection.spawn("librarian"))
        store.put("found/pets", b"My sister Clara adopted a grey kitten.")
        for number in range(12):
            store.put(f"found/train-{number}", f"The train to platform {number} left on time, and the weather was fine.".encode())
        until = monotonic() + 60
        best = store.search("Which animal lives with her?", "found/", limit=1)[0]
        while (best.points.meaning == 0 or best.file.path != "found/pets") and monotonic() < until:
            best = store.search("Which animal lives with her?", "found/", limit=1)[0]
        assert best.file.path == "found/pets"
        assert best.points.meaning > best.points.words == 0
        store.put("found/pets", b"The train to platform 13 was late.")
        assert "kitten" not in "".join(found.text for found in store.search("kitten", "found/", limit=100))
        for file in store.list("found/"):
            store.delete(file.path)
        assert store.search("train", "found/") == []


class Writer(Thread):
    """A client that counts in a context of its own, and makes each call again until it is answered."""

    def __init__(self, number: int, where: Places, key: Key) -> None:
        super().__init__(daemon=True)
        self.name = f"writer-{number}"
        self.where, self.key = where, key
        self.acknowledged = 0
        self.stop = Event()

    def run(self) -> None:
        while not self.stop.is_set():
            try:
                with Kernel(self.key, where=self.where) as kernel:
                    self._count(kernel.spawn(self.name))
            except (KernelRestartedError, UnreachableError, StoppingError):
                self.stop.wait(0.02)

    def _count(self, agent: Kernel) -> None:
        id_ = agent.call(OpenContext(name=self.name), key=f"{self.name}-open").context
        while not self.stop.is_set():
            messages = [Message("user", f"{self.acknowledged}a"), Message("user", f"{self.acknowledged}b")]
            agent.call(AppendContext(context=id_, messages=messages), key=f"{self.name}-{self.acknowledged}", timeout=5)
            self.acknowledged += 1


def test_a_backup_under_writers_is_one_moment_of_each(models: object, home: str) -> None:
    with booted(home=home) as running, running.connect() as kernel:
        writers = [Writer(number, running.where, running.key) for number in range(4)]
        for writer in writers:
            writer.start()
        until = monotonic() + 30
        while any(writer.acknowledged < 20 for writer in writers) and monotonic() < until:
            writers[0].stop.wait(0.01)
        least = [writer.acknowledged for writer in writers]
        kernel.call(BackUp(path=f"{home}/backup"), timeout=60)
        most = [writer.acknowledged + 1 for writer in writers]
        while any(writer.acknowledged < high + 5 for writer, high in zip(writers, most, strict=True)) and monotonic() < until:
            writers[0].stop.wait(0.01)
        for writer in writers:
            writer.stop.set()
            writer.join()
        assert all(writer.acknowledged >= high + 5 for writer, high in zip(writers, most, strict=True)), "nobody was kept waiting"
    command = [sys.executable, "-m", "kernos.apps.cli", "restore", "--yes", f"{home}/backup"]
    subprocess.run(command, env=os.environ | {"KERNOS_HOME": home}, check=True, timeout=60)
    with booted(home=home) as running, running.connect() as kernel:
        for writer, low, high in zip(writers, least, most, strict=True):
            texts = [message.text for message in Context(kernel.spawn("reader"), writer.name)]
            assert low <= len(texts) // 2 <= high
            assert texts == [f"{number}{half}" for number in range(len(texts) // 2) for half in "ab"]


def test_a_backup_is_a_way_back(models: object, home: str) -> None:
    environment = os.environ | {"KERNOS_HOME": home}
    file = f"{home}/backup"
    with booted(home=home) as running, running.connect() as kernel:
        chat = Context(kernel.spawn("writer"), "chat")
        chat.append(Message("user", "kept"))
        assert kernel.call(BackUp(path=file)).commits > 0
        with pytest.raises(ConflictError):
            kernel.call(BackUp(path=file))
        chat.append(Message("user", "later"))
        command = [sys.executable, "-m", "kernos.apps.cli", "restore", "--yes", file]
        refused = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert refused.returncode == 1, "a kernel is running"
    subprocess.run(command, env=environment, check=True, timeout=60)
    with booted(home=home) as running, running.connect() as kernel:
        assert [message.text for message in Context(kernel.spawn("reader"), "chat")] == ["kept"]
