"""A head over vectors and n-grams: fitted, kept in a folder, and read again."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from kernos.agents.artefact import CARD
from kernos.agents.classifier import Card, Classifier, Matrix, NGrams, Settings
from kernos.agents.rows import InputError

WORDS = {"refund": "I want my money back now", "delivery": "When does my parcel come", "account": "How do I change my password"}
TEXTS = [f"{text} {number}" for text in WORDS.values() for number in range(12)]
LABELS = [label for label in WORDS for _ in range(12)]
CARD_OF = Card(task="intent", data="made up", rows=len(TEXTS), encoder="none")
BOTH = Settings(words=NGrams(1, 2), characters=NGrams(2, 4, weight=0.5))


def vectors(count: int, seed: int = 0, dim: int = 8) -> Matrix:
    """Directions that say nothing about the label."""
    found = np.random.default_rng(seed).normal(size=(count, dim))
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), dtype=np.float32)


def telling(labels: list[str], seed: int = 0) -> Matrix:
    """Directions that say what the label is."""
    centres = dict(zip(WORDS, vectors(len(WORDS), seed=9), strict=True))
    return np.asarray([centres[label] + 0.1 * noise for label, noise in zip(labels, vectors(len(labels), seed), strict=True)], np.float32)


def test_vectors_alone_tell_labels_apart() -> None:
    head = Classifier.fit(TEXTS, telling(LABELS), LABELS)
    assert head.labels == sorted(WORDS)
    assert head.predict(TEXTS, telling(LABELS, seed=1)) == LABELS


def test_n_grams_help_where_vectors_say_nothing() -> None:
    without = Classifier.fit(TEXTS, vectors(36), LABELS)
    with_words = Classifier.fit(TEXTS, vectors(36), LABELS, BOTH)
    asked = [f"{text}, please" for text in WORDS.values()]
    assert with_words.predict(asked, vectors(3, seed=1)) == list(WORDS)
    assert without.predict(asked, vectors(3, seed=1)) != list(WORDS)


@pytest.mark.parametrize("settings", [Settings(), BOTH, Settings(balanced=True)])
@pytest.mark.parametrize("labels", [3, 2])
def test_a_head_says_the_same_after_it_was_kept(settings: Settings, labels: int, tmp_path: Path) -> None:
    rows = 12 * labels
    head = Classifier.fit(TEXTS[:rows], telling(LABELS[:rows]), LABELS[:rows], settings)
    chances = head.predict_proba(TEXTS, telling(LABELS, seed=1))
    assert chances.shape == (36, labels)
    np.testing.assert_allclose(chances.sum(axis=1), 1.0, atol=1e-5)
    written = head.save(tmp_path / "head", CARD_OF)
    again, card = Classifier.load(tmp_path / "head")
    np.testing.assert_array_equal(again.predict_proba(TEXTS, telling(LABELS, seed=1)), chances)
    assert card == written
    assert (card.labels, card.settings, card.rows) == (head.labels, settings, len(TEXTS))


def test_the_second_of_two_labels_is_told_from_the_first() -> None:
    head = Classifier.fit(TEXTS[:24], telling(LABELS[:24]), LABELS[:24])
    assert head.predict(TEXTS[:24], telling(LABELS[:24], seed=1)) == LABELS[:24]


def test_a_new_head_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    Classifier.fit(TEXTS, telling(LABELS), LABELS).save(tmp_path, CARD_OF)
    Classifier.fit(TEXTS[:24], telling(LABELS[:24]), LABELS[:24]).save(tmp_path, CARD_OF)
    assert Classifier.load(tmp_path)[0].labels == ["delivery", "refund"]
    assert len(list(tmp_path.iterdir())) == 2


def test_nothing_in_a_head_can_be_executed(tmp_path: Path) -> None:
    card = Classifier.fit(TEXTS, telling(LABELS), LABELS, BOTH).save(tmp_path, CARD_OF)
    with np.load(tmp_path / card.weights, allow_pickle=False) as numbers:
        assert all(array.dtype.kind in "fu" for array in numbers.values())


def test_a_damaged_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no head"):
        Classifier.load(tmp_path)
    card = Classifier.fit(TEXTS, telling(LABELS), LABELS).save(tmp_path, CARD_OF)
    weights = tmp_path / card.weights
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match="not as it was written"):
        Classifier.load(tmp_path)
    (tmp_path / CARD).write_text("{")
    with pytest.raises(InputError, match="holds no head"):
        Classifier.load(tmp_path)


def test_rows_that_cannot_teach_anything_are_refused() -> None:
    with pytest.raises(InputError, match="at least two labels"):
        Classifier.fit(TEXTS[:5], vectors(5), ["same"] * 5)
    with pytest.raises(InputError, match="too few or too short"):
        Classifier.fit(["a", "b"], vectors(2), ["x", "y"], Settings(words=NGrams(1, 2)))


def test_the_card_is_for_people(tmp_path: Path) -> None:
    head = Classifier.fit(TEXTS, telling(LABELS), LABELS)
    head.save(tmp_path, msgspec.structs.replace(CARD_OF, figures={"accuracy": 0.9}))
    text = (tmp_path / CARD).read_text()
    assert all(part in text for part in ('"data": "made up"', '"rows": 36', '"accuracy": 0.9', '"encoder": "none"', '"created": "20'))
