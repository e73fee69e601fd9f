"""Peers are processes that speak a small protocol: they are heard while they answer, and understood when they cannot."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from benchmarks.peers import process
from benchmarks.peers.process import Peer, PeerError, cause, interpreter, peer, started

ECHO = """
from benchmarks.peers.protocol import claim_output, serve
tell = claim_output()
print("a library greets")
serve(tell, {"version": "1", "dtype": "text"}, {"generate": lambda prompt, new: {"tokens": prompt * new}, "die": lambda: 1 / 0})
"""

STREAM = """
import json, sys
print(json.dumps({"version": "2", "dtype": "text"}), flush=True)
for first, second in zip(sys.stdin, sys.stdin):
    one, other = json.loads(first)["id"], json.loads(second)["id"]
    for id_, token, more in ((other, 1, True), (one, 2, False), (other, 3, False)):
        print(json.dumps({"id": id_, "tokens": [token], "more": more}), flush=True)
"""


T = TypeVar("T")


def talk(program: str, say: Callable[[Peer], Awaitable[T]]) -> T:
    async def run() -> T:
        async with started([sys.executable, "-c", program], {}) as found:
            return await say(found)

    return asyncio.run(run())


def test_a_peer_says_what_it_is_and_answers_whatever_libraries_print() -> None:
    async def say(it: Peer) -> None:
        assert (it.version, it.dtype) == ("1", "text")
        assert (await it.ask("generate", prompt=[5], new=3))["tokens"] == [5, 5, 5]
        assert (await it.ask("generate", prompt=[6], new=1))["tokens"] == [6]

    talk(ECHO, say)


def test_answers_cross_and_the_first_piece_is_noticed() -> None:
    async def say(it: Peer) -> None:
        heard: list[str] = []
        one, other = await asyncio.gather(
            it.ask("generate", lambda: heard.append("one")), it.ask("generate", lambda: heard.append("other"))
        )
        assert heard == ["other", "one"]
        assert (one["tokens"], other["tokens"]) == ([2], [3])

    talk(STREAM, say)


def test_one_that_does_not_start_is_quoted() -> None:
    async def say(it: Peer) -> None:
        pytest.fail("it started")

    with pytest.raises(PeerError, match="ended when it was started: ModuleNotFoundError: No module named 'no_such_engine'"):
        talk("import no_such_engine", say)


def test_one_that_dies_disappoints_all_who_wait_and_all_who_come() -> None:
    async def say(it: Peer) -> list[BaseException | dict[str, object]]:
        found = await asyncio.gather(*(it.ask("die") for _ in range(2)), return_exceptions=True)
        return [*found, *await asyncio.gather(it.ask("generate", prompt=[1], new=1), return_exceptions=True)]

    assert {type(each) for each in talk(ECHO, say)} == {PeerError}


def test_one_that_is_not_installed_says_how_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "ENVIRONMENTS", tmp_path)
    with pytest.raises(PeerError, match="make bench-peers"):
        interpreter("vllm")
    assert interpreter("hf") == sys.executable


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("Traceback\n  at\nOSError: no\n\n", "OSError: no"),
        ("(Core pid=1) ERROR 12:00 [core.py:1] ValueError: no room\nRuntimeError: the core failed", "ValueError: no room"),
        ("Killed\n", "Killed"),
        ("\n", "it said nothing"),
    ],
)
def test_the_first_error_is_the_cause(said: str, why: str) -> None:
    assert cause(said) == why


def test_transformers_takes_its_own_greedy_tokens_for_the_best(models: Path) -> None:
    async def run() -> None:
        async with peer("hf", str(models / "smollm2-135m"), "float32", "1", **process.PATIENT) as judge:
            prompt = list(range(100, 120))
            tokens = (await judge.ask("generate", prompt=prompt, new=4))["tokens"]
            verdict = await judge.ask("judge", prompt=prompt, tokens=tokens)
            assert verdict["best"] == tokens
            assert min(verdict["gaps"]) > 0
            read = (await judge.ask("memory"))["weights"]  # this model ties its embeddings to its head, so every weight is read
            assert read == pytest.approx((models / "smollm2-135m" / "model.safetensors").stat().st_size, rel=1e-3)

    asyncio.run(run())
