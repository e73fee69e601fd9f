"""Verdicts: does a study answer its question with yes, with no, or with maybe?

A head over two things: the words of the question, and cues that tell how results came out ("no significant difference", "P<0.001"), counted
in the last part of the abstract and in its sentences that matter most. It reads the abstract without its conclusion, but learns from the
conclusions of the studies that it is trained on as well, as they say the same in plainer words. It is right in about six of ten cases, so
it is a hint where to look, and no more. Vectors of question and results, and the words of the results, made it no better.
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal, Self

import msgspec
import numpy as np
from msgspec import Meta
from sklearn.model_selection import StratifiedKFold

from kernos.agents.classifier import Card, Classifier, Matrix, NGrams, Settings
from kernos.agents.rows import InputError

FOLDS: Final = 5
SEED: Final = 0

SETTINGS: Final = Settings(strength=0.5, words=NGrams(1, 1, weight=1.5))

_RESULTS: Final = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"\bno(?:t|n)?[- ](?:statistically |a )?significant|not? (?:statistically )?differ"
        r"|no (?:statistically )?(?:significant )?(?:difference|association|correlation|effect|relationship|change|increase|impact"
        r"|influence|improvement|evidence)|non-?significant",
        r"\b(?:did|do|does|was|were|is|are|could|can|had|has) not\b|\bwithout\b|\bneither\b|\bfail(?:ed|s)?\b|\bno\b|\bunable\b",
        r"\bsimilar|comparable|equivalent|identical|the same|unchanged|no longer\b",
        r"(?<!not )(?<!no )(?<!non-)\bsignificant(?:ly)?\b",
        r"p\s*[<=]\s*0?\.0[0-4]\d*|p\s*<\s*0?\.05|p\s*[<=]\s*\.?0?0[01]\d*",
        r"p\s*>\s*0?\.\d+|p\s*=\s*0?\.(?:[1-9]\d*|0[6-9]\d*)|\bns\b|p\s*=\s*ns",
        r"\b(?:associated|correlat\w+|predict\w*|related|linked|depend\w*)\b",
        r"\b(?:higher|greater|better|more|increas\w+|improv\w+|superior)\b",
        r"\b(?:lower|less|decreas\w+|reduc\w+|fewer|worse|poor\w*)\b",
        r"\b(?:may|might|could|however|although|but|trend|tend\w*|limited|some|suggest\w*|further)\b",
        r"\b(?:effective|benefi\w+|useful|safe|feasible|success\w+|accurate|reliable|independent(?:ly)?)\b",
        r"\b(?:odds ratio|or|rr|hr|hazard ratio|relative risk)\b\s*[=:,(\[]",
        r"\d+(?:\.\d+)?\s?%",
    )
]
"""How results are told: no effect, negations, no difference, an effect, small and large P, and so on."""

_QUESTIONS: Final = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"^(?:is|are|was)\b",
        r"^(?:does|do|did)\b",
        r"^(?:can|could|may|should|will|would)\b",
        r":",
        r"\b(?:differ\w*|compar\w+|better|versus|vs|superior|more|influence|affect|impact|effect\w*|benefi\w+|improve\w*|role)\b",
        r"associat\w+|predict\w*|correlat\w+|relat\w+|marker|factor|risk",
        r"\b(?:necessary|need\w*|justified|indicated|worthwhile|should|routine|useful|valuable|enough|still|really|always|too)\b",
        r"\bnot?\b|without",
        r"\bor\b",
        r"reduce|decrease|lower|prevent",
        r"safe|feasib|effective|reliab|accurate|valid",
    )
]
"""How a question is put."""

_SENTENCE: Final = re.compile(r"(?<=[.!?])\s+")
_HEADINGS: Final = "Medical Subject Headings"


class Study(msgspec.Struct, frozen=True):
    """A question and the parts of an abstract; to train also the verdict and, if there is one, the authors' conclusion."""

    question: Annotated[str, Meta(min_length=1)]
    context: Annotated[list[str], Meta(min_length=1)]
    label: Literal["yes", "no", "maybe"] | None = None
    long_answer: str = ""
    pmid: str = ""

    @property
    def results(self) -> str:
        """The last part, where results stand."""
        return self.context[-1]

    @property
    def conclusion(self) -> str:
        """What the authors conclude, without the catalogue's headings behind it."""
        return self.long_answer.partition(_HEADINGS)[0].strip()


