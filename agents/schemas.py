"""Structured output: JSON schemas made from Python types, and answers read back as these types.

The kernel keeps a model to the schema while it decodes, so an answer can be cut short but never be of the wrong shape.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from kernos.syscalls.errors import KernosError
from kernos.syscalls.model import Generation

T = TypeVar("T")


class UnfinishedError(KernosError):
    """The answer reached `max_tokens` before its JSON document was complete. Never on the wire."""

    code = "unfinished"
    advice = "Allow more `max_tokens`, or ask for a smaller structure."


def schema_of(kind: Any) -> str:
    """The JSON schema of a type as one self-contained document."""
    schema = _closed(msgspec.json.schema(kind))
    if root := schema.pop("$ref", None):
        definitions = schema["$defs"]
        schema = definitions[root.removeprefix("#/$defs/")]
        if definitions := {name: each for name, each in definitions.items() if each is not schema or root in str(definitions)}:
            schema = schema | {"$defs": definitions}
    return msgspec.json.encode(schema).decode()


def schema_of_choice(options: Sequence[str]) -> str:
    """The JSON schema of one text out of several."""
    return msgspec.json.encode({"type": "string", "enum": list(options)}).decode()


def read_answer(answer: Generation, kind: type[T]) -> T:
    """An answer made under the schema of `kind`, as a `kind`."""
    if answer.finish == "length":
        raise UnfinishedError(
            f"The answer ended after {answer.usage.generated_tokens} tokens in the middle of its JSON: {answer.text[-80:]!r}."
        )
    return msgspec.json.decode(answer.text, type=kind)


def _closed(schema: Any) -> Any:
    # Unless a schema forbids them, a model may add properties of its own without end.
    match schema:
        case {"properties": _}:
            return {"additionalProperties": False} | {key: _closed(value) for key, value in schema.items()}
        case dict():
            return {key: _closed(value) for key, value in schema.items()}
        case list():
            return [_closed(value) for value in schema]
    return schema
