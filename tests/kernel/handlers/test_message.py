"""`message.*` through the gate."""

from pathlib import Path

import pytest

from kernos.kernel.host import Delivery
from kernos.kernel.memory import mail as post
from kernos.syscalls.errors import BusyError, DeadlineError, DeniedError, KernosError, NotFoundError
from kernos.syscalls.message import Receive, Send, Subscribe, Unsubscribe
from kernos.syscalls.process import Exit
from kernos.syscalls.system import Cancel
from tests.kernel.fakes import App, World, make_world


@pytest.fixture
def anna(world: World) -> App:
    return world.connect("app:shop").spawn("anna", user="user:anna")


@pytest.fixture
def bert(world: World) -> App:
    return world.connect("app:desk").spawn("bert")


def box(agent: App) -> str:
    return f"agent/{agent.pid}"


def kept(world: World) -> list[tuple[str, int]]:
    return post.boxes(world.disk.database.connection)


def test_mail_is_stamped_by_the_kernel(anna: App, bert: App) -> None:
    sent = anna.call(Send(to=box(bert), text="hi"))
    mail = bert.call(Receive(mailbox=box(bert)))
    assert (mail.mail, mail.sender, mail.sender_pid, mail.user, mail.to, mail.text) == (
        sent.mail,
        "app:shop",
        anna.pid,
        "user:anna",
        box(bert),
        "hi",
    )


def test_first_in_first_out_with_what_still_waits(anna: App, bert: App) -> None:
    for text in "abc":
        anna.call(Send(to="queue/q", text=text))
    mails = [bert.call(Receive(mailbox="queue/q")) for _ in range(3)]
    assert [(mail.text, mail.waiting) for mail in mails] == [("a", 2), ("b", 1), ("c", 0)]


def test_each_mail_goes_to_one_reader_in_their_order(anna: App, bert: App) -> None:
    first, second = bert.send(Receive(mailbox="queue/q")), anna.send(Receive(mailbox="queue/q"))
    anna.call(Send(to="queue/q", text="one"))
    assert (first.result().text, second.open) == ("one", True)
    anna.call(Send(to="queue/q", text="two"))
    assert second.result().text == "two"


def test_a_reader_who_gave_up_gets_nothing(anna: App, bert: App) -> None:
    reader = bert.send(Receive(mailbox="queue/q"))
    bert.call(Cancel(id=reader.id))
    anna.call(Send(to="queue/q", text="one"))
    assert bert.call(Receive(mailbox="queue/q")).text == "one"


def test_an_agents_box_is_read_by_it_alone(anna: App, bert: App) -> None:
    error = anna.refused(Receive(mailbox=box(bert)))
    assert isinstance(error, DeniedError)


def test_no_mail_for_the_dead_and_the_unborn(anna: App, bert: App) -> None:
    assert isinstance(anna.refused(Send(to="agent/999", text="x")), NotFoundError)
    bert.call(Exit(pid=bert.pid))
    assert isinstance(anna.refused(Send(to=box(bert), text="x")), NotFoundError)


def test_the_box_ends_with_its_agent(world: World, anna: App, bert: App) -> None:
    anna.call(Send(to=box(bert), text="x"))
    reader = anna.send(Receive(mailbox=box(anna)))
    bert.call(Exit(pid=bert.pid))
    anna.send(Exit(pid=anna.pid))
    assert not reader.open
    assert not kept(world)
    assert not world.system.readers.waiting


