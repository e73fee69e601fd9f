"""How well intents are told and strangers are found, measured on public data through the running system.

    customer_intent      accuracy on the test questions of banking77 (Casanueva et al., 2020), learned from its training questions
    customer_oos_auroc   how well familiarity tells test questions from strangers: half titles of AG News, half questions of 15 intents
                         that were left out of training (area under the ROC curve, mean over draws of those 15)

The folder holds `banking77/train.csv`, `banking77/test.csv` (text, category) and `ag_news/ag_test.csv` (title). Where `KERNOS_TEST_DATA`
names a folder, what is tested on comes from the files of the same names there. Nothing is chosen by what is tested on.
"""

import argparse
import json
import os
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import numpy as np
from sklearn.metrics import roc_auc_score

from kernos.agents import Agent
from kernos.agents.classifier import Classifier
from kernos.agents.embedding import Embedding
from kernos.agents.rows import read_rows
from kernos.syscalls import AsyncKernel

from .intents import Intents, settings_for

LEFT_OUT: Final = 15
DRAWS: Final = 2

QUICK_TRAIN: Final = 20
"""Training questions of each intent in a quick run."""
QUICK_TEST: Final = 600


T = TypeVar("T")


class Question(msgspec.Struct, frozen=True):
    """A row of banking77."""

    text: str
    category: str


class Title(msgspec.Struct, frozen=True):
    """A row of AG News."""

    title: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the verb."""
    parser.add_argument("--data", metavar="DIR", type=Path, required=True, help="the folder of the public sets")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="small samples: under a minute, and rougher")


async def run(kernel: AsyncKernel, arguments: argparse.Namespace, folder: Path) -> int:
    """Measure and print."""
    async with Agent.spawn(kernel, "evaluator", priority="batch") as agent:
        figures = await measure(await Embedding.open(agent, folder / "vectors"), arguments.data, quick=arguments.quick)
    if arguments.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:<24}{value:>8.4g}")
    return 0


async def measure(embedding: Embedding, data: Path, *, quick: bool) -> dict[str, float]:
    """All figures."""
    train = read_rows(data / "banking77" / "train.csv", Question).rows
    test = read_rows(_tested(data, "banking77/test.csv"), Question).rows
    titles = [row.title for row in read_rows(_tested(data, "ag_news/ag_test.csv"), Title).rows]
    if quick:
        train, test, titles = _few(train), _sample(test, QUICK_TEST), _sample(titles, QUICK_TEST)
    vectors = [await embedding.embed([row.text for row in rows], _progress) for rows in (train, test)]
    head = Classifier.fit([row.text for row in train], vectors[0], [row.category for row in train], settings_for(len(train)))
    told = head.predict([row.text for row in test], vectors[1])
    right = np.mean([label == row.category for label, row in zip(told, test, strict=True)])
    draws = [await _oos_auroc(embedding, train, test, titles, seed) for seed in range(1 if quick else DRAWS)]
    return {"customer_intent": float(right), "customer_oos_auroc": float(np.mean(draws)), "customer_test_rows": len(test)}


async def _oos_auroc(embedding: Embedding, train: list[Question], test: list[Question], titles: list[str], seed: int) -> float:
    """For one draw of the intents that are left out."""
    intents = sorted({row.category for row in train})
    left_out = set(np.random.default_rng(seed).choice(intents, LEFT_OUT, replace=False).tolist())
    known = [row for row in train if row.category not in left_out]
    texts = [row.text for row in known]
    fitted, _ = Intents.fit(texts, await embedding.embed(texts), [row.category for row in known])
    own = [row.text for row in test if row.category not in left_out]
    near = [row.text for row in test if row.category in left_out]
    strangers = [*near, *_sample(titles, len(near), seed)]
    scores = [route.familiarity for route in fitted.routes([*own, *strangers], await embedding.embed([*own, *strangers], _progress))]
    return float(roc_auc_score([1] * len(own) + [0] * len(strangers), scores))


def _tested(data: Path, name: str) -> Path:
    """The file of rows to test on."""
    elsewhere = Path(os.environ.get("KERNOS_TEST_DATA") or data) / name
    return elsewhere if elsewhere.exists() else data / name


def _few(rows: list[Question]) -> list[Question]:
    found: dict[str, list[Question]] = defaultdict(list)
    for row in rows:
        found[row.category].append(row)
    return [row for same in found.values() for row in same[:QUICK_TRAIN]]


def _sample(values: Sequence[T], count: int, seed: int = 0) -> list[T]:
    places = np.random.default_rng(seed).permutation(len(values))[:count]
    return [values[int(place)] for place in places]


def _progress(done: int, of: int) -> None:
    if done % 1_024 == 0 or done == of:
        print(f"embedded {done} of {of} texts", file=sys.stderr, flush=True)
