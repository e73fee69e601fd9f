"""The customer service app against a kernel in memory."""

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from kernos.agents import Agent, ToolCall
from kernos.agents.classifier import Card
from kernos.agents.embedding import Embedding
from kernos.agents.grounding import Fact, sentences, source_of
from kernos.agents.rows import InputError, read_rows
from kernos.agents.testing import FakeKernel
from kernos.apps.customer_service import intents
from kernos.apps.customer_service.handover import HandOver, Step, summarize, waiting_cases, wants_human
from kernos.apps.customer_service.intents import Example, Intents, route_all, train
from kernos.apps.customer_service.knowledge import SHIPPED, Entry
from kernos.apps.customer_service.moods import Mood
from kernos.apps.customer_service.orders import Order, Shop
from kernos.apps.customer_service.screens import JsonScreen, PlainScreen
from kernos.apps.customer_service.script import DEMO, Question, run_script
from kernos.apps.customer_service.service import Answered, Desk
from kernos.syscalls.errors import ApprovalNeededError, BusyError, DeniedError, KernosError
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


ORDERS = [
    Order("F-1042", "ana", "cast-iron pot", "on its way", 89.0, "on Thursday"),
    Order("F-1045", "ana", "soy candle", "returned; we have received it", 24.9),
]
FOLDER = Path(tempfile.mkdtemp(prefix="kernos-"))


@pytest.fixture(scope="module", autouse=True)
def learned() -> Iterator[None]:
    """The shipped intents, learned once for all tests."""

    async def learn() -> None:
        async with Agent.spawn(FakeKernel(), "trainer") as agent:
            await train(agent, read_rows(intents.SHIPPED, Example).rows, "shipped", FOLDER)

    asyncio.run(learn())
    yield
    shutil.rmtree(FOLDER)


def converse(fake: FakeKernel, *questions: str, customer: str = "ana") -> list[tuple[str, Answered]]:
    async def body() -> list[tuple[str, Answered]]:
        async with Desk.open(fake, ENTRIES, ORDERS, FOLDER) as desk, desk.customer(customer) as place:
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
    assert answered == Answered("ana", "How long can I return my lamp?", ENTRIES[0].answer, "returns", ["returns-01"], tokens=8)
    (context,) = fake.world.contexts.values()
    assert [message.text for message in context[2]] == ["How long can I return my lamp?", ENTRIES[0].answer]
    assert [message.labels for message in context[2]] == [["untrusted"], []]
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
    assert not [entry.id for entry in read_rows(SHIPPED, Entry).rows if wants_human(entry.question)]


def test_an_order_number_asks_the_tool() -> None:
    fake = FakeKernel(echo, principal="app:customer_service")
    [(shown, answered)] = converse(fake, "Where is my order f-1042?")
    assert shown.startswith("Your order F-1042 (cast-iron pot) is on its way.")
    assert answered.entries == ["F-1042"]
    (call,) = (call for call in fake.made if isinstance(call, CallTool))
    assert call.tool == "customer_service/order_status"


def test_an_order_is_told_to_its_customer_alone() -> None:
    ana, ben = (ToolCall("app:customer_service", 1, f"user:{name}") for name in ("ana", "ben"))

    async def body(shop: Shop) -> None:
        told = await shop.order_status("F-1042", ben)
        assert told == "There is no order F-1042 of yours. Please check the number in your confirmation email."
        assert told == (await shop.order_status("F-9999", ben)).replace("F-9999", "F-1042")
        assert told == (await shop.refund_order("F-1045", ben)).replace("F-1045", "F-1042")
        assert "on its way" in await shop.order_status("f-1042", ana)

    in_the_shop(body)


def test_an_order_is_refunded_once_and_only_when_the_goods_are_back() -> None:
    ana = ToolCall("app:customer_service", 1, "user:ana")

    async def body(shop: Shop) -> None:
        assert "We refund an order when" in await shop.refund_order("F-1042", ana)
        assert await shop.refund_order("F-1045", ana) == "We have refunded 24.90 euros for your order F-1045."
        assert await shop.refund_order("F-1045", ana) == "Your order F-1045 was refunded already."
        assert await shop.order_status("F-1045", ana) == "Your order F-1045 (soy candle) was refunded."

    in_the_shop(body)


def in_the_shop(body: Callable[[Shop], Awaitable[None]]) -> None:
    async def run() -> None:
        async with Agent.spawn(FakeKernel(), "desk") as agent:
            await body(Shop(agent, ORDERS))

    asyncio.run(run())


def test_only_the_refund_is_marked_as_privileged() -> None:
    async def body(shop: Shop) -> None:
        assert {tool.name: tool.marks.get("privileged", False) for tool in shop.tools} == {"order_status": False, "refund_order": True}

    in_the_shop(body)


def test_a_refund_waits_for_approval_and_is_made_when_it_comes() -> None:
    fake = FakeKernel(echo, principal="app:customer_service")
    needed = ApprovalNeededError("It needs approval.", approval="a1")
    fake.fail(CallTool, needed, needed)
    first, second, third = converse(fake, "Please refund my order F-1045", "When are your stores open?", "When are your stores open?")
    assert first[0] == "A refund of F-1045 needs the consent of our staff. I have asked them for it; please ask me again later."
    assert second[0] == "Our stores are open from 10 am to 7 pm. [stores-01]", "nothing new is nothing to tell"
    assert third[0].startswith("We have refunded 24.90 euros for your order F-1045.\nOur stores are open")
    (case,) = cases(fake)
    assert case.reason == "A refund of F-1045 waits for approval a1."


