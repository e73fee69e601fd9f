"""Twenty principals open, append, share, fork, read and search at random, through the gate and under the shipped policies: what comes back
is what a naive model says each may see, and nothing else."""

import itertools
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernos.syscalls.context import (
    AppendContext,
    DeleteContext,
    ForkContext,
    GrantContext,
    OpenContext,
    PageOut,
    ReadContext,
    Recall,
    SearchContexts,
    SummarizeContext,
)
from kernos.syscalls.errors import DeniedError, NotFoundError
from kernos.syscalls.model import Message
from kernos.syscalls.store import DeleteFile, GetFile, PutFile, ShareFiles
from tests.kernel.fakes import App, World, make_world

PROVE = bool(os.environ.get("KERNOS_PROVE"))
PRINCIPALS = 20
WORD = "treasure"
STEPS = (
    *("open", "append", "append", "page_out", "summarize", "grant", "revoke", "fork", "read", "search", "recall"),
    *("put", "share", "unshare", "get"),
)

who = st.integers(0, PRINCIPALS - 1)
steps = st.lists(
    st.tuples(st.sampled_from(STEPS), who, who, st.integers(0, 9), st.sampled_from(("read", "append"))), min_size=5, max_size=40
)


@dataclass
class Chat:
    """A context as the model knows it: whose, its texts in order, its summaries, and who may do what."""

    id: str
    owner: int
    texts: list[str]
    summaries: list[str] = field(default_factory=list)
    grants: dict[int, str] = field(default_factory=dict)

    def readable(self, caller: int) -> bool:
        return caller == self.owner or caller in self.grants

    def writable(self, caller: int) -> bool:
        return caller == self.owner or self.grants.get(caller) == "append"


