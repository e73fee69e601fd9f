"""LoCoMo: long conversations of two people, and questions with the turns that answer them (Maharana et al., ACL 2024).

The file is `locomo10.json` of its authors, or some of its conversations, as `$KERNOS_DATA/locomo/locomo.json`. It may not be used
commercially, so it is not part of Kernos.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from .public import data_folder


@dataclass(frozen=True)
class Turn:
    """What somebody said; `text` begins with the name, and names a picture that was shown by its caption."""

    text: str
    time: float
    """Seconds since 1970: when its session began."""


@dataclass(frozen=True)
class Question:
    """A question, and the places of the turns that answer it."""

    text: str
    evidence: frozenset[int]


@dataclass(frozen=True)
class Conversation:
    """All turns of all sessions, in order."""

    turns: list[Turn]
    questions: list[Question]


def conversations() -> list[Conversation]:
    """Those in the file; ends the program with a hint if there is none."""
    path = data_folder() / "locomo" / "locomo.json"
    if not path.exists():
        raise SystemExit(
            f"There is no {path}. Put locomo10.json of https://github.com/snap-research/locomo there under this name, "
            "or name the folder that holds locomo/locomo.json in KERNOS_DATA."
        )
    return [_conversation(raw) for raw in json.loads(path.read_text("utf-8"))]


def _conversation(raw: dict[str, Any]) -> Conversation:
    said = raw["conversation"]
    sessions = sorted(int(key.removeprefix("session_")) for key in said if re.fullmatch(r"session_\d+", key))
    spoken = [(turn, _time(said[f"session_{number}_date_time"])) for number in sessions for turn in said[f"session_{number}"]]
    places = {turn["dia_id"]: place for place, (turn, _) in enumerate(spoken)}
    return Conversation([Turn(_text(turn), time) for turn, time in spoken], list(_questions(raw["qa"], places)))


def _questions(raw: list[dict[str, Any]], places: dict[str, int]) -> Iterator[Question]:
    """Those with evidence; ids such as `D8:6; D9:17` and `D30:05` are read as they are meant."""
    for question in raw:
        named = [f"D{int(session)}:{int(turn)}" for entry in question["evidence"] for session, turn in re.findall(r"D(\d+):(\d+)", entry)]
        if evidence := frozenset(places[name] for name in named if name in places):
            yield Question(question["question"], evidence)


def _text(turn: dict[str, Any]) -> str:
    picture = f" [shares image: {turn['blip_caption']}]" if turn.get("blip_caption") else ""
    return f"{turn['speaker']}: {turn['text']}{picture}"


def _time(text: str) -> float:
    return datetime.strptime(text, "%I:%M %p on %d %B, %Y").replace(tzinfo=UTC).timestamp()
