"""What agents carry: how it comes, where it stays, and how it goes. `test_injection.py` tries to get it out."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from kernos.kernel.limits import APPROVAL_S, APPROVALS_OF_AGENT
from kernos.kernel.security.policy import load_policy
from kernos.syscalls.context import AppendContext, LabelContext, ListContexts, OpenContext, ReadContext, SnapshotContext, StatContext
from kernos.syscalls.errors import ApprovalNeededError, BusyError, ConflictError, DeniedError, LimitError, NotFoundError
from kernos.syscalls.message import Receive, Send
from kernos.syscalls.model import Generate, LoadModel, Message
from kernos.syscalls.process import Approve, Declassify, Exit, ListApprovals, ListProcesses, Spawn, Wait
from kernos.syscalls.store import BeginUpload, FinishUpload, GetFile, ListFiles, MoveFile, PutFile, RollbackFile, UploadPart
from kernos.syscalls.system import Cancel
from kernos.syscalls.table import TABLE
from kernos.syscalls.tool import AnswerTool, CallTool, ListTools, ServeTool
from tests.kernel.fakes import ADMIN, OPEN_POLICY, App, Sent, World, make_policy, make_world, tiny_model, tokens_of

POLICY = OPEN_POLICY + "g, user:carla, role:clinician\n"
CARLA = "user:carla"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path, policy=POLICY)


@pytest.fixture
def medical(world: World) -> App:
    return world.connect("app:medical_qa")


@pytest.fixture
def agent(medical: App) -> App:
    return medical.spawn("clerk", user=CARLA)


def carried(agent: App) -> set[str]:
    return set(agent.world.system.processes.rows[agent.pid].labels)


def read(agent: App, *labels: str) -> App:
    """The agent, after it has read a file with these labels."""
    path = "-".join(("read", *labels))
    writer = agent.world.connect(agent.client.principal).spawn("writer", user=agent.world.system.processes.rows[agent.pid].user)
    writer.call(PutFile(path=path, data=b"x", labels=list(labels)))
    agent.call(GetFile(path=path))
    return agent


def serve(server: App, tool: str, **marks: Any) -> Sent:
    return server.send(ServeTool(tool=tool, description="d", schema="{}", **marks), stream=True)


class TestTaint:
    def test_every_reply_that_is_read_has_labels(self) -> None:
        assert {row.name for row in TABLE if row.reads} == {row.name for row in TABLE if "labels" in row.reply.__struct_fields__} - {
            *("context.open", "context.append", "context.fork", "context.restore", "context.rollback", "context.page_out"),
            *("store.put", "store.move", "store.rollback", "store.finish"),
        }, "those left out are answers to who wrote, about what he wrote"

    def test_an_agent_carries_what_it_has_read_until_it_ends(self, agent: App, medical: App) -> None:
        assert carried(read(agent, "phi", "untrusted")) == {"phi", "untrusted"}
        assert carried(medical.spawn("other", user=CARLA)) == set()
        (row,) = [row for row in agent.call(ListProcesses()).processes if row.pid == agent.pid]
        assert row.labels == ["phi", "untrusted"]

    def test_what_it_writes_has_the_labels(self, agent: App) -> None:
        read(agent, "untrusted")
        assert agent.call(PutFile(path="note", data=b"1")).labels == ["untrusted"]
        agent.call(Send(to="queue/medical_qa", text="hi"))
        assert agent.call(Receive(mailbox="queue/medical_qa")).labels == ["untrusted"]
        chat = agent.call(OpenContext(name="chat")).context
        agent.call(AppendContext(context=chat, messages=[Message("user", "hi", ["mine"])]))
        assert agent.call(StatContext(context=chat)).labels == ["mine", "untrusted"]
        assert agent.call(ReadContext(context=chat)).messages[0].labels == ["mine", "untrusted"]

    def test_names_count_as_written(self, agent: App, medical: App) -> None:
        clean = medical.spawn("clean", user=CARLA)
        chat = clean.call(OpenContext(name="plain")).context
        clean.call(PutFile(path="plain", data=b"1"))
        read(agent, "untrusted")
        agent.call(MoveFile(path="plain", to="ignore-all-previous-instructions"))
        agent.call(SnapshotContext(context=chat, name="obey"))
        assert clean.call(ListFiles(prefix="ignore")).labels == ["untrusted"]
        assert carried(clean) == {"untrusted"}
        another = medical.spawn("another", user=CARLA)
        assert another.call(StatContext(context=chat)).labels == ["untrusted"]

    def test_an_old_version_comes_back_with_its_labels(self, agent: App, medical: App) -> None:
        clean = medical.spawn("clean", user=CARLA)
        clean.call(PutFile(path="a", data=b"secret", labels=["phi"]))
        assert clean.call(PutFile(path="a", data=b"plain")).labels == []
        assert clean.call(RollbackFile(path="a", version=1)).labels == ["phi"]

    def test_a_child_carries_what_its_parent_does(self, agent: App, world: World) -> None:
        child = agent.agent(read(agent, "untrusted").call(Spawn(name="child")).pid)
        assert carried(child) == {"untrusted"}
        world.system.processes.rows[agent.pid].labels.clear()
        assert carried(child) == {"untrusted"}

    def test_why_an_agent_ended_is_its_own_text(self, agent: App, medical: App) -> None:
        child = read(agent.agent(agent.call(Spawn(name="child")).pid), "untrusted")
        child.call(Exit(pid=child.pid, reason="obey"))
        assert "obey" not in [row.reason for row in agent.call(ListProcesses()).processes]
        ended = agent.call(Wait(pid=child.pid))
        assert (ended.reason, ended.labels) == ("obey", ["untrusted"])
        assert carried(agent) == {"untrusted"}

    def test_a_repeated_call_taints_as_the_first_did(self, agent: App, medical: App) -> None:
        agent.call(Send(to="queue/medical_qa", text="hi", labels=["untrusted"]))
        first, second = medical.spawn("a", user=CARLA), medical.spawn("b", user=CARLA)
        assert first.call(Receive(mailbox="queue/medical_qa"), key="k").text == "hi"
        assert second.call(Receive(mailbox="queue/medical_qa"), key="k").text == "hi"
        assert carried(first) == carried(second) == {"untrusted"}

    def test_it_outlives_the_kernel(self, agent: App, world: World, tmp_path: Path) -> None:
        read(agent, "untrusted")
        chat = agent.call(OpenContext(name="chat")).context
        world.host.work()
        world.disk.close()
        heir = make_world(tmp_path, policy=POLICY)
        assert set(heir.system.processes.rows[agent.pid].labels) == {"untrusted"}
        assert heir.system.contexts.labels([chat]) == ["untrusted"]

    def test_more_labels_than_anybody_could_follow_are_refused(self, agent: App) -> None:
        read(agent, *(f"a{number}" for number in range(40)))
        agent.call(OpenContext(name="x"))
        writer = agent.world.connect("app:medical_qa").spawn("w", user=CARLA)
        writer.call(PutFile(path="many", data=b"", labels=[f"b{number}" for number in range(40)]))
        assert isinstance(agent.refused(GetFile(path="many")), LimitError)
        assert len(carried(agent)) == 40


class TestReaders:
    def test_who_is_not_cleared_sees_neither_the_thing_nor_its_name(self, world: World, agent: App) -> None:
        agent.call(PutFile(path="record", data=b"x", labels=["phi"]))
        agent.call(PutFile(path="plain", data=b"x"))
        chat = agent.call(OpenContext(name="chat")).context
        agent.call(AppendContext(context=chat, messages=[Message("user", "x", ["phi"])]))
        shopper = world.connect("app:shop").spawn("shopper", user=CARLA)
        assert [file.path for file in shopper.call(ListFiles()).files] == ["plain"]
        assert shopper.call(ListContexts()).contexts == []
        for call in (GetFile(path="record"), ReadContext(context=chat)):
            assert isinstance(shopper.refused(call), DeniedError)
        assert carried(shopper) == set()

    def test_a_refused_reader_leaves_the_mail_to_others(self, world: World, agent: App) -> None:
        agent.call(Send(to="queue/medical_qa", text="a record", labels=["phi"]))
        nosy = world.connect("app:shop").spawn()
        assert isinstance(nosy.refused(Receive(mailbox="queue/medical_qa")), DeniedError)
        assert isinstance(nosy.refused(Receive(mailbox="queue/medical_qa"), key="k"), DeniedError)
        assert agent.call(Receive(mailbox="queue/medical_qa")).text == "a record"

    def test_a_refusal_to_read_is_in_the_audit_log(self, world: World, agent: App, monkeypatch: pytest.MonkeyPatch) -> None:
        refused: list[Any] = []
        monkeypatch.setattr(world.system.audit, "refused", lambda *facts: refused.append(facts[-1]))
        agent.call(PutFile(path="record", data=b"x", labels=["phi"]))
        error = world.connect("app:shop").spawn("shopper", user=CARLA).refused(GetFile(path="record"))
        assert [found.message for found in refused] == [error.message]

    def test_a_label_that_no_line_names_stays_with_its_owner(self, world: World, agent: App) -> None:
        read(agent, "ph1")
        assert isinstance(agent.refused(Send(to="queue/medical_qa", text="x")), DeniedError)
        sibling = agent.world.connect("app:medical_qa").spawn("sibling", user=CARLA)
        agent.call(Send(to=f"agent/{sibling.pid}", text="x"))
        assert sibling.call(Receive(mailbox=f"agent/{sibling.pid}")).labels == ["ph1"]
        stranger = world.connect("app:medical_qa").spawn("stranger", user="user:bob")
        assert isinstance(agent.refused(Send(to=f"agent/{stranger.pid}", text="x")), DeniedError)


class TestTools:
    def test_a_tool_that_keeps_things_carries_what_its_callers_do(self, agent: App, medical: App) -> None:
        server = medical.spawn("server", user=CARLA)
        served = serve(server, "medical_qa/record")
        sent = read(agent, "phi").send(CallTool(tool="medical_qa/record"))
        assert served.events[0].labels == ["phi"]
        assert carried(server) == {"phi"}
        server.call(AnswerTool(invocation=served.events[0].invocation, result="1"))
        assert sent.result().labels == ["phi"]

    def test_a_stateless_one_does_not(self, agent: App, medical: App) -> None:
        server = medical.spawn("server")
        served = serve(server, "medical_qa/record", stateless=True)
        sent = read(agent, "phi").send(CallTool(tool="medical_qa/record"))
        server.call(AnswerTool(invocation=served.events[0].invocation))
        assert carried(server) == set()
        assert sent.result().labels == ["phi"]

    def test_a_source_labels_what_comes_from_it(self, world: World, agent: App) -> None:
        served = serve(world.connect("app:mcp_bridge").spawn(), "mcp_bridge/web")
        sent = agent.send(CallTool(tool="mcp_bridge/web"))
        served.app.call(AnswerTool(invocation=served.events[0].invocation))
        assert sent.result().labels == ["untrusted"]
        assert carried(agent) == {"untrusted"}
        assert agent.call(ListTools()).tools[0].labels == ["untrusted"]

    def test_a_description_is_text_of_the_agent_that_wrote_it(self, agent: App, medical: App) -> None:
        serve(read(medical.spawn("server"), "untrusted"), "medical_qa/obey")
        assert agent.call(ListTools()).labels == ["untrusted"]
        assert carried(agent) == {"untrusted"}


class TestModels:
    def test_a_model_can_carry_labels_that_its_answers_get(self, tmp_path: Path) -> None:
        folder = make_policy(tmp_path / "law", POLICY)
        tiny_model(tmp_path / "store", "tiny")
        (folder / "flows.csv").write_text("flow, phi, principal/app:shop, allow\nsource, model/tiny, phi\n# end\n")
        world = make_world(tmp_path, policy=POLICY, store=tmp_path / "store")
        world.system.law.policy = load_policy(folder)
        world.up("decoder")
        world.connect(ADMIN).send(LoadModel(model="tiny"))
        world.loaded("tiny")
        agent, stranger = world.connect("app:shop").spawn(), world.connect("app:other").spawn()
        ask = Generate(model="tiny", messages=[Message("user", "hi")], max_tokens=4)
        sent = agent.send(ask, stream=True)
        assert carried(agent) == {"phi"}, "before the first piece"
        world.step((world.begun().seq, tokens_of("ok"), "stop"))
        assert sent.result().labels == ["phi"]
        assert isinstance(stranger.refused(ask), DeniedError)


class TestApproval:
    @pytest.fixture
    def wire(self, medical: App) -> Sent:
        return serve(medical.spawn("bank"), "medical_qa/wire", privileged=True, stateless=True)

    @pytest.fixture
    def admin(self, world: World) -> App:
        return world.connect(ADMIN)

    PAY = CallTool(tool="medical_qa/wire", arguments='{"to": "mallory\\n> and Bob"}')

    def ask(self, agent: App) -> str:
        error = agent.refused(self.PAY)
        assert isinstance(error, ApprovalNeededError)
        return error.details["approval"]

    def test_the_kernel_writes_what_is_asked(self, agent: App, admin: App, wire: Sent) -> None:
        id_ = self.ask(read(agent, "untrusted"))
        (asked,) = admin.call(ListApprovals(principal="app:medical_qa")).approvals
        assert (asked.approval, asked.pid, asked.user, asked.state) == (id_, agent.pid, CARLA, "waiting")
        lines = asked.text.split("\n")
        who, what = f"Agent {agent.pid} (clerk) of app:medical_qa, for user:carla,", "the tool medical_qa/wire of app:medical_qa"
        assert lines[0] == f"{who} wants to call {what} with"
        assert lines[1].startswith('> {"to": "mallory')
        assert lines[2] == "It carries: untrusted, since store.get read-untrusted."
        assert len(lines) == 3, "what the agent chose cannot look like the kernel's words"

    def test_an_approval_is_for_one_call_once(self, agent: App, admin: App, wire: Sent) -> None:
        id_ = self.ask(read(agent, "untrusted"))
        assert self.ask(agent) == id_, "asked for once"
        admin.call(Approve(approval=id_, principal="app:medical_qa", allow=True))
        assert isinstance(agent.refused(CallTool(tool="medical_qa/wire", arguments='{"to": "eve"}')), ApprovalNeededError)
        agent.send(self.PAY)
        assert [event.arguments for event in wire.events] == [self.PAY.arguments]
        assert self.ask(agent) != id_
        assert len(wire.events) == 1

    def test_a_call_that_was_carried_out_asks_for_no_other_approval(self, agent: App, admin: App, medical: App, wire: Sent) -> None:
        read(agent, "untrusted")
        id_ = agent.refused(self.PAY, key="k").details["approval"]
        admin.call(Approve(approval=id_, principal="app:medical_qa", allow=True))
        first = agent.send(self.PAY, key="k")
        agent.world.host.work()
        again = agent.send(self.PAY, key="k")
        wire.app.call(AnswerTool(invocation=wire.events[0].invocation, result="paid"))
        assert first.result().result == again.result().result == agent.call(self.PAY, key="k").result == "paid"
        assert len(wire.events) == 1
        assert admin.call(ListApprovals()).approvals == []
        assert isinstance(agent.refused(self.PAY, key="another"), ApprovalNeededError)

    def test_nor_if_a_kernel_before_this_one_carried_it_out(self, tmp_path: Path) -> None:
        send = Send(to="queue/press", text="hello")
        folder = make_policy(tmp_path / "approving", POLICY)
        (folder / "flows.csv").write_text("flow, u, **, allow\nflow, u, message/queue/press, approve\n# end\n")

        def boot() -> World:
            world = make_world(tmp_path, policy=POLICY)
            world.system.law.policy = load_policy(folder)
            return world

        first = boot()
        agent = read(first.connect("app:press").spawn(), "u")
        id_ = agent.refused(send, key="k").details["approval"]
        first.connect(ADMIN).call(Approve(approval=id_, principal="app:press", allow=True))
        sent = agent.call(send, key="k")
        first.disk.close()
        second = boot()
        heir = second.connect("app:press").agent(agent.pid)
        assert carried(heir) == {"u"}
        assert heir.call(send, key="k") == sent
        assert second.connect(ADMIN).call(ListApprovals()).approvals == []
        assert isinstance(heir.refused(Send(to="queue/press", text="other"), key="k"), ConflictError)
        assert isinstance(heir.refused(send, key="another"), ApprovalNeededError)

    def test_who_gives_up_while_that_is_looked_up_has_asked_nobody(self, agent: App, admin: App, wire: Sent) -> None:
        sent = read(agent, "untrusted").send(self.PAY, key="k")
        assert sent.open
        agent.call(Cancel(id=sent.id))
        agent.world.host.work()
        assert sent.error().code == "cancelled"
        assert admin.call(ListApprovals()).approvals == []
        assert wire.events == []

    def test_all_consents_that_a_call_takes_are_there_before_one_is_used(self, tmp_path: Path) -> None:
        folder = make_policy(tmp_path / "approving", POLICY)
        (folder / "flows.csv").write_text("flow, u, principal/app:press, allow\nflow, u, **, approve\n# end\n")
        world = make_world(tmp_path, policy=POLICY)
        world.system.law.policy = load_policy(folder)
        admin, agent = world.connect(ADMIN), read(world.connect("app:press").spawn(), "u")
        send = Send(to=f"agent/{world.connect('app:shop').spawn('clerk', user=CARLA).pid}", text="hello")
        assert isinstance(agent.refused(send), ApprovalNeededError)
        one, other = admin.call(ListApprovals()).approvals  # the app's and the user's, both asked for at once
        admin.call(Approve(approval=one.approval, principal="app:press", allow=True))
        assert isinstance(agent.refused(send), ApprovalNeededError)
        admin.call(Approve(approval=other.approval, principal="app:press", allow=True))
        assert isinstance(agent.call(send).mail, str)
        assert isinstance(agent.refused(send), ApprovalNeededError), "all were used"

    def test_a_refusal_stands(self, agent: App, admin: App, wire: Sent) -> None:
        id_ = self.ask(read(agent, "untrusted"))
        admin.call(Approve(approval=id_, principal="app:medical_qa", allow=False))
        error = agent.refused(self.PAY)
        assert isinstance(error, DeniedError)
        assert error.details["rule"] == f"approval {id_}"

    def test_it_is_void_after_a_while_and_when_the_agent_ends(self, agent: App, admin: App, world: World, wire: Sent) -> None:
        id_ = self.ask(read(agent, "untrusted"))
        admin.call(Approve(approval=id_, principal="app:medical_qa", allow=True))
        world.host.advance(APPROVAL_S)
        assert self.ask(agent) != id_
        agent.call(Exit(pid=agent.pid))
        assert admin.call(ListApprovals(principal="app:medical_qa")).approvals == []

    def test_neither_the_agent_nor_one_that_carries_labels_decides(self, agent: App, medical: App, wire: Sent) -> None:
        id_ = self.ask(read(agent, "untrusted"))
        decide = Approve(approval=id_, principal="app:medical_qa", allow=True)
        assert isinstance(agent.refused(decide), DeniedError)
        assert isinstance(read(medical.spawn("talked-into-it"), "untrusted").refused(decide), DeniedError)
        assert isinstance(medical.refused(Approve(approval=id_, principal="app:shop", allow=True)), NotFoundError)

    def test_one_who_is_asked_sees_what_is_his_to_decide(self, tmp_path: Path) -> None:
        rules = "p, user:bob, approval/app:medical_qa, *, allow\n" + POLICY.replace("p, user:*, **", "p, user:*, store/**")
        world = make_world(tmp_path, policy=rules)
        for name in ("app:medical_qa", "app:shop"):
            app = world.connect(name)
            serve(app.spawn("bank"), f"{name[4:]}/wire", privileged=True, stateless=True)
            assert isinstance(read(app.spawn("clerk"), "untrusted").refused(CallTool(tool=f"{name[4:]}/wire")), ApprovalNeededError)
        listed = world.connect("user:bob").call(ListApprovals())
        assert [(asked.principal, asked.labels) for asked in listed.approvals] == [("app:medical_qa", ["untrusted"])]
        assert [asked.principal for asked in world.connect(ADMIN).call(ListApprovals()).approvals] == ["app:medical_qa", "app:shop"]
        assert world.connect("user:carla").call(ListApprovals()).approvals == []

    def test_an_agent_that_reads_what_is_asked_carries_it(self, agent: App, world: World, wire: Sent) -> None:
        """The text quotes who was perhaps talked into it, or what is in a record: so it is read like any text."""
        id_ = self.ask(read(agent, "untrusted", "phi"))
        judge, nosy = world.connect("app:medical_qa").spawn("judge", user=CARLA), world.connect("app:nosy").spawn("nosy")
        assert nosy.call(ListApprovals(principal="app:medical_qa")).approvals == []
        assert [asked.approval for asked in judge.call(ListApprovals(principal="app:medical_qa")).approvals] == [id_]
        assert carried(judge) == {"untrusted", "phi"}
        assert carried(nosy) == set()
        assert isinstance(judge.refused(Approve(approval=id_, principal="app:medical_qa", allow=True)), DeniedError)

    def test_under_the_shipped_policies_only_administrators_decide(self, tmp_path: Path) -> None:
        world = make_world(tmp_path / "shipped", policy=None)
        app, admin = world.connect("app:medical_qa"), world.connect(ADMIN)
        for call in (ListApprovals(principal="app:medical_qa"), Approve(approval="a", principal="app:medical_qa", allow=True)):
            assert isinstance(app.refused(call), DeniedError)
        assert admin.call(ListApprovals(principal="app:medical_qa")).approvals == []

    def test_nobody_is_asked_more_than_he_can_read(self, agent: App, wire: Sent) -> None:
        read(agent, "untrusted")
        errors = [agent.refused(CallTool(tool="medical_qa/wire", arguments=f"[{number}]")) for number in range(APPROVALS_OF_AGENT + 1)]
        assert [type(error) for error in errors] == [ApprovalNeededError] * APPROVALS_OF_AGENT + [BusyError]


class TestDeclassification:
    def test_it_takes_a_right_per_label_and_clears_the_agent(self, world: World, agent: App) -> None:
        read(agent, "phi", "untrusted")
        world.connect(ADMIN).call(Declassify(pid=agent.pid, label="phi", reason="a summary without names"))
        assert carried(agent) == {"untrusted"}
        assert "a summary without names" in " ".join(world.system.processes.rows[agent.pid].story)
        agent.call(PutFile(path="summary", data=b"x"))
        assert isinstance(world.connect(ADMIN).refused(Declassify(pid=agent.pid, label="phi", reason="again")), NotFoundError)

    def test_under_the_shipped_policies_no_app_declassifies(self, tmp_path: Path) -> None:
        world = make_world(tmp_path / "shipped", policy=None)
        agent = world.connect("app:shop").spawn()
        chat = agent.call(OpenContext(name="chat")).context
        agent.call(LabelContext(context=chat, labels=["untrusted"]))
        agent.call(ReadContext(context=chat))
        assert carried(agent) == {"untrusted"}
        assert isinstance(agent.refused(Declassify(pid=agent.pid, label="untrusted", reason="trust me")), DeniedError)
        fresh = world.connect("app:shop").spawn()
        assert isinstance(fresh.refused(LabelContext(context=chat, labels=[])), DeniedError)
        assert fresh.call(StatContext(context=chat)).labels == ["untrusted"]

    def test_a_label_is_taken_off_a_context_by_whoever_may_declassify(self, agent: App) -> None:
        chat = agent.call(OpenContext(name="chat")).context
        agent.call(LabelContext(context=chat, labels=["phi", "draft"]))
        agent.call(LabelContext(context=chat, labels=["draft"]))
        assert agent.call(StatContext(context=chat)).labels == ["draft"]
        assert agent.world.system.contexts.labels([chat]) == ["draft"]


def test_an_upload_keeps_the_labels_of_all_who_sent_parts(agent: App, medical: App) -> None:
    clean = medical.spawn("clean", user=CARLA)
    upload = clean.call(BeginUpload(path="big")).upload
    read(agent, "untrusted").call(UploadPart(upload=upload, number=0, data=b"x"))
    assert clean.call(FinishUpload(upload=upload, digest=hashlib.sha256(b"x").digest())).labels == ["untrusted"]
