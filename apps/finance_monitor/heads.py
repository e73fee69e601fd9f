"""The two heads of the monitor, sentiment and topic: trained on labelled examples, kept as artefacts with a card."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
import numpy as np
from msgspec import Meta

from kernos.agents.artefact import Card
from kernos.agents.embedding import Embedding
from kernos.agents.rows import InputError, good_rows

from .cues import count_cues
from .head import Head, Matrix

SHIPPED: Final = Path(__file__).with_name("data") / "examples.csv"

Task = Literal["sentiment", "topic"]
TASKS: Final[tuple[Task, ...]] = ("sentiment", "topic")

Progress = Callable[[int, int], object]

_CUES: Final = 0.7
"""Weight of the cues beside a vector of length one."""

_JUDGED: Final = "The figures are of each row as judged by all others."

_Label = Annotated[str, Meta(min_length=1, max_length=40)]


class Example(msgspec.Struct, frozen=True):
    """A labelled text, as a row of a file. A row may have one of the two labels or both."""

    text: Annotated[str, Meta(min_length=1, max_length=10_000)]
    sentiment: _Label | None = None
    topic: _Label | None = None


def points_for(task: Task, texts: Sequence[str], vectors: Matrix) -> Matrix:
    """What a head compares [len(texts), …]: the vectors, and for the tone the cues beside them."""
    return np.hstack([vectors, np.float32(_CUES) * count_cues(texts)]) if task == "sentiment" else vectors


async def train(
    file: Path, embedding: Embedding, folder: Path, tasks: Sequence[Task] = TASKS, progress: Progress = lambda _done, _of: None
) -> list[Card]:
    """Train a head for each of the tasks that the rows of a file have labels for; their cards. `InputError` if it is not fit."""
    rows = good_rows(file, Example)
    cards = []
    for task in tasks:
        labelled = [(row.text, label) for row in rows if (label := getattr(row, task))]
        if not labelled:
            continue
        texts, labels = [text for text, _ in labelled], [label for _, label in labelled]
        if task == "sentiment" and "negative" not in labels:
            raise InputError(f"{file} calls no row negative. The monitor counts that label: name it so, and the others as you like.")
        vectors = await embedding.embed(texts, progress)
        head, figures = Head.fit(texts, points_for(task, texts, vectors), labels)
        card = Card(task=task, data=file.name, rows=len(texts), encoder=embedding.model, figures=figures, notes=_JUDGED)
        cards.append(head.save(folder / task, card))
    if not cards:
        raise InputError(f"{file} has no column sentiment or topic. Its columns should be: text, and one of the two or both.")
    return cards


def load(task: Task, folder: Path, encoder: str) -> Head:
    """A trained head; `InputError` if there is none, or it was trained on the vectors of another encoder."""
    head, card = Head.load(folder / task)
    if card.encoder != encoder:
        raise InputError(f"The head in {folder / task} is for vectors of {card.encoder}, this machine has {encoder}. Train again.")
    return head