class Verdict(msgspec.Struct, frozen=True):
    """What a study is taken to answer, and how likely that is."""

    question: str
    verdict: str
    probability: float
    pmid: str = ""


class Verdicts:
    """A trained head."""

    def __init__(self, head: Classifier) -> None:
        self._head = head

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The head in a folder; `InputError` if there is none."""
        return cls(Classifier.load(folder)[0])

    @classmethod
    def fit(cls, studies: Sequence[Study]) -> Self:
        """Learn from studies that have a verdict: from the results of each, and from its conclusion if it has one."""
        texts = [_told(study.question, study.results) for study in studies]
        told = [study for study in studies if study.conclusion]
        texts += [_told(study.question, study.conclusion) for study in told]
        return cls(Classifier.fit(texts, _no_vectors(texts), [str(study.label) for study in (*studies, *told)], SETTINGS))

    def of(self, studies: Sequence[Study]) -> list[Verdict]:
        """A verdict per study, by its results."""
        texts = [_told(study.question, study.results) for study in studies]
        chances = self._head.predict_proba(texts, _no_vectors(texts))
        best = chances.argmax(axis=1)
        return [
            Verdict(study.question, self._head.labels[at], round(float(row[at]), 3), study.pmid)
            for study, row, at in zip(studies, chances, best, strict=True)
        ]

    def save(self, folder: Path, card: Card) -> None:
        """Keep the head."""
        self._head.save(folder, card)


def accuracy(verdicts: Verdicts, studies: Sequence[Study]) -> float:
    """The share of studies that get the verdict they have."""
    return sum(said.verdict == study.label for said, study in zip(verdicts.of(studies), studies, strict=True)) / len(studies)


def cross_validated(studies: Sequence[Study]) -> float:
    """Accuracy over stratified folds, each judged by a head that has not seen it."""
    labels = [str(study.label) for study in studies]
    right = 0.0
    for train, test in StratifiedKFold(FOLDS, shuffle=True, random_state=SEED).split(labels, labels):
        right += len(test) * accuracy(Verdicts.fit([studies[at] for at in train]), [studies[at] for at in test])
    return right / len(studies)


def labelled(studies: Sequence[Study], path: Path) -> list[Study]:
    """The studies that have a verdict; `InputError` if one of the verdicts is too rare to make folds of."""
    found = [study for study in studies if study.label]
    counts = Counter(study.label for study in found)
    if len(counts) < 2 or min(counts.values()) < FOLDS:
        raise InputError(f"{path} has too few rows with a label: a head needs two or three labels and {FOLDS} rows of each.")
    return found


def _told(question: str, text: str) -> str:
    """The question, and a word for each cue in a text, in its first, its last and its nearest sentence, and in the question."""
    sentences = _SENTENCE.split(text)
    asked = _long_words(question)
    nearest = max(sentences, key=lambda sentence: len(asked & _long_words(sentence)))
    places = [(text, _RESULTS), (sentences[0], _RESULTS), (sentences[-1], _RESULTS), (nearest, _RESULTS), (question, _QUESTIONS)]
    cues = [
        f"cue_{where}_{number}"
        for where, (place, known) in enumerate(places)
        for number, cue in enumerate(known)
        for _ in cue.findall(place)
    ]
    return " ".join([question, *cues])


def _no_vectors(texts: Sequence[str]) -> Matrix:
    return np.zeros((len(texts), 0), dtype=np.float32)


def _long_words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]{4,}", text.lower()))
