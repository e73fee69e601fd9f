"""A record of the medical app on a real kernel under the shipped policy: who is no clinician gets none of its text, whatever is tried.

Carla is a clinician and keeps a record by way of the app. Bob is not. He tries by the app acting for him, with a key of his own, and with
another app that acts for either; and an agent of Carla's that has read the record, talked into it, tries to give it to him. Every way is
one test. It passes if no part of the record is in anything that anybody but Carla was answered, also where the call itself went well.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Final, TypeVar

import msgspec
import pytest

from benchmarks.kernel import RunningKernel
from kernos.apps.medical_qa.records import LABEL, QUEUE, NoClinicianError, Records
from kernos.syscalls import AsyncKernel, Call, Kernel, Key
from kernos.syscalls.audit import ExportAudit, ReadAudit, VerifyAudit
from kernos.syscalls.context import (
    AppendContext,
    ExplainContext,
    ForkContext,
    GrantContext,
    LabelContext,
    ListContexts,
    OpenContext,
    ReadContext,
    ReadHistory,
    Recall,
    RestoreContext,
    SearchContexts,
    SnapshotContext,
    StatContext,
)
from kernos.syscalls.errors import DeniedError, KernosError, NotFoundError
from kernos.syscalls.message import Receive, Reply, Send, Subscribe
from kernos.syscalls.model import Generate, Message
from kernos.syscalls.policy import ApplyPolicy, FetchPolicy, RollBackPolicy
from kernos.syscalls.process import Declassify, Exit, Spawn, Wait
from kernos.syscalls.store import (
    CHUNK,
    BeginUpload,
    FinishUpload,
    GetFile,
    ListFiles,
    ListVersions,
    MoveFile,
    PutFile,
    RollbackFile,
    SearchFiles,
    ShareFiles,
    UploadPart,
)
from kernos.syscalls.tool import AnswerTool, CallTool, ListTools, ServeTool
from kernos.syscalls.wire import encode

R = TypeVar("R")

CARLA, DAN, BOB = "user:carla", "user:dan", "user:bob"
SECRET: Final = "Quillfeather"
NOTE: Final = f"Mrs {SECRET}, 61, has hypertension. {SECRET} takes lisinopril 20 mg daily. K 5.9 mmol/L. Seen 4 March 2024."
MODEL: Final = "smollm2-135m"
RECORD: Final = "records/p-1/note"


class Town:
    """Everybody, and all that Bob and the other app were answered."""

    def __init__(self, kernel: RunningKernel, keys: list[Key], app: Kernel, other: Kernel, bob: Kernel) -> None:
        self.kernel, self.app, self.other = kernel, app, other
        self.app_key, self.other_key, _ = keys
        self.heard: list[bytes] = []
        self.carla = app.spawn("records", user=CARLA)
        self.bob = app.spawn("desk", user=BOB)
        self.stranger = other.spawn("stranger")
        self.for_carla = other.spawn("for-carla", user=CARLA)
        self.bobs = bob  # as himself: people have no agents of their own, so most calls are not even his to make
        self.carla.call(GetFile(path=RECORD))  # from here on she carries the label
        self.chat = self.carla.call(OpenContext(name="about-p-1")).context
        self.carla.call(AppendContext(context=self.chat, messages=[Message("user", NOTE)]))
        self.carla.call(SnapshotContext(context=self.chat, name="then"))

    def hear(self, listener: Kernel, call: Call[Any], timeout: float = 5.0) -> bool:
        """Make a call for somebody who shall hear nothing; whether it was carried out."""
        try:
            self.heard.append(encode(listener.call(call, timeout=timeout)))
        except KernosError as error:
            self.heard.append(error.message.encode() + encode(error.details))
            return False
        return True

    def leak(self, call: Call[Any]) -> bool:
        """Let Carla's agent do what it was talked into; whether it was carried out."""
        try:
            self.carla.call(call, timeout=5.0)
        except DeniedError:
            return False
        return True


Way = Callable[[Town], object]


def _her_agent_shares(town: Town) -> None:
    assert not town.leak(ShareFiles(path="records/p-1", principal=BOB, access="read"))
    for who in (town.bob, town.bobs):
        town.hear(who, GetFile(path=RECORD, owner=CARLA))


def _fresh_agent_shares(town: Town) -> None:
    clean = town.app.spawn("clean", user=CARLA)  # carries nothing, and so may share; what is shared is still labelled
    clean.call(ShareFiles(path="records/p-1", principal=BOB, access="read"))
    for who in (town.bob, town.bobs):
        assert not town.hear(who, GetFile(path=RECORD, owner=CARLA))
        town.hear(who, ListFiles(owner=CARLA))
        town.hear(who, ListVersions(path=RECORD, owner=CARLA))
        town.hear(who, SearchFiles(query=f"{SECRET} hypertension", owner=CARLA))
    clean.call(ShareFiles(path="records/p-1", principal=BOB, access=None))


