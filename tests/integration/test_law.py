"""Who may do what, asked by real principals over real sockets."""

from collections.abc import Iterator

import pytest

from benchmarks.kernel import RunningKernel
from kernos.syscalls import Kernel
from kernos.syscalls.context import AppendContext, OpenContext, ReadContext
from kernos.syscalls.errors import DeniedError, NotYoursError, UnreachableError
from kernos.syscalls.keys import make_key
from kernos.syscalls.model import Generate, Message
from kernos.syscalls.policy import Enroll, GetPolicy, ListRights
from kernos.syscalls.process import Kill, ListProcesses
from kernos.syscalls.system import Ping, StopKernel

ASK = Generate(model="smollm2-135m", messages=[Message("user", "Hello?")], max_tokens=4)


@pytest.fixture(scope="module")
def app(kernel: RunningKernel) -> Iterator[Kernel]:
    with kernel.connect(kernel.enroll("app:customer_service")) as connection:
        yield connection


@pytest.fixture(scope="module")
def stranger(kernel: RunningKernel) -> Iterator[Kernel]:
    with kernel.connect(kernel.enroll("app:stranger")) as connection:
        yield connection


def test_a_denial_names_subject_object_action_and_policy(app: Kernel, stranger: Kernel) -> None:
    agent = stranger.spawn("nosy")
    with pytest.raises(DeniedError) as denied:
        agent.call(ASK)
    assert denied.value.details == {
        "subject": "app:stranger",
        "object": "model/smollm2-135m",
        "action": "generate",
        "policy": app.call(GetPolicy()).hash,
        "rule": "",
    }


def test_an_allowed_app_is_served(app: Kernel) -> None:
    assert app.spawn("clerk", user="user:anna").call(ASK).usage.generated_tokens == 4


def test_an_app_cannot_administer(app: Kernel) -> None:
    for call in (StopKernel(), Enroll(principal="app:x", public_key="x" * 40), ListRights(subject="a")):
        with pytest.raises(DeniedError):
            app.call(call)
    with pytest.raises(DeniedError):
        app.call(ListProcesses(scope="all"))


def test_one_app_cannot_act_as_or_upon_the_agent_of_another(app: Kernel, stranger: Kernel) -> None:
    agent = app.spawn("victim")
    with pytest.raises(NotYoursError):
        stranger.act_as(agent.pid).call(OpenContext(name="x"))
    with pytest.raises(DeniedError, match="process/app:customer_service"):
        stranger.call(Kill(pid=agent.pid), urgent=True)
    assert agent.pid in {row.pid for row in app.call(ListProcesses()).processes}


def test_a_context_is_its_users_alone(app: Kernel, stranger: Kernel) -> None:
    anna, ben = app.spawn("clerk", user="user:anna"), app.spawn("clerk", user="user:ben")
    secret = anna.call(OpenContext(name="chat")).context
    anna.call(AppendContext(context=secret, messages=[Message("user", "My PIN is 0000.")]))
    for other in (ben, app.spawn("clerk"), stranger.spawn("thief")):
        with pytest.raises(DeniedError, match="context/user:anna"):
            other.call(ReadContext(context=secret))
    assert app.spawn("clerk", user="user:anna").call(ReadContext(context=secret)).total == 1


def test_a_stranger_may_not_act_for_users(stranger: Kernel) -> None:
    with pytest.raises(DeniedError, match="represent principal/user:anna"):
        stranger.spawn("mask", user="user:anna")


def test_an_unknown_key_is_refused_in_time(kernel: RunningKernel) -> None:
    with pytest.raises(UnreachableError, match="does not know this key"):
        kernel.connect(make_key("app:customer_service"))


def test_a_replaced_key_opens_no_new_connection(kernel: RunningKernel) -> None:
    old = kernel.enroll("app:rotated")
    new = kernel.enroll("app:rotated")
    with pytest.raises(UnreachableError):
        kernel.connect(old)
    with kernel.connect(new) as connection:
        assert connection.call(Ping(payload=b"hi")).payload == b"hi"
