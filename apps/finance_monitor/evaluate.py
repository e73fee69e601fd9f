"""`kernos run finance_monitor evaluate`: the monitor's figures on public data, every vector by `model.embed` of the running system.

- `finance_sentiment`: accuracy on Financial PhraseBank, the mean of five stratified folds.
- `finance_topic_gain`: accuracy on AG News over that of TF-IDF with a linear SVM, on the same folds.
- `finance_shock_found`: of 200 replays in which the share of bad news rises from 12 to 65 %, how many raise an alarm within 30 items; and
  `finance_false_alarms_per_1000` on streams that stay at 12 %. The items are sentences of the PhraseBank, drawn by their true label and
  called by the head that did not see them in training.

Where `KERNOS_TEST_DATA` holds the same file, its rows are the test, and all rows of the public one that are not among them the training.
Nothing here is fitted to a test row. The width, the ridge and the weights of the sentiment head were compared by these very folds, not by
folds within them, and its cues were written with sentences of the PhraseBank in view: expect a little less on other news.
"""

import os
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import LinearSVC

from kernos.agents.embedding import Embedding
from kernos.agents.rows import good_rows

from .head import Head, Matrix
from .heads import Task, points_for
from .shock import Shock

_SENTENCES: Final = "financial_phrasebank/sentences_50agree.csv"
_NEWS: Final = "ag_news/ag_test.csv"

_SEED: Final = 0
_FOLDS: Final = 5
_QUICK: Final = 400
"""Rows of each set in the quick size."""

_REPLAYS: Final = 200
_QUICK_REPLAYS: Final = 40
_QUIET, _SHOCKED = 0.12, 0.65
_BEFORE: Final = range(200, 400)
"""Quiet items before a shock."""
_WITHIN: Final = 30
_STREAM: Final = 1_000
"""Items of a stream without a shock."""


class _Sentence(msgspec.Struct, frozen=True):
    text: str
    label: str


class _News(msgspec.Struct, frozen=True):
    label: str
    title: str
    description: str = ""

    @property
    def text(self) -> str:
        return f"{self.title}. {self.description}"


class _Set(NamedTuple):
    """Labelled texts, their vectors, and which are trained on and tested in each fold."""

    texts: list[str]
    labels: NDArray[np.str_]
    vectors: Matrix
    folds: list[tuple[NDArray[np.intp], NDArray[np.intp]]]


class _Called(NamedTuple):
    """What the test rows of a set are called, and what they are; accuracy is the mean over folds."""

    accuracy: float
    told: list[str]
    truth: list[str]


async def evaluate(embedding: Embedding, data: Path, *, quick: bool) -> dict[str, float]:
    """All figures by their keys; progress goes to standard error."""
    sentences = await _load(embedding, data, _SENTENCES, _Sentence, quick)
    tone = _call("sentiment", sentences)
    _say(f"sentiment: {tone.accuracy:.4f}")
    news = await _load(embedding, data, _NEWS, _News, quick)
    topics, baseline = _call("topic", news), _baseline(news)
    _say(f"topics: {topics.accuracy:.4f}, TF-IDF and a linear SVM: {baseline:.4f}")
    found, false_alarms = _replay(tone, _QUICK_REPLAYS if quick else _REPLAYS)
    figures = {
        "finance_sentiment": tone.accuracy,
        "finance_topic_gain": topics.accuracy - baseline,
        "finance_topic": topics.accuracy,
        "finance_shock_found": found,
        "finance_false_alarms_per_1000": false_alarms,
    }
    return {key: round(value, 4) for key, value in figures.items()}


async def _load(embedding: Embedding, data: Path, name: str, kind: type[Any], quick: bool) -> _Set:
    rows = _rows(data / name, kind, quick)
    folder = os.environ.get("KERNOS_TEST_DATA")
    test = _rows(Path(folder) / name, kind, quick) if folder and (Path(folder) / name).exists() else {}
    labels = {text: label for text, label in rows.items() if text not in test} | test
    texts = list(labels)
    vectors = await embedding.embed(texts, lambda done, of: _say(f"{name}: {done} of {of} texts embedded"))
    truth = np.asarray(list(labels.values()))
    if test:
        folds = [(np.arange(len(texts) - len(test)), np.arange(len(texts) - len(test), len(texts)))]
    else:
        folds = list(StratifiedKFold(_FOLDS, shuffle=True, random_state=_SEED).split(texts, truth))
    return _Set(texts, truth, vectors, folds)


def _rows(file: Path, kind: type[Any], quick: bool) -> dict[str, str]:
    """Labels by text; a text that comes twice counts once."""
    labels = {row.text: row.label for row in good_rows(file, kind)}
    if quick and len(labels) > _QUICK:
        return {text: labels[text] for text in random.Random(_SEED).sample(list(labels), _QUICK)}
    return labels


def _call(task: Task, given: _Set) -> _Called:
    points = points_for(task, given.texts, given.vectors)
    shares, told, truth = [], [], []
    for number, (train, test) in enumerate(given.folds, start=1):
        head, _ = Head.fit(_pick(given.texts, train), points[train], list(given.labels[train]))
        called = head.predict(_pick(given.texts, test), points[test])
        shares.append(float((np.asarray(called) == given.labels[test]).mean()))
        told += called
        truth += list(given.labels[test])
        _say(f"{task}: part {number} of {len(given.folds)}: {shares[-1]:.4f}")
    return _Called(float(np.mean(shares)), told, truth)


def _baseline(given: _Set) -> float:
    """TF-IDF of words and pairs of words with a linear support vector machine, at its usual settings."""
    shares = []
    for train, test in given.folds:
        vectorizer: Any = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
        machine: Any = LinearSVC(random_state=_SEED)
        machine.fit(vectorizer.fit_transform(_pick(given.texts, train)), given.labels[train])
        shares.append(float((machine.predict(vectorizer.transform(_pick(given.texts, test))) == given.labels[test]).mean()))
    return float(np.mean(shares))


def _replay(tone: _Called, replays: int) -> tuple[float, float]:
    """The share of shocks found in time, and false alarms per 1,000 items without one."""
    chance = random.Random(_SEED)
    found = alarms = 0
    for _ in range(replays):
        shock = Shock()
        for bad in _stream(tone, _QUIET, chance.choice(_BEFORE), chance):
            shock.add(bad)
        found += any(shock.add(bad) for bad in _stream(tone, _SHOCKED, _WITHIN, chance))
        quiet = Shock()
        alarms += sum(quiet.add(bad) for bad in _stream(tone, _QUIET, _STREAM, chance))
    return found / replays, 1_000 * alarms / (replays * _STREAM)


def _stream(tone: _Called, share: float, items: int, chance: random.Random) -> Iterator[bool]:
    """Sentences of which this share is truly negative: whether each is called so."""
    pools: dict[bool, list[bool]] = {True: [], False: []}
    for told, truth in zip(tone.told, tone.truth, strict=True):
        pools[truth == "negative"].append(told == "negative")
    return (chance.choice(pools[chance.random() < share]) for _ in range(items))


def _pick(texts: Sequence[str], rows: NDArray[np.intp]) -> list[str]:
    return [texts[int(row)] for row in rows]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
