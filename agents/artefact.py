"""An artefact: numbers that were learned, in a folder, with a card that says what they are and where they come from.

    written = save(folder, Card("sentiment", "mine.csv", rows=800, encoder="minilm"), {"weights": weights})
    card, numbers = load(folder, Card)

`card.json` is for people as much as for programs. The numbers stand beside it in a file that holds nothing to execute and is named after
what is in it, so that a card never goes with other numbers than its own: a crash between the two leaves the old artefact whole.
"""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import numpy as np

from .rows import InputError

CARD: Final = "card.json"


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """What every head tells of itself; a kind of head adds its own fields."""

    task: str
    data: str
    """The file or the set that it was trained on."""
    rows: int
    encoder: str
    figures: dict[str, float] = {}
    """What was measured, on rows that it was not trained on."""
    notes: str = ""
    created: str = msgspec.field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    labels: list[str] = []
    weights: str = ""
    """The file of the numbers, named after what is in it."""


C = TypeVar("C", bound=Card)


def save(folder: Path, card: C, numbers: Mapping[str, Any]) -> C:
    """Keep arrays in a folder, in place of what was there; the card as it was written."""
    packed = BytesIO()
    np.savez_compressed(packed, **numbers)
    name = _name(packed.getvalue())
    written = msgspec.structs.replace(card, weights=name)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(packed.getvalue())
    part = folder / f"{CARD}.part"
    part.write_bytes(msgspec.json.format(msgspec.json.encode(written)) + b"\n")
    part.replace(folder / CARD)  # from here on the new weights are the ones that count
    for old in folder.glob("weights-*.npz"):
        if old.name != name:
            old.unlink()
    return written


def load(folder: Path, kind: type[C]) -> tuple[C, dict[str, Any]]:
    """The card of a folder and its arrays by name; `InputError` if there is none, or it is damaged."""
    try:
        card = msgspec.json.decode((folder / CARD).read_bytes(), type=kind)
        packed = (folder / card.weights).read_bytes()
    except (OSError, msgspec.MsgspecError) as error:
        raise InputError(f"{folder} holds no head that can be used: {error}. Train one.") from None
    if card.weights != _name(packed):
        raise InputError(f"{folder / card.weights} is not as it was written. Train the head again.")
    with np.load(BytesIO(packed), allow_pickle=False) as numbers:
        return card, dict(numbers)


def as_array(words: list[str]) -> Any:
    """Words as an array of bytes, as arrays of text need pickle."""
    return np.frombuffer(msgspec.json.encode(words), dtype=np.uint8)


def as_words(array: Any) -> list[str]:
    """The words that `as_array` made an array of."""
    return msgspec.json.decode(array.tobytes(), type=list[str])


def _name(packed: bytes) -> str:
    return f"weights-{hashlib.sha256(packed).hexdigest()[:16]}.npz"