def test_a_full_box_asks_to_come_back(anna: App, bert: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(post, "MAILBOX", 2)
    for _ in range(2):
        anna.call(Send(to="queue/q", text="x"))
    error = anna.refused(Send(to="queue/q", text="x"))
    assert isinstance(error, BusyError)
    assert error.retry_after
    bert.call(Receive(mailbox="queue/q"))
    anna.call(Send(to="queue/q", text="x"))


def test_an_agent_has_one_name(world: World, anna: App, bert: App) -> None:
    sent = anna.send(Send(to=f"agent/00{bert.pid}", text="x"))
    bert.call(Exit(pid=bert.pid))
    assert isinstance(sent.error(), KernosError)
    assert not kept(world)


def test_mail_is_not_lost_on_a_reader_who_is_gone(world: World, anna: App, bert: App) -> None:
    gone = world.connect("app:desk").spawn()
    gone.send(Receive(mailbox="queue/q"))
    world.host.deliver = lambda client: Delivery.GONE if client is gone.client else Delivery.SENT
    anna.call(Send(to="queue/q", text="one"))
    assert bert.call(Receive(mailbox="queue/q"), timeout_ms=1_000).text == "one"


def test_a_readers_turn_comes_in_the_order_they_asked(world: World, anna: App, bert: App) -> None:
    readers = [bert.send(Receive(mailbox="queue/q")) for _ in range(3)]
    world.host.work()
    for text in ("one", "two"):
        anna.call(Send(to="queue/q", text=text))
    assert [reader.open for reader in readers] == [False, False, True]
    assert [reader.result().text for reader in readers[:2]] == ["one", "two"]


def test_a_mail_that_could_not_be_handed_over_is_the_oldest_again(world: World, anna: App, bert: App) -> None:
    gone = world.connect("app:desk").spawn()
    for text in ("one", "two"):
        anna.call(Send(to="queue/q", text=text))
    gone.send(Receive(mailbox="queue/q"))
    world.host.deliver = lambda client: Delivery.GONE if client is gone.client else Delivery.SENT
    world.host.work()
    assert [bert.call(Receive(mailbox="queue/q")).text for _ in range(2)] == ["one", "two"]


@pytest.mark.parametrize("how", ["deadline", "dead", "lost"])
def test_a_mail_taken_with_a_key_goes_back_unless_its_reader_can_ask_again(world: World, anna: App, bert: App, how: str) -> None:
    gone = world.connect("app:desk").spawn()
    anna.call(Send(to="queue/q", text="one"))
    reader = gone.send(Receive(mailbox="queue/q"), key="k", timeout_ms=1_000)
    if how == "deadline":
        world.host.advance(2.0)
        assert isinstance(reader.error(), DeadlineError)
    else:
        world.host.deliver = lambda client: Delivery.GONE if client is gone.client else Delivery.SENT
    if how == "dead":
        world.host.programs_gone.add(gone.client.os_pid)
    world.host.work()
    back = [] if how == "lost" else [("queue/q", 1)]
    assert kept(world) == back
    again = world.connect("app:desk").agent(gone.pid)
    assert again.call(Receive(mailbox="queue/q"), key="k").text == "one"


def test_a_topic_reaches_all_queues_that_follow_it(anna: App, bert: App) -> None:
    for queue in ("queue/a", "queue/b"):
        bert.call(Subscribe(topic="topic/news", queue=queue))
    anna.call(Send(to="topic/news", text="first"))
    bert.call(Unsubscribe(topic="topic/news", queue="queue/b"))
    anna.call(Send(to="topic/news", text="second"))
    assert [bert.call(Receive(mailbox="queue/a")).text for _ in range(2)] == ["first", "second"]
    mail = bert.call(Receive(mailbox="queue/b"))
    assert (mail.text, mail.to, mail.sender, mail.waiting) == ("first", "topic/news", "app:shop", 0)


def test_queues_outlive_the_kernel_and_a_mail_is_read_once(world: World, anna: App, bert: App, tmp_path: Path) -> None:
    bert.call(Subscribe(topic="topic/news", queue="queue/q"))
    for text in ("one", "two"):
        anna.call(Send(to="topic/news", text=text), key=text)
    first = bert.call(Receive(mailbox="queue/q"), key="read")
    again = make_world(tmp_path)
    anna, bert = again.connect("app:shop").spawn(), again.connect("app:desk").spawn()
    assert bert.call(Receive(mailbox="queue/q"), key="read") == first
    anna.call(Send(to="topic/news", text="two"), key="two")
    anna.call(Send(to="topic/news", text="three"))
    assert [bert.call(Receive(mailbox="queue/q")).text for _ in range(2)] == ["two", "three"]