def test_a_refund_that_was_refused_is_told() -> None:
    fake = FakeKernel(echo, principal="app:customer_service")
    fake.fail(CallTool, DeniedError("It was refused.", rule="approval a1"))
    [(shown, _)] = converse(fake, "Please refund my order F-1045")
    assert shown == "Our staff did not agree to refund F-1045."
    fake.fail(CallTool, DeniedError("No rule allows it."))
    with pytest.raises(DeniedError, match="No rule"):
        converse(fake, "Please refund my order F-1045")


def test_a_customer_who_comes_back_is_known() -> None:
    fake = FakeKernel(echo, principal="app:customer_service")

    async def greeting() -> str:
        async with Desk.open(fake, ENTRIES, ORDERS, FOLDER) as desk, desk.customer("ana") as place:
            return await place.greet()

    assert asyncio.run(greeting()).startswith("Good day, ana!")
    converse(fake, "Where is my order F-1042?", *["When are your stores open?"] * 4)
    assert asyncio.run(greeting()) == "Welcome back, ana! Last time you asked: “When are your stores open?”"
    [(shown, _)] = converse(fake, "What is happening with the order I placed last week?")
    assert shown.startswith("Your order F-1042 (cast-iron pot) is on its way."), "the order was named in a talk of long ago"


def test_who_loses_patience_is_handed_over_with_a_summary() -> None:
    fake = FakeKernel(echo)
    _, (_, answered) = converse(fake, "How long can I return my lamp?", "You people are useless, I am fed up with waiting for F-1042")
    assert answered.handed_over
    (case,) = cases(fake)
    assert case.reason == "The customer is losing patience."
    assert "ana asked 2 questions in this talk." in case.summary
    assert "- about returns: “How long can I return my lamp?” (answered from returns-01)" in case.summary
    assert "Orders named: F-1042." in case.summary
    assert case.summary.endswith("Sounds frustrated.")


def test_a_summary_of_little_says_little() -> None:
    assert summarize("ana", [Step("x" * 200, "gift_cards")], [], frustrated=False) == (
        f"ana asked 1 question in this talk.\n- about gift cards: “{'x' * 119}…” (not answered)"
    )


def test_what_was_trained_is_used_from_then_on(tmp_path: Path) -> None:
    examples = [Example(f"{word} {number}", word) for word in ("apples", "pears") for number in range(8)]

    async def body() -> tuple[Card, list[str], list[str]]:
        async with Agent.spawn(FakeKernel(), "trainer") as agent:
            before = await route_all(agent, ["Where is my order?"], tmp_path)
            card = await train(agent, examples, "fruit.csv", tmp_path)
            after = await route_all(agent, ["I like pears", "zzz"], tmp_path)
            assert [route.in_scope for route in after] == [True, False]
            return card, [route.intent for route in before], [route.intent for route in after][:1]

    card, before, after = asyncio.run(body())
    assert (before, after) == (["order_status"], ["pears"])
    assert (card.data, card.rows, card.labels) == ("fruit.csv", 16, ["apples", "pears"])
    assert card.figures == {"accuracy_on_examples_left_out": 1.0}


def test_a_scope_of_another_head_is_refused(tmp_path: Path) -> None:
    async def body() -> None:
        async with Agent.spawn(FakeKernel(), "trainer") as agent:
            for fruit in ("pears", "plums"):
                kept = tmp_path / "kept"
                await train(agent, [Example(f"{word} {number}", word) for word in ("apples", fruit) for number in range(4)], "x", tmp_path)
                if not kept.exists():
                    shutil.copytree(tmp_path / "intents" / "scope", kept)
            shutil.rmtree(tmp_path / "intents" / "scope")
            kept.rename(tmp_path / "intents" / "scope")
            with pytest.raises(InputError, match="belongs to another head"):
                await Intents.load(await Embedding.open(agent), tmp_path)

    asyncio.run(body())


def test_one_example_of_an_intent_is_not_enough(tmp_path: Path) -> None:
    async def body() -> None:
        async with Agent.spawn(FakeKernel(), "trainer") as agent:
            await train(agent, [Example("a", "x"), Example("b", "x"), Example("c", "lonely")], "x.csv", tmp_path)

    with pytest.raises(InputError, match="at least two of: lonely"):
        asyncio.run(body())


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
        async with Desk.open(fake, ENTRIES, ORDERS, FOLDER) as desk:
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
    assert set(lines[0]) == {"customer", "question", "answer", "intent", "entries", "tokens", "handed_over", "resumed"}


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
    found = [read_rows(SHIPPED.with_name(name), kind) for name, kind in SHIPPED_FILES.items()]
    assert [rows.bad for rows in found] == [[]] * len(found)
    entries = read_rows(SHIPPED, Entry).rows
    assert len({entry.id for entry in entries}) == len(entries) >= 60
    assert len({question.customer for question in read_rows(DEMO, Question).rows}) >= 3
    measured = Path(__file__).with_name("data") / "questions.jsonl"
    named = {name for line in measured.read_text().splitlines() for name in json.loads(line)["entries"]}
    assert named <= {entry.id for entry in entries}


SHIPPED_FILES: dict[str, type[msgspec.Struct]] = {
    "knowledge.jsonl": Entry,
    "demo.jsonl": Question,
    "orders.csv": Order,
    "intents.csv": Example,
    "moods.csv": Mood,
}