def _granted_context(town: Town) -> None:
    clean = town.app.spawn("clean", user=CARLA)
    assert not town.leak(GrantContext(context=town.chat, principal=BOB, access="read"))
    with suppress(DeniedError):
        clean.call(GrantContext(context=town.chat, principal=BOB, access="read"))
    for call in (ReadContext(context=town.chat), StatContext(context=town.chat), ReadHistory(context=town.chat)):
        assert not town.hear(town.bob, call)


def _mail(town: Town) -> None:
    for who in (town.bob, town.stranger):
        assert not town.leak(Send(to=f"agent/{who.pid}", text=NOTE))
        assert not town.hear(who, Receive(mailbox=f"agent/{who.pid}"), timeout=0.2)


def _reply(town: Town) -> None:
    town.bob.call(Send(to=f"agent/{town.carla.pid}", text="What does she have?"))
    mail = town.carla.call(Receive(mailbox=f"agent/{town.carla.pid}"))
    assert not town.leak(Reply(sender=f"agent/{town.bob.pid}", mail=mail.mail, text=NOTE))
    town.hear(town.bob, Receive(mailbox=f"agent/{town.bob.pid}"), timeout=0.2)


def _topic(town: Town) -> None:
    town.hear(town.bobs, Subscribe(topic="topic/medical_qa", queue="queue/bobs"))
    assert not town.leak(Send(to="topic/medical_qa", text=NOTE))
    assert not town.leak(Send(to="queue/human-support", text=NOTE))


def _queue(town: Town) -> None:
    town.carla.call(Send(to=QUEUE, text=NOTE))
    for who in (town.bob, town.bobs, town.stranger):
        assert not town.hear(who, Receive(mailbox=QUEUE), timeout=0.2)


def _child(town: Town) -> None:
    assert not town.leak(Spawn(name="child", user=BOB))


def _exit(town: Town) -> None:
    agent = town.app.spawn("teller", user=CARLA)
    agent.call(GetFile(path=RECORD))
    agent.call(Exit(pid=agent.pid, code=1, reason=f"{SECRET} has hypertension"))
    assert not town.hear(town.bob, Wait(pid=agent.pid))


def _bobs_context(town: Town) -> None:
    notes = town.bob.call(OpenContext(name="open")).context
    town.bob.call(GrantContext(context=notes, principal=CARLA, access="append"))
    for call in (
        AppendContext(context=notes, messages=[Message("user", NOTE)]),
        Generate(model=MODEL, context=notes, messages=[Message("user", NOTE)], max_tokens=1),
        LabelContext(context=notes, labels=[SECRET]),
        SnapshotContext(context=notes, name=SECRET),
    ):
        assert not town.leak(call)
    town.hear(town.bob, ReadContext(context=notes))


def _bobs_folder(town: Town) -> None:
    town.bob.call(ShareFiles(path="inbox", principal=CARLA, access="write"))
    assert not town.leak(PutFile(path="inbox/p-1", data=NOTE.encode(), owner=BOB))
    assert not town.leak(BeginUpload(path="inbox/p-2", owner=BOB))
    town.hear(town.bob, ListFiles(prefix="inbox/"))


def _upload(town: Town) -> None:
    upload = town.carla.call(BeginUpload(path="copies/p-1")).upload
    town.hear(town.bob, UploadPart(upload=upload, number=1, data=b"x"))
    town.hear(town.bob, FinishUpload(upload=upload, digest=bytes(32)))
    town.carla.call(UploadPart(upload=upload, number=0, data=NOTE.encode()[:CHUNK]))
    assert not town.hear(town.bob, GetFile(path="copies/p-1", owner=CARLA))


def _tool_of_his(town: Town) -> None:
    _with_tool(
        town,
        town.other_key,
        "customer_service/post",
        lambda: not town.leak(CallTool(tool="customer_service/post", arguments=encode_text(NOTE))),
    )


def _tool_that_tells(town: Town) -> None:
    """The app itself offers a tool that tells a record: to Bob its answer is refused."""

    def ask() -> bool:
        return not town.hear(town.bob, CallTool(tool="medical_qa/tell"))

    _with_tool(town, town.app_key, "medical_qa/tell", ask, answer=NOTE)


