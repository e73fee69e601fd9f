"""Questions of an exact length for any engine: as messages, which the kernel takes, and as the token ids that it makes of them."""

from dataclasses import dataclass

from kernos.kernel.devices.modelstore import ModelStore
from kernos.kernel.text import Tokenizer
from kernos.syscalls.model import Message

from .kernel import models_folder
from .turns import LONGEST, QUESTION, notes


@dataclass(frozen=True)
class Question:
    """The same prompt twice."""

    messages: list[Message]
    ids: list[int]


class Questions:
    """Makes questions for a stored model."""

    def __init__(self, model: str) -> None:
        self.model = model
        store = ModelStore(models_folder())
        manifest = store.manifest(model)
        special = {name: getattr(manifest, name) or "" for name in ("bos_token", "eos_token", "pad_token")}
        self._tokenizer = Tokenizer(store.path(model), special)

    def ask(self, name: str, tokens: int, question: str = QUESTION) -> Question:
        """One of exactly so many tokens, which begins like none of another name."""
        sentences = max(0, (tokens - len(self._ids(notes(name, 0, 0, question)))) // LONGEST)
        words = 1
        while missing := tokens - len(ids := self._ids(messages := notes(name, sentences, words, question))):
            words += missing
        return Question(messages, ids)

    def _ids(self, messages: list[Message]) -> list[int]:
        return self._tokenizer.encode(self._tokenizer.render(messages))
