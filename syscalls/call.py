"""What a system call is: a frozen struct that carries the type of its own reply.

`class Generate(StreamingCall[Chunk, Generation], tag="model.generate")` is all a call needs, so that one generic
`call(c: Call[R]) -> R` is fully typed and no stub per call is written.
"""

from typing import Generic, TypeVar

import msgspec

R = TypeVar("R", covariant=True)
E = TypeVar("E", covariant=True)


class Call(msgspec.Struct, Generic[R], frozen=True, kw_only=True, tag_field="call"):
    """A request answered by one `R`."""


class StreamingCall(Call[R], Generic[E, R], frozen=True, kw_only=True):
    """A request answered by any number of events `E` and then one `R`; made with `call`, the events are left out."""


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The reply of a call that has nothing to tell but that it was carried out."""