def _with_tool(town: Town, key: Key, name: str, ask: Callable[[], bool], answer: str = "ok") -> None:
    """Ask while a program serves a tool, which hears what it is called with."""
    started: SimpleQueue[int] = SimpleQueue()

    def serve() -> None:
        with town.kernel.connect(key) as server, suppress(KernosError):
            agent = server.spawn("server")
            if answer == NOTE:
                agent.call(PutFile(path="its-own", data=NOTE.encode(), labels=[LABEL]))
                agent.call(GetFile(path="its-own"))
            started.put(agent.pid)
            for invocation in agent.stream(ServeTool(tool=name, description="", schema="{}", stateless=True)):
                town.heard.append(b"" if answer == NOTE else encode(invocation))
                agent.call(AnswerTool(invocation=invocation.invocation, result=encode_text(answer)))

    with ThreadPoolExecutor() as pool, town.kernel.connect(key) as own:
        serving = pool.submit(serve)
        pid = started.get(timeout=10)
        while name not in {tool.tool for tool in own.call(ListTools()).tools}:
            assert not serving.done(), serving.result()
        try:
            assert ask()
        finally:
            own.call(Exit(pid=pid))
            serving.result(10)


def encode_text(text: str) -> str:
    """As JSON."""
    return msgspec.json.encode({"text": text}).decode()


def _refused(*calls: Call[Any]) -> Way:
    """Calls that Bob has made for him and makes himself, and none is carried out."""

    def go(town: Town) -> None:
        for call in calls:
            assert not town.hear(town.bob, call)
            assert not town.hear(town.bobs, call)

    return go


def _empty(*calls: Call[Any]) -> Way:
    """Calls that are carried out and find nothing of hers."""

    def go(town: Town) -> None:
        for call in calls:
            town.hear(town.bob, call)
            town.hear(town.bobs, call)
            town.hear(town.stranger, call)

    return go


def _other_app(town: Town) -> None:
    """An app that acts for Carla herself is not the one that records are for."""
    assert not town.hear(town.for_carla, GetFile(path=RECORD))
    town.hear(town.for_carla, SearchFiles(query=f"{SECRET} hypertension"))
    town.hear(town.for_carla, SearchContexts(query=f"{SECRET} hypertension"))
    assert not town.hear(town.for_carla, ReadContext(context=town.chat))


def _context(call: Callable[[str], Call[Any]]) -> Way:
    def go(town: Town) -> None:
        for who in (town.bob, town.bobs, town.stranger):
            assert not town.hear(who, call(town.chat))

    return go


def _declassify(town: Town) -> None:
    assert not town.leak(Declassify(pid=town.carla.pid, label=LABEL, reason="because"))
    assert not town.hear(town.bob, Declassify(pid=town.carla.pid, label=LABEL, reason="because"))
    assert not town.leak(LabelContext(context=town.chat, labels=[])) or LABEL in town.carla.call(StatContext(context=town.chat)).labels


WAYS: Final[dict[str, Way]] = {
    "reading the file": _refused(GetFile(path=RECORD, owner=CARLA)),
    "reading what was extracted": _refused(GetFile(path="records/p-1/record", owner=CARLA)),
    "an old version": _refused(GetFile(path=RECORD, version=1, owner=CARLA), ListVersions(path=RECORD, owner=CARLA)),
    "rolling the file back": _refused(RollbackFile(path=RECORD, version=1, owner=CARLA)),
    "moving the file": _refused(MoveFile(path=RECORD, to="mine/note", owner=CARLA)),
    "writing over it and reading": _refused(PutFile(path=RECORD, data=b"x", owner=CARLA)),
    "listing and searching files": _empty(
        ListFiles(owner=CARLA), ListFiles(), SearchFiles(query=f"{SECRET} hypertension", owner=CARLA), SearchFiles(query=SECRET)
    ),
    "her agent shares the file": _her_agent_shares,
    "a fresh agent shares the file": _fresh_agent_shares,
    "reading the context": _context(lambda id_: ReadContext(context=id_)),
    "forking the context": _context(lambda id_: ForkContext(context=id_, name="mine")),
    "recalling from the context": _context(lambda id_: Recall(context=id_, query=f"{SECRET} hypertension")),
    "explaining the prompt": _context(lambda id_: ExplainContext(context=id_, model=MODEL, messages=[Message("user", "?")])),
    "restoring a snapshot": _context(lambda id_: RestoreContext(context=id_, name="then")),
    "asking the model about it": _context(lambda id_: Generate(model=MODEL, context=id_, messages=[Message("user", "Who?")], max_tokens=2)),
    "granting oneself the context": _context(lambda id_: GrantContext(context=id_, principal=BOB, access="read")),
    "searching and listing contexts": _empty(SearchContexts(query=f"{SECRET} hypertension"), ListContexts(), ListContexts(shared=True)),
    "her agent grants the context": _granted_context,
    "her agent mails it": _mail,
    "her agent replies": _reply,
    "her agent sends it to a topic or another queue": _topic,
    "the queue of values": _queue,
    "her agent spawns one for him": _child,
    "her agent exits saying it": _exit,
    "her agent writes it into his context": _bobs_context,
    "her agent writes it into his folder": _bobs_folder,
    "an upload of hers": _upload,
    "her agent calls a tool of his app": _tool_of_his,
    "a tool of the app tells him": _tool_that_tells,
    "another app that acts for her": _other_app,
    "taking the label off": _declassify,
    "reading the audit log": _refused(ReadAudit(limit=50), ExportAudit(), VerifyAudit()),
}


