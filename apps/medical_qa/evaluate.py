"""`evaluate`: the figures of this app, measured through the running system, as one JSON object.

What needs no model: how many fields of held-out notes are read, which wordings are taken for emergencies. What needs vectors
(`model.embed`): which questions the library answers, MedQuAD (the question asked of an index that holds the answers alone) and PubMedQA.
Test rows are those of the folder `KERNOS_TEST_DATA`, where it is set: then what learns, learns from the rows of `--data` alone. Else
both are measured by folds of these.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec
import numpy as np
from rich.console import Console
from sklearn.model_selection import GroupKFold

from kernos.agents import Agent
from kernos.agents.embedding import Embedding
from kernos.agents.folder import own_folder
from kernos.agents.rows import good_rows, read_rows
from kernos.syscalls import AsyncKernel

from .answers import APP
from .emergency import is_emergency
from .kinds import Kinds, Pair, alike
from .library import SHIPPED, Library, Passage
from .notes import read_note
from .notes.fields import misplaced
from .notes.marked import FOLDER, compare, read_marked, total
from .retrieval import Index, Matrix
from .verdicts import FOLDS, Study, Verdicts, accuracy, cross_validated

DATA: Final = Path(__file__).with_name("data")
QUICK_PAIRS: Final = 200
QUICK_STUDIES: Final = 100

Split = Literal["tuning", "held_out"]
Keys = dict[str, float]


class Wording(msgspec.Struct, frozen=True):
    """A row of `emergencies.csv`."""

    set: Split
    emergency: Literal["yes", "no"]
    text: str


class Asked(msgspec.Struct, frozen=True):
    """A row of `questions.csv`; without an entry the library has no answer."""

    set: Split
    question: str
    entry: str = ""


async def run(kernel: AsyncKernel, arguments: argparse.Namespace, console: Console) -> None:
    """Measure everything and print it."""
    tests = os.environ.get("KERNOS_TEST_DATA")
    folders = [arguments.data, *([Path(tests)] if tests else [])]
    keys = {**fields_read("held_out"), **emergencies()}
    async with Agent.spawn(kernel, "measure") as agent:
        embedding = await Embedding.open(agent, own_folder(APP) / "vectors")
        keys |= await answered(agent, embedding)
        keys |= await recalled(embedding, folders, quick=arguments.quick)
    keys |= judged(folders, quick=arguments.quick)
    if arguments.json:
        print(msgspec.json.encode(keys).decode())
    else:
        console.print("\n".join(f"{name:32} {value:.4f}" for name, value in keys.items()))


def fields_read(split: Split) -> Keys:
    """F1 over the fields of marked notes, and the share of fields that point into their note."""
    counts, read, lost = [], 0, 0
    for note in read_marked(FOLDER / f"{split}.txt"):
        record = read_note(note.text)
        found, _ = compare(note, record)
        counts.append(found)
        read += found["read"]
        lost += len(misplaced(record, note.text))
    return {"medical_field_f1": round(total(counts).f1, 4), "medical_field_sources": 1 - lost / max(1, read)}


def emergencies() -> Keys:
    """The share of held-out wordings that are taken for an emergency, of those that are one and of those that are none."""
    rows = [row for row in read_rows(DATA / "emergencies.csv", Wording).rows if row.set == "held_out"]

    def share(kind: str) -> float:
        taken = [is_emergency(row.text) for row in rows if row.emergency == kind]
        return sum(taken) / len(taken)

    return {"medical_emergency_found": share("yes"), "medical_emergency_false": share("no")}


async def answered(agent: Agent, embedding: Embedding, split: Split = "held_out") -> Keys:
    """Of questions that the shipped library answers, the share that gets the right passage; of others, the share that is refused."""
    library = await Library.open(embedding, read_rows(SHIPPED, Passage).rows)
    rows = [row for row in read_rows(DATA / "questions.csv", Asked).rows if row.set == split]
    found = [(row, {one.passage.id for one in await library.search(agent, row.question)}) for row in rows]
    right = [row.entry in ids for row, ids in found if row.entry]
    refused = [not ids for row, ids in found if not row.entry]
    return {"medical_answered": round(sum(right) / len(right), 4), "medical_refused": round(sum(refused) / len(refused), 4)}


async def recalled(embedding: Embedding, folders: Sequence[Path], *, quick: bool) -> Keys:
    """Recall@1 on MedQuAD by all ways together, and by meaning and by words alone.

    All answers are in the index; the questions are those of the last folder. The heads of kinds see neither these questions nor, where
    there is no other folder, the answers that they judge: those are of another fold, by what the question is about.
    """
    pairs = [_pairs(folder)[: QUICK_PAIRS if quick else None] for folder in folders]
    asked, everything = pairs[-1], [pair for rows in pairs for pair in rows]
    texts, questions = [pair.answer for pair in everything], [pair.question for pair in asked]
    answers = await embedding.embed(texts, _told("answers of MedQuAD"))
    vectors = await embedding.embed(questions, _told("questions of MedQuAD"))
    index = Index(texts, answers)
    if len(folders) == 1:
        kinds = _kinds_by_folds(asked, vectors, answers)
    else:
        known = pairs[0]
        heads = Kinds.fit(
            known, await embedding.embed([pair.question for pair in known], _told("questions to learn from")), answers[: len(known)]
        )
        kinds = heads.of_questions(questions, vectors), heads.of_texts(texts, answers)
    first = {text: at for at, text in reversed(list(enumerate(texts)))}  # an answer that is there twice is the same answer
    same = np.array([first[text] for text in texts])
    own = np.array([first[pair.answer] for pair in asked])
    ways = {
        "": index.together(questions, vectors) + alike(*kinds),
        "_dense": index.by_meaning(vectors),
        "_words": index.by_words(questions),
    }
    found = {f"medical_recall1{way}": float((same[scores.argmax(axis=1)] == own).mean()) for way, scores in ways.items()}
    gain = found["medical_recall1"] - max(found["medical_recall1_dense"], found["medical_recall1_words"])
    return {name: round(value, 4) for name, value in (*found.items(), ("medical_recall1_gain", gain))}


def _kinds_by_folds(pairs: list[Pair], questions: Matrix, answers: Matrix) -> tuple[Matrix, Matrix]:
    """The kinds of questions and answers, each told by heads that saw no pair about the same thing."""
    names = sorted({pair.qtype for pair in pairs})
    told = np.zeros((2, len(pairs), len(names)), dtype=np.float32)
    for train, test in GroupKFold(FOLDS).split(pairs, groups=[pair.focus for pair in pairs]):
        heads = Kinds.fit([pairs[at] for at in train], questions[train], answers[train])
        columns = np.array([names.index(name) for name in heads.labels])
        told[0][np.ix_(test, columns)] = heads.of_questions([pairs[at].question for at in test], questions[test])
        told[1][np.ix_(test, columns)] = heads.of_texts([pairs[at].answer for at in test], answers[test])
    return told[0], told[1]


def judged(folders: Sequence[Path], *, quick: bool) -> Keys:
    """Accuracy on PubMedQA without the conclusions: of test rows after training on the others, or by folds where there are none."""
    known = read_rows(folders[0] / "pubmedqa" / "pqal.jsonl", Study).rows[: QUICK_STUDIES if quick else None]
    if len(folders) == 1:
        return {"medical_pubmedqa": round(cross_validated(known), 4)}
    tests = read_rows(folders[1] / "pubmedqa" / "pqal.jsonl", Study).rows
    return {"medical_pubmedqa": round(accuracy(Verdicts.fit(known), tests), 4)}


def _pairs(folder: Path) -> list[Pair]:
    return good_rows(folder / "medquad" / "medquad_small.csv", Pair)


def _told(what: str) -> Callable[[int, int], None]:
    """Says on standard error how far it is, at every tenth."""

    def tell(done: int, of: int) -> None:
        if done * 10 // of > max(0, done - 64) * 10 // of:
            print(f"medical_qa: {what}: {done} of {of}", file=sys.stderr, flush=True)

    return tell
