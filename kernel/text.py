"""Between text and tokens: the kernel speaks text to apps and token ids to devices.

A `Tokenizer` belongs to a stored model. It renders conversations with the model's own chat template in a sandboxed jinja2, equal to
transformers' rendering by test, counts and encodes with Rust tokenizers, and turns produced tokens back into text piece by piece.
"""

import json
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer as RustTokenizer

from kernos.syscalls.errors import BadRequestError
from kernos.syscalls.model import Message

PLAIN_TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
"""For base models that ship no template of their own."""


_OVERHEAD = 8
"""Tokens that are taken for it where the template refuses so plain a conversation."""


class Tokenizer:
    """Text to tokens and back, for the model in a folder."""

    def __init__(self, folder: Path, special: dict[str, str]) -> None:
        """`special` maps `bos_token`, `eos_token`, … to their texts; templates refer to them."""
        self.rust = RustTokenizer.from_file(str(folder / "tokenizer.json"))
        self.rust.no_truncation()
        self.rust.no_padding()
        template = folder / "chat_template.jinja"
        self._template_text = template.read_text("utf-8") if template.exists() else PLAIN_TEMPLATE
        self._special = special

    def render(self, messages: list[Message]) -> str:
        """The prompt for a conversation, up to where the assistant's answer begins."""
        turns = [{"role": message.role, "content": message.text} for message in messages]
        try:
            return str(self._template.render(messages=turns, tools=None, documents=None, add_generation_prompt=True, **self._special))
        except Exception as error:  # a template is a program of others
            raise BadRequestError(f"The model's chat template cannot take these messages: {error}. Check the order of roles.") from None

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Token ids; with `special`, also those that the model wants around a text (encoders)."""
        return list(self.rust.encode(text, add_special_tokens=special).ids)

    def encode_all(self, texts: list[str], window: int) -> list[list[int]]:
        """Token ids of texts for an encoder, cut to its window with the closing special token kept."""
        ids = [list(encoding.ids) for encoding in self.rust.encode_batch(texts, add_special_tokens=True)]
        return [row if len(row) <= window else row[: window - 1] + row[-1:] for row in ids]

    def count(self, texts: list[str]) -> list[int]:
        """Tokens of messages with these texts in a prompt, each with what the chat template puts around it."""
        return [len(encoding.ids) + self.overhead for encoding in self.rust.encode_batch(texts, add_special_tokens=False)]

    @cached_property
    def overhead(self) -> int:
        """Tokens that the chat template adds to a message."""
        pair = [Message("user", "x"), Message("assistant", "x")]
        try:
            one, two = (len(self.encode(self.render(pair * count))) for count in (1, 2))
        except BadRequestError:
            return _OVERHEAD
        return max(0, -(-(two - one) // 2) - len(self.encode("x")))

    def decoder(self) -> "TextStream":
        """A fresh decoder for one answer."""
        return TextStream(self.rust)

    @cached_property
    def _template(self) -> Any:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation])
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = lambda form: datetime.now().astimezone().strftime(form)
        return environment.from_string(self._template_text)


class TextStream:
    """Tokens in, text out, as soon as it is whole characters.

    What a token means depends on those before it, so the last shown ones are decoded together with the new ones and their text is taken
    off the front. Not the `DecodeStream` of tokenizers: it has no end, and raises where later bytes take back what was shown.
    """

    def __init__(self, rust: RustTokenizer) -> None:
        self._rust = rust
        self._ids: list[int] = []
        self._shown = 0
        """How many of `_ids` have been shown."""

    def push(self, tokens: list[int]) -> str:
        """The text that these tokens complete."""
        return "".join(self._step(token) for token in tokens)

    def flush(self) -> str:
        """The text of what was held back, when no more tokens come: an unfinished character shows as U+FFFD."""
        text = self._new()
        self._ids, self._shown = [], 0
        return text

    def _step(self, token: int) -> str:
        self._ids.append(token)
        text = self._new()
        if not text or text.endswith("\ufffd"):
            return ""
        self._ids, self._shown = self._ids[self._shown :], len(self._ids) - self._shown
        return text

    def _new(self) -> str:
        before = self._rust.decode(self._ids[: self._shown], skip_special_tokens=True)
        return str(self._rust.decode(self._ids, skip_special_tokens=True))[len(before) :]


class _Generation(Extension):
    """`{% generation %}` marks the assistant's words for training; for a prompt it means nothing."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: tuple[str, str] | None = None, sort_keys: bool = False
) -> str:
    # jinja2's own filter escapes HTML, which would change prompts. The arguments are those of transformers.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> None:
    raise TemplateError(message)
