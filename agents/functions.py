"""`@tool`: an ordinary typed function that agents can call through the kernel.

    @tool
    def order_status(order: str, call: ToolCall) -> str:
        "Where an order of the calling customer is."

The type hints become the JSON schema of the arguments, the docstring becomes the description. A parameter of type `ToolCall` is not
part of the schema: it tells the function who calls. The function may be `async`; a plain one runs on a thread, so that it may block.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, ParamSpec, TypedDict, TypeVar, Unpack, get_type_hints, overload

import msgspec

from .schemas import schema_of

P = ParamSpec("P")
R = TypeVar("R")


class ToolCall(msgspec.Struct, frozen=True):
    """Who calls a tool, as the kernel stamped it."""

    caller: str
    """The principal of the calling app."""
    pid: int
    user: str | None
    """For whom the calling agent acts."""
    labels: tuple[str, ...] = ()
    """What it carries."""


class Marks(TypedDict, total=False):
    """What the kernel is told of a tool for the policy's sake; see `ServeTool`."""

    privileged: bool
    """It does what cannot be undone, or acts for somebody."""
    labels: list[str]
    """What its results carry, such as `untrusted`."""
    stateless: bool
    """Nothing of one call finds its way into another."""


@dataclass(frozen=True)
class ToolFunction(Generic[P, R]):
    """A function and what callers must know about it; called directly it is still the plain function."""

    function: Callable[P, R]
    name: str
    description: str
    arguments: type[msgspec.Struct]
    call_parameter: str | None
    """The parameter that takes the `ToolCall`."""
    marks: Marks

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the plain function."""
        return self.function(*args, **kwargs)

    @property
    def schema(self) -> str:
        """The JSON schema of the arguments."""
        return schema_of(self.arguments)

    def path(self, principal: str) -> str:
        """The full name of the tool when `principal` serves it: `app:shop` serves `shop/order_status`."""
        return f"{principal.partition(':')[2]}/{self.name}"


@overload
def tool(function: Callable[P, R], /) -> ToolFunction[P, R]: ...


@overload
def tool(**marks: Unpack[Marks]) -> Callable[[Callable[P, R]], ToolFunction[P, R]]: ...


def tool(function: Callable[..., Any] | None = None, /, **marks: Unpack[Marks]) -> Any:
    """Make a tool of a function; with marks: `@tool(stateless=True)`."""
    return partial(_tool, marks) if function is None else _tool(marks, function)


def _tool(marks: Marks, function: Callable[P, R]) -> ToolFunction[P, R]:
    name = function.__name__
    description = inspect.getdoc(function)
    if not description:
        raise TypeError(f"The tool {name} has no docstring. Models choose tools by their description: write one.")
    hints = get_type_hints(function, include_extras=True)
    parameters = inspect.signature(function).parameters.values()
    call_parameter = next((parameter.name for parameter in parameters if hints.get(parameter.name) is ToolCall), None)
    fields = [_field(name, parameter, hints) for parameter in parameters if parameter.name != call_parameter]
    arguments = msgspec.defstruct(name, fields, kw_only=True, frozen=True, forbid_unknown_fields=True)
    return ToolFunction(function, name, description.partition("\n\n")[0][:1_024], arguments, call_parameter, marks)


def _field(tool_name: str, parameter: inspect.Parameter, hints: dict[str, Any]) -> tuple[str, Any] | tuple[str, Any, Any]:
    if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
        raise TypeError(f"The parameter {parameter} of the tool {tool_name} cannot be given by name. Use plain parameters.")
    if parameter.name not in hints:
        raise TypeError(
            f"The parameter {parameter.name} of the tool {tool_name} has no type. Its schema is made from the type hint: add one."
        )
    field = (parameter.name, hints[parameter.name])
    return field if parameter.default is parameter.empty else (*field, parameter.default)