class Town:
    """The kernel and the model, side by side."""

    def __init__(self, home: Path) -> None:
        self.world: World = make_world(home, policy=None)
        self.agents: list[App] = [self.world.connect(f"app:p{number}").spawn() for number in range(PRINCIPALS)]
        self.numbers = itertools.count()
        self.chats: list[Chat] = []
        self.files: dict[int, tuple[bytes, set[int]]] = {}

    def run(self, steps: list[tuple[str, int, int, int, str]]) -> None:
        for step, caller, other, which, access in steps:
            getattr(self, step)(caller, other, self.chats[which % len(self.chats)] if self.chats else None, access)
        self.clear()

    def clear(self) -> None:
        for chat in self.chats:
            self.agents[chat.owner].call(DeleteContext(context=chat.id))
        for owner, (_, readers) in self.files.items():
            for reader in readers:
                self.agents[owner].call(ShareFiles(path="box", principal=f"app:p{reader}", access=None))
            self.agents[owner].call(DeleteFile(path="box"))
        self.chats, self.files = [], {}
        self.world.host.sent.clear()

    def allowed(self, caller: int, call: Any, may: bool) -> Any:
        """Make a call that must be carried out, or refused, as the model says; its reply, or `None`."""
        if may:
            return self.agents[caller].call(call)
        error = self.agents[caller].refused(call)
        assert isinstance(error, DeniedError | NotFoundError), error
        assert WORD not in str(error.body())
        return None

    # --- steps

    def open(self, caller: int, other: int, chat: Chat | None, access: str) -> None:
        id_ = self.agents[caller].call(OpenContext(name=f"c{next(self.numbers)}")).context
        self.chats.append(Chat(id_, caller, []))

    def append(self, caller: int, other: int, chat: Chat | None, access: str) -> None:
        if chat is not None:
            text = f"{WORD} number{next(self.numbers)}"
            call = AppendContext(context=chat.id, messages=[Message("user", text)])
            if self.allowed(caller, call, chat.writable(caller)):
                chat.texts.append(text)

    def page_out(self, caller: int, other: int, chat: Chat | None, access: str) -> None:
        if chat is not None and chat.texts:
            self.agents[chat.owner].call(PageOut(context=chat.id, until=len(chat.texts)))

    def summarize(self, caller: int, other: int, chat: Chat | None, access: str) -> None:
        if chat is not None and chat.texts:
            text = f"{WORD} in short {next(self.numbers)}"
            call = SummarizeContext(context=chat.id, start=0, stop=len(chat.texts), text=text)
            if self.allowed(caller, call, caller == chat.owner):
                chat.summaries.append(text)

    def grant(self, caller: int, other: int, chat: Chat | None, access: str) -> None:
        if chat is not None and other != chat.owner:
            call = GrantContext(context=chat.id, principal=f"app:p{other}", access="append" if access == "append" else "read")
            if self.allowed(caller, call, caller == chat.owner):
                chat.grants[other] = access

    def revoke(self, caller: int, other: int, chat: Chat | None, access: str) -> None:
        if chat is not None and chat.grants:
            gone = sorted(chat.grants)[other % len(chat.grants)]
            self.agents[chat.owner].call(GrantContext(context=chat.id, principal=f"app:p{gone}", access=None))
            del chat.grants[gone]

    def fork(self, caller: int, other: int, chat: Chat | None, access: str) -> None:
        if chat is not None:
            made = self.allowed(caller, ForkContext(context=chat.id, name=f"f{next(self.numbers)}"), chat.readable(caller))
            if made:
                self.chats.append(Chat(made.context, caller, [*chat.texts], [*chat.summaries]))

    def read(self, caller: int, other: int, chat: Chat | None, access: str) -> None:
        if chat is not None:
            part = self.allowed(caller, ReadContext(context=chat.id), chat.readable(caller))
            assert part is None or [message.text for message in part.messages] == chat.texts

    def search(self, caller: int, other: int, chat: Chat | None, access: str) -> None:
        found = self.agents[caller].call(SearchContexts(query=WORD, limit=100)).pages
        own = {(chat.id, text) for chat in self.chats if chat.owner == caller for text in [*chat.texts, *chat.summaries]}
        assert {(page.context, page.text) for page in found} <= own

    def recall(self, caller: int, other: int, chat: Chat | None, access: str) -> None:
        if chat is not None:
            found = self.allowed(caller, Recall(context=chat.id, query=WORD), chat.readable(caller))
            assert found is None or {page.text for page in found.pages} <= {*chat.texts, *chat.summaries}

    def put(self, caller: int, other: int, chat: Chat | None, access: str) -> None:
        data = f"{WORD} of {caller}, {next(self.numbers)}".encode()
        self.agents[caller].call(PutFile(path="box", data=data))
        self.files[caller] = (data, self.files.get(caller, (b"", set()))[1])

    def share(self, caller: int, other: int, chat: Chat | None, access: str) -> None:
        if caller in self.files and other != caller:
            self.agents[caller].call(ShareFiles(path="box", principal=f"app:p{other}", access="read"))
            self.files[caller][1].add(other)

    def unshare(self, caller: int, other: int, chat: Chat | None, access: str) -> None:
        if caller in self.files and self.files[caller][1]:
            gone = sorted(self.files[caller][1])[other % len(self.files[caller][1])]
            self.agents[caller].call(ShareFiles(path="box", principal=f"app:p{gone}", access=None))
            self.files[caller][1].discard(gone)

    def get(self, caller: int, other: int, chat: Chat | None, access: str) -> None:
        data, readers = self.files.get(other, (b"", set()))
        owner = None if caller == other else f"app:p{other}"
        found = self.allowed(caller, GetFile(path="box", owner=owner), other in self.files and (caller == other or caller in readers))
        assert found is None or found.data == data


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Town:
    return Town(tmp_path_factory.mktemp("town"))


@settings(
    max_examples=5_000 if PROVE else 60,
    derandomize=not PROVE,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(steps)
def test_nobody_gets_a_row_that_was_not_granted(town: Town, steps: list[tuple[str, int, int, int, str]]) -> None:
    try:
        town.run(steps)
    finally:
        town.clear()
