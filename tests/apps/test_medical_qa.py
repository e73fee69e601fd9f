"""The medical app against a kernel in memory: which way a question takes, and what it learns from files."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kernos.agents import Agent, Toolbox
from kernos.agents.classifier import Card
from kernos.agents.embedding import Embedding
from kernos.agents.rows import InputError, read_rows
from kernos.agents.testing import FakeKernel
from kernos.apps.medical_qa import __main__ as command
from kernos.apps.medical_qa.answers import REFUSAL, Answer, Desk
from kernos.apps.medical_qa.emergency import ADVICE
from kernos.apps.medical_qa.evaluate import Asked, recalled
from kernos.apps.medical_qa.kinds import Kinds, Pair, alike
from kernos.apps.medical_qa.library import SHIPPED, Passage
from kernos.apps.medical_qa.notes import read_note
from kernos.apps.medical_qa.records import Kept
from kernos.apps.medical_qa.retrieval import Index
from kernos.apps.medical_qa.verdicts import Study, Verdicts, accuracy, cross_validated, labelled
from kernos.apps.medical_qa.views import page_of
from kernos.syscalls.model import Generate

PASSAGES = [
    Passage("gout-01", "Gout", "Gout is an inflammation of a joint by crystals of uric acid. Allopurinol prevents attacks."),
    Passage("cold-01", "Cold", "A cold is caused by viruses. Antibiotics do not help against a cold."),
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNOS_APP_FOLDER", str(tmp_path / "own"))


def ask(fake: FakeKernel, question: str) -> Answer:
    async def body() -> Answer:
        async with Desk.open(fake, PASSAGES) as desk, Agent.spawn(fake, "reader") as agent:
            return await desk.answer(agent, question)

    return asyncio.run(body())


def test_an_answer_cites_the_passage_of_each_sentence() -> None:
    answer = ask(FakeKernel(["Antibiotics do not help against a cold. Drink gin."]), "What helps against a cold?")
    assert answer.answer == "Antibiotics do not help against a cold. [cold-01]"
    assert [citation.id for citation in answer.citations] == ["cold-01"]
    assert answer.citations[0].text == PASSAGES[1].text


def test_where_all_is_invented_the_passage_speaks_for_itself() -> None:
    answer = ask(FakeKernel(["Take two of these every hour."]), "What helps against a cold?")
    assert answer.answer == f"{PASSAGES[1].text} [cold-01]"


def test_thin_evidence_is_refused_and_no_model_is_asked() -> None:
    fake = FakeKernel()
    answer = ask(fake, "How do I change a tyre?")
    assert (answer.answer, answer.refused, answer.citations) == (REFUSAL, True, [])
    assert not any(isinstance(call, Generate) for call in fake.made)


def test_nothing_of_a_question_is_kept(tmp_path: Path) -> None:
    ask(FakeKernel(["It is caused by viruses."]), "What helps against a cold?")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.vectors")}
    fake = FakeKernel(["It is caused by viruses."])
    ask(fake, "Does a cold need antibiotics?")
    assert before
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.vectors")} == before
    assert not fake.world.contexts and not fake.world.files


def test_an_emergency_gets_the_advice_and_nothing_else() -> None:
    fake = FakeKernel()
    answer = ask(fake, "I took too many pills against my gout")
    assert (answer.answer, answer.emergency, answer.citations) == (ADVICE, True, [])
    assert not any(isinstance(call, Generate) for call in fake.made)


def test_the_agents_of_others_ask_by_the_tool() -> None:
    fake = FakeKernel(["Antibiotics do not help against a cold."], principal="app:medical_qa")

    async def body() -> str:
        async with Desk.open(fake, PASSAGES) as desk, Agent.spawn(fake, "tools") as server, Toolbox(server.kernel, [desk.tool(server)]):
            return await server.use("medical_qa/ask", {"question": "What helps against a cold?"})

    assert json.loads(asyncio.run(body()))["citations"][0]["id"] == "cold-01"


def test_words_break_the_tie_of_equal_meanings() -> None:
    index = Index(["aspirin for hearts", "statins for hearts"], np.ones((2, 1), np.float32))
    assert index.together(["What do statins do?"], np.ones((1, 1), np.float32)).argmax() == 1
    assert index.by_words(["zzz"]).tolist() == [[0.0, 0.0]]


def test_kinds_tell_texts_on_one_thing_apart(tmp_path: Path) -> None:
    things = ["gout", "asthma", "acne", "lupus", "scurvy", "malaria"]
    pairs = [Pair(f"What causes {one}?", f"{one} is caused by something in the body, a cause.", "causes", one) for one in things]
    pairs += [Pair(f"How is {one} treated?", f"{one} is treated with tablets, a treatment.", "treatment", one) for one in things]
    nothing = np.zeros((len(pairs), 1), np.float32)
    heads = Kinds.fit(pairs, np.array([[pair.qtype == "causes"] for pair in pairs], np.float32), nothing)
    asked = heads.of_questions(["What causes plague?"], np.ones((1, 1), np.float32))
    texts = heads.of_texts(["plague is treated with tablets", "plague is caused by something in the body"], np.zeros((2, 1), np.float32))
    assert alike(asked, texts).argmax() == 1
    heads.save(tmp_path, Card(task="kinds", data="made up", rows=len(pairs), encoder="minilm"))
    assert (Kinds.load(tmp_path, "minilm").of_questions(["What causes plague?"], np.ones((1, 1), np.float32)) == asked).all()
    with pytest.raises(InputError, match="Train them again"):
        Kinds.load(tmp_path, "another")


def studies() -> list[Study]:
    yes = [Study(f"Does drug {at} help?", ["Aim.", "It helped significantly (P<0.001), with better results."], "yes") for at in range(12)]
    no = [Study(f"Does drug {at} help?", ["Aim.", "There was no significant difference (P=0.61)."], "no") for at in range(12)]
    return [*yes, *no]


def test_verdicts_are_learned_from_how_results_are_told(tmp_path: Path) -> None:
    assert cross_validated(studies()) == 1.0
    head = Verdicts.fit(studies())
    assert accuracy(head, studies()) == 1.0
    (said,) = head.of([Study("Does it help?", ["We found no significant difference between groups."])])
    assert said.verdict == "no"


def test_a_head_needs_enough_rows_of_each_verdict() -> None:
    with pytest.raises(InputError, match="too few rows"):
        labelled(studies()[:13], Path("few.jsonl"))


@pytest.mark.parametrize("folders", [1, 2])
def test_retrieval_is_measured_on_the_questions_of_the_last_folder(tmp_path: Path, folders: int) -> None:
    things = ["gout", "asthma", "acne", "lupus", "scurvy", "malaria", "plague", "rabies"]
    for number in range(folders):
        rows = ["question,answer,qtype,focus"]
        rows += [f"What causes {one}{number}?,{one}{number} is caused by a cause,causes,{one}" for one in things]
        rows += [f"How is {one}{number} treated?,{one}{number} is treated with tablets,treatment,{one}" for one in things]
        place = tmp_path / str(number) / "medquad"
        place.mkdir(parents=True)
        (place / "medquad_small.csv").write_text("\n".join(rows))
    keys = asyncio.run(measured([tmp_path / str(number) for number in range(folders)]))
    assert keys["medical_recall1"] > 0.9
    assert keys["medical_recall1_gain"] == pytest.approx(
        keys["medical_recall1"] - max(keys["medical_recall1_dense"], keys["medical_recall1_words"]), abs=1e-3
    )


async def measured(folders: list[Path]) -> dict[str, float]:
    async with Agent.spawn(FakeKernel(), "measure") as agent:
        return await recalled(await Embedding.open(agent), folders, quick=False)


def test_shipped_questions_name_passages_that_exist() -> None:
    ids = {passage.id for passage in read_rows(SHIPPED, Passage).rows}
    asked = read_rows(SHIPPED.with_name("questions.csv"), Asked).rows
    assert {row.entry for row in asked if row.entry} <= ids
    assert len(ids) == len(read_rows(SHIPPED, Passage).rows)


def test_a_page_marks_its_sources_and_runs_nothing_of_a_note() -> None:
    text = "<script>alert(1)</script> HTN. K 5.9 mmol/L."
    page = page_of(Kept("p-1", text, read_note(text)))
    assert "<script>" not in page
    assert '<mark title="problem name: hypertension; problem status: present">HTN</mark>' in page
    assert "potassium" in page


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["add", "x.txt", "--clinician", "../x"], "is no name for a user"),
        (["show", "a/b"], "is no name for a record"),
        (["evaluate"], "--data"),
    ],
)
def test_wrong_arguments_are_told(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["medical_qa", *arguments])
    with pytest.raises(SystemExit):
        command.main()
    assert said in capsys.readouterr().err


def run(arguments: list[str], monkeypatch: pytest.MonkeyPatch, answers: Callable[[Generate], str]) -> int:
    """The command over a kernel in memory."""
    monkeypatch.setattr("sys.argv", ["medical_qa", *arguments])
    monkeypatch.setattr(command, "AsyncKernel", lambda: FakeKernel(answers, principal="app:medical_qa"))
    return command.main()


def copy(call: Generate) -> str:
    """A model that copies what is before it."""
    return call.messages[-1].text.split("\n\n")[1]


def test_a_file_of_questions_is_answered_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "questions.csv"
    file.write_text("question\nWhat helps against a cold?\n\nI cannot breathe\n")
    assert run(["ask", "--file", str(file), "--json"], monkeypatch, copy) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["question"] for answer in answers] == ["What helps against a cold?", "I cannot breathe"]
    assert answers[1]["emergency"]


def test_a_missing_file_and_a_bad_row_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ask", "--file", str(tmp_path / "none.csv")], monkeypatch, copy) == 1
    assert "cannot be read" in capsys.readouterr().err
    library = tmp_path / "library.jsonl"
    library.write_text('{"id": "a", "title": "Cold", "text": "A cold is caused by viruses."}\n{"id": 1}\n')
    assert run(["ask", "What causes a cold?", "--library", str(library)], monkeypatch, copy) == 0
    told = capsys.readouterr()
    assert "line 2, is left out" in told.err
    assert "caused by viruses" in told.out


def test_the_demo_shows_every_way(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--demo"], monkeypatch, copy) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert ADVICE in shown
    assert "atorvastatin" in shown


def test_verdicts_are_trained_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "studies.jsonl"
    file.write_text("\n".join(json.dumps({"question": one.question, "context": one.context, "label": one.label}) for one in studies()))
    assert run(["verdict", "--data", str(file)], monkeypatch, copy) == 1
    assert "Train one" in capsys.readouterr().err
    assert run(["train", "--data", str(file)], monkeypatch, copy) == 0
    assert "accuracy 1.000" in capsys.readouterr().out
    assert run(["verdict", "--data", str(file)], monkeypatch, copy) == 0
    assert [json.loads(line)["verdict"] for line in capsys.readouterr().out.splitlines()] == [one.label for one in studies()]