@pytest.fixture(scope="module")
def clinic(kernel: RunningKernel) -> Iterator[RunningKernel]:
    """The session's kernel, with Carla and Dan in the role of clinicians."""
    with kernel.connect() as root:
        files = dict(root.call(FetchPolicy()).files)
        files["roles.d/50-clinic.csv"] = f"g, {CARLA}, role:clinician\ng, {DAN}, role:clinician\n# end\n".encode()
        root.call(ApplyPolicy(files=files, reason="clinicians"), timeout=30)
        yield kernel
        root.call(RollBackPolicy(reason="as it was"), timeout=30)


@dataclass(frozen=True)
class Program:
    """The app, as it runs for one person after the other."""

    kernel: RunningKernel
    key: Key

    def as_(self, who: str, do: Callable[[Records], Awaitable[R]]) -> R:
        """What it does for somebody with records."""

        async def body() -> R:
            async with AsyncKernel(self.key, where=self.kernel.where) as kernel, Records.open(kernel, who) as records:
                return await do(records)

        return asyncio.run(body())


@pytest.fixture(scope="module")
def program(clinic: RunningKernel) -> Program:
    return Program(clinic, clinic.enroll("app:medical_qa"))


@pytest.fixture(scope="module")
def town(clinic: RunningKernel, program: Program) -> Iterator[Town]:
    program.as_("carla", lambda records: records.add("p-1", NOTE))
    keys = [program.key, clinic.enroll("app:customer_service"), clinic.enroll(BOB)]
    with clinic.connect(keys[0]) as app, clinic.connect(keys[1]) as other, clinic.connect(keys[2]) as bob:
        yield Town(clinic, keys, app, other, bob)


@pytest.mark.parametrize("way", WAYS)
def test_a_record_reaches_nobody_who_is_no_clinician_by(way: str, town: Town) -> None:
    town.heard.clear()
    WAYS[way](town)
    assert not [said for said in town.heard if SECRET.encode() in said]


def test_there_are_enough_ways() -> None:
    assert len(WAYS) >= 20


def test_clinicians_do_read_it_and_every_look_is_written_down(town: Town, program: Program) -> None:
    kept = program.as_("carla", lambda records: records.read("p-1", "ward round"))
    assert kept.text == NOTE
    assert kept.record.laboratory[0].value.value == "5.9"
    program.as_("carla", lambda records: records.share("p-1", "dan"))
    assert program.as_("dan", lambda records: records.read("p-1", "second opinion", owner=CARLA)).text == NOTE
    looks = program.as_("carla", lambda records: records.accesses("p-1"))
    assert [(why, file.author) for why, file in looks] == [("ward round", CARLA), ("second opinion", DAN)]
    with town.kernel.connect() as root:
        audited = root.call(ReadAudit(name="store.put", text="accesses/p-1:write")).entries
    assert {entry.user for entry in audited} == {CARLA, DAN}


def test_who_is_no_clinician_is_told_so_and_leaves_nothing_behind(town: Town, program: Program) -> None:
    with pytest.raises(NoClinicianError, match=r"g, user:bob, role:clinician"):
        program.as_("bob", lambda records: records.add("p-9", NOTE))
    assert town.bob.call(ListFiles(prefix="records/")).files == []
    with pytest.raises(NoClinicianError, match=r"g, user:bob, role:clinician"):
        program.as_("carla", lambda records: records.share("p-1", "bob"))
    with pytest.raises(NotFoundError):
        program.as_("bob", lambda records: records.read("p-1", "curious", owner=CARLA))


def test_clinicians_are_told_of_values_out_of_range(program: Program) -> None:
    async def told(records: Records) -> list[str]:
        return [line async for line in records.flagged()]

    program.as_("carla", told)
    program.as_("carla", lambda records: records.add("p-2", "K 5.9 mmol/L."))
    assert program.as_("carla", told) == [f"{CARLA}: p-2: out of range: potassium 5.9"]
