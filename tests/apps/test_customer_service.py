"""The customer service app against a kernel in memory."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from kernos.agents import Agent, ToolCall
from kernos.agents.grounding import Fact, sentences, source_of
from kernos.agents.testing import FakeKernel
from kernos.apps.customer_service.handover import HandOver, waiting_cases, wants_human
from kernos.apps.customer_service.knowledge import SHIPPED, Entry
from kernos.apps.customer_service.lines import InputError, read_lines
from kernos.apps.customer_service.orders import order_status
from kernos.apps.customer_service.screens import JsonScreen, PlainScreen
from kernos.apps.customer_service.script import DEMO, Question, run_script
from kernos.apps.customer_service.service import Answered, Desk
from kernos.syscalls.errors import BusyError, DeniedError, KernosError
from kernos.syscalls.message import Send
from kernos.syscalls.model import Generate
from kernos.syscalls.tool import CallTool

ENTRIES = [
    Entry("returns-01", "returns", "How long can I return a lamp?", "You can return unused lamps within 30 days."),
    Entry("stores-01", "stores", "When are your stores open?", "Our stores are open from 10 am to 7 pm."),
]


def echo(call: Generate) -> str:
    """A model that copies the facts out of its prompt."""
    return call.messages[-1].text.split("\n\n")[1]


def converse(fake: FakeKernel, *questions: str, customer: str = "ana") -> list[tuple[str, Answered]]:
    async def body() -> list[tuple[str, Answered]]:
        async with Desk.open(fake, ENTRIES) as desk, desk.customer(customer) as place:
            return [("".join([piece async for piece in place.ask(question)]), place.answered) for question in questions]

    return asyncio.run(body())


def cases(fake: FakeKernel) -> list[HandOver]:
    async def body() -> list[HandOver]:
        async with Agent.spawn(fake, "staff") as agent:
            return [case async for case in waiting_cases(agent)]

    return asyncio.run(body())


def test_an_answer_names_its_entries() -> None:
    fake = FakeKernel(echo, principal="app:customer_service")
    [(shown, answered)] = converse(fake, "How long can I return my lamp?")
    assert shown == "You can return unused lamps within 30 days. [returns-01]"
    assert answered == Answered("ana", "How long can I return my lamp?", ENTRIES[0].answer, ["returns-01"], tokens=8)
    (context,) = fake.world.contexts.values()
    assert [message.text for message in context[2]] == ["How long can I return my lamp?", ENTRIES[0].answer]
    assert context[:2] == ("user:ana", "chat")


def test_an_invented_sentence_is_not_shown() -> None:
    fake = FakeKernel(["You can return lamps within 30 days. We also give you a free holiday in Spain."])
    [(shown, answered)] = converse(fake, "How long can I return my lamp?")
    assert shown == "You can return lamps within 30 days. [returns-01]"
    assert answered.tokens == 16


def test_where_all_is_invented_the_entry_speaks_for_itself() -> None:
    [(shown, _)] = converse(FakeKernel(["Lamps are not returned, ever."]), "How long can I return my lamp?")
    assert shown == f"{ENTRIES[0].answer} [returns-01]"


def test_what_the_shop_does_not_know_goes_to_people() -> None:
    fake = FakeKernel(echo)
    (_, first), (_, second) = converse(fake, "How long can I return my lamp?", "Who won the football cup?")
    assert not first.handed_over
    assert second.handed_over
    assert second.entries == []
    (case,) = cases(fake)
    assert case.customer == "ana"
    assert case.reason == "The knowledge base has no answer."
    assert [message.role for message in case.messages] == ["user", "assistant", "user"]
    assert case.messages[-1].text == "Who won the football cup?"


@pytest.mark.parametrize(
    ("text", "wish"),
    [
        ("I would like to talk to a human, please.", True),
        ("Can you put me through to somebody?", True),
        ("Let me speak with a manager", True),
        ("I want a real person", True),
        ("When are your stores open?", False),
        ("Is a person needed to carry the sofa?", False),
        ("Do your agents deliver on Sunday?", False),
    ],
)
def test_who_asks_for_a_person_gets_one(text: str, wish: bool) -> None:
    assert wants_human(text) is wish
    if wish:
        fake = FakeKernel()
        [(_, answered)] = converse(fake, text)
        assert answered.handed_over
        assert not any(isinstance(call, Generate) for call in fake.made)


def test_no_shipped_entry_sounds_like_a_wish_for_a_person() -> None:
    assert not [entry.id for entry in read_lines(SHIPPED, Entry) if wants_human(entry.question)]


def test_an_order_number_asks_the_tool() -> None:
    fake = FakeKernel(echo, principal="app:customer_service")
    [(shown, answered)] = converse(fake, "Where is my order f-1042?")
    assert shown.startswith("Your order F-1042 (cast-iron pot 24 cm) is on its way.")
    assert answered.entries == ["F-1042"]
    (call,) = (call for call in fake.made if isinstance(call, CallTool))
    assert call.tool == "customer_service/order_status"


def test_an_order_is_told_to_its_customer_alone() -> None:
    told = order_status("F-1042", ToolCall("app:customer_service", 1, "user:ben"))
    assert told == "There is no order F-1042 of yours. Please check the number in your confirmation email."
    assert told == order_status("F-9999", ToolCall("app:customer_service", 1, "user:ben")).replace("F-9999", "F-1042")
    assert "on its way" in order_status("f-1042", ToolCall("app:customer_service", 1, "user:ana"))


def test_a_sentence_comes_when_it_is_complete() -> None:
    async def body() -> list[str]:
        async def pieces() -> AsyncIterator[str]:
            for piece in ("It costs 4", ".90 euros. Ships", " on Monday!\nGood", "bye"):
                yield piece

        return [sentence async for sentence in sentences(pieces())]

    assert asyncio.run(body()) == ["It costs 4.90 euros.", "Ships on Monday!", "Goodbye"]


@pytest.mark.parametrize(
    ("sentence", "supported"),
    [
        ("Standard delivery costs 4.90 euros.", True),
        ("Standard delivery costs 9.90 euros.", False),
        ("Standard delivery does not cost 4.90 euros.", False),
        ("Standard delivery costs", False),
        ("The weather is lovely.", False),
        ("Yes.", False),
    ],
)
def test_support(sentence: str, supported: bool) -> None:
    facts = [Fact("delivery-02", "Standard delivery costs 4.90 euros.")]
    assert (source_of(sentence, "What does delivery cost?", facts) is not None) is supported


def test_a_mixture_of_two_facts_is_not_supported() -> None:
    facts = [Fact("a", "Stores are open from Monday to Saturday."), Fact("b", "Staff answer questions by telephone on Fridays.")]
    assert source_of("Staff answer questions from Monday to Saturday.", "Who is there?", facts) is None
    assert source_of("Staff answer questions on Fridays.", "Who is there?", facts) == facts[1]


def play(fake: FakeKernel, make_screen: Callable[[], PlainScreen], questions: list[Question]) -> bool:
    async def body() -> bool:
        async with Desk.open(fake, ENTRIES) as desk:
            return await run_script(desk, questions, make_screen())

    return asyncio.run(body())


SCRIPT = [
    Question("ana", "How long can I return my lamp?"),
    Question("ben", "When are the stores open?"),
    Question("ana", "Let me talk to a human"),
]


def test_a_script_runs_all_customers(capsys: pytest.CaptureFixture[str]) -> None:
    assert play(FakeKernel(echo), JsonScreen, SCRIPT)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted((line["customer"], line["entries"], line["handed_over"]) for line in lines) == [
        ("ana", [], True),
        ("ana", ["returns-01"], False),
        ("ben", ["stores-01"], False),
    ]
    assert set(lines[0]) == {"customer", "question", "answer", "entries", "tokens", "handed_over", "resumed"}


def test_one_customers_trouble_is_not_anothers(capsys: pytest.CaptureFixture[str]) -> None:
    fake = FakeKernel(echo)
    fake.fail(Send, DeniedError("user:ana may not send to queue/human-support."))
    assert not play(fake, PlainScreen, SCRIPT)
    shown = capsys.readouterr()
    assert "ben <- Our stores are open from 10 am to 7 pm." in shown.out
    assert "user:ana may not send" in shown.err
    assert "(denied) Ask the administrator" in shown.err


def test_a_busy_kernel_only_takes_longer() -> None:
    answers: list[str | KernosError] = [BusyError("full", retry_after=0.0), ENTRIES[0].answer]
    [(shown, _)] = converse(FakeKernel(answers), "How long can I return my lamp?")
    assert "30 days" in shown


def test_shipped_files_are_sound() -> None:
    entries = read_lines(SHIPPED, Entry)
    assert len({entry.id for entry in entries}) == len(entries) >= 60
    assert len({question.customer for question in read_lines(DEMO, Question)}) == 3
    measured = Path(__file__).with_name("data") / "questions.jsonl"
    named = {name for line in measured.read_text().splitlines() for name in json.loads(line)["entries"]}
    assert named <= {entry.id for entry in entries}


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text('{"id": "a", "topic": "t", "question": "q", "answer": "a"}\n{"id": 1}\n')
    with pytest.raises(InputError, match=r"mine\.jsonl, line 2, .*\$\.id"):
        read_lines(file, Entry)
    with pytest.raises(InputError, match="cannot be read"):
        read_lines(tmp_path / "none.jsonl", Entry)
