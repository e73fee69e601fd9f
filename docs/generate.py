"""Writes `docs/syscalls.md`, the reference of the system calls, from the table and the docstrings of `syscalls/`.

python -m docs.generate            writes the page
python -m docs.generate --check    says whether it is up to date, and exits with 1 if it is not
"""

import inspect
import sys
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal, get_args, get_origin

import msgspec
from msgspec import inspect as shapes

from kernos.syscalls import bounds, errors, version
from kernos.syscalls.table import TABLE, Row

from .source import aliases, annotations, notes

PAGE: Final = Path(__file__).with_name("syscalls.md")

_HEAD = """# System calls

<!-- Made by `python -m docs.generate` from syscalls/*.py. Do not edit. -->

ABI version {abi}. How calls travel is told in [wire.md](wire.md).

{rule}

Under each call stand its *needs*, what the policy must allow, as `object : action`. `{{field}}` is taken from the request, and
`{{whose}}` is `own` where the process, context or principal that the request names is the caller's, `shared` where it is a context that
its owner shares with the caller's owner, else its owner; `{{raised}}` is the same, but only where the call makes a process more urgent or
weigh more. A need whose field the request leaves out does not apply.
"""


def main() -> int:
    """Write the page, or check it."""
    page = render()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(page, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page:
        print("docs/syscalls.md does not say what syscalls/ says. Run `python -m docs.generate`, and commit the page.", file=sys.stderr)
        return 1
    return 0


def render() -> str:
    """The whole page."""
    parts = [_HEAD.format(abi=f"{version.MAJOR}.{version.MINOR}", rule=inspect.cleandoc(version.__doc__ or ""))]
    families = [(name, list(rows)) for name, rows in groupby(TABLE, lambda row: row.name.partition(".")[0])]
    parts.append("\n".join(_overview(families)))
    for name, rows in families:
        parts.extend(_family(name, rows))
    parts.extend(_bounds())
    parts.append(_errors())
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _overview(families: list[tuple[str, list[Row]]]) -> Iterator[str]:
    yield from ("| family | calls |", "|---|---|")
    for name, rows in families:
        calls = ", ".join(f"[{row.name}](#{row.name.replace('.', '')})" for row in rows)
        yield f"| [{name}](#{name}) | {calls} |"
    yield "\nThe shapes that several families share are under [bounds](#bounds), the errors under [errors](#errors)."


def _family(name: str, rows: list[Row]) -> Iterator[str]:
    module = sys.modules[rows[0].call.__module__]
    yield f"## {name}\n\n{inspect.cleandoc(module.__doc__ or '')}"
    for row in rows:
        yield _call(row, module)
    yield f"### Types of {name}"
    yield _aliases(module)
    calls = {row.call for row in rows}
    for struct in vars(module).values():
        if inspect.isclass(struct) and struct.__module__ == module.__name__ and struct not in calls:
            yield f"#### {struct.__name__}\n\n{inspect.getdoc(struct)}\n\n{_fields(struct, module)}"


def _call(row: Row, module: ModuleType) -> str:
    facts = [f"- reply: `{row.reply.__name__}`"]
    if row.event is not None:
        facts.append(f"- streams: `{row.event.__name__}`")
    needs = " and ".join(f"`{thing} : {action}`" for thing, action in row.needs)
    facts += [f"- needs: {needs or 'nothing: open to every known principal'}", f"- cost: {row.cost.value}"]
    flags = {
        "mutates: takes an idempotency key": row.mutates,
        "also on the control socket": row.control,
        "must name an agent": row.agent,
        "taints: the agent that gets the reply carries its labels": row.reads,
        "after a restart of the kernel, made again by its caller alone: what it did cannot be known": row.outside,
    }
    facts += [f"- {text}" for text, holds in flags.items() if holds]
    return f"### {row.name}\n\n{inspect.getdoc(row.call)}\n\n{_fields(row.call, module)}\n\n" + "\n".join(facts)


def _fields(struct: type[Any], module: ModuleType) -> str:
    shape = shapes.type_info(struct)
    assert isinstance(shape, shapes.StructType)  # noqa: S101  (every struct of the ABI is one)
    if not shape.fields:
        return "No fields."
    types, texts = annotations(module), notes(module)
    lines = ["| field | type | bounds | default | |", "|---|---|---|---|---|"]
    for field in shape.fields:
        full = f"{struct.__name__}.{field.name}"
        cells = [f"`{field.name}`", f"`{types[full]}`", bounds_of(field.type), _default(field), texts.get(full, "")]
        lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    return "\n".join(lines)


def bounds_of(shape: shapes.Type) -> str:
    """The bounds of a type in words; empty where its name or its own table says them."""
    match shape:
        case shapes.UnionType(types):
            return "; ".join(text for text in map(bounds_of, types) if text)
        case shapes.ListType(item_type=item) | shapes.VarTupleType(item_type=item):
            return _joined(_range(shape.min_length, shape.max_length, "items"), _each(item))
        case shapes.DictType(key_type=key, value_type=value):
            pairs = _range(shape.min_length, shape.max_length, "pairs")
            return _joined(pairs, f"keys: {bounds_of(key)}", f"values: {bounds_of(value)}")
        case shapes.StrType(low, high, pattern):
            return _joined(_range(low, high, "characters"), f"`{pattern}`" if pattern else "")
        case shapes.BytesType(low, high):
            return _range(low, high, "bytes")
        case shapes.IntType() | shapes.FloatType():
            return _interval(shape)
        case shapes.LiteralType(values):
            return ", ".join(f"`{value}`" for value in values)
    return ""


def _each(item: shapes.Type) -> str:
    text = "" if isinstance(item, shapes.StructType) else bounds_of(item)
    return f"each: {text}" if text else ""


def _interval(shape: shapes.IntType | shapes.FloatType) -> str:
    signs = {"≥": shape.ge, ">": shape.gt, "≤": shape.le, "<": shape.lt}
    return ", ".join(f"{sign} {limit:,}" for sign, limit in signs.items() if limit is not None)


def _range(low: int | None, high: int | None, unit: str) -> str:
    if high is None:
        return ""
    if low == high:
        return f"{high:,} {unit}"
    return f"{low:,} to {high:,} {unit}" if low else f"at most {high:,} {unit}"


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _default(field: shapes.Field) -> str:
    if field.required:
        return "required"
    factory: Callable[[], Any] | Any = field.default_factory
    return f"`{field.default!r}`" if factory is msgspec.NODEFAULT else f"`{factory()!r}`"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _aliases(module: ModuleType) -> str:
    texts = notes(module)
    lines = ["| name | bounds | |", "|---|---|---|"]
    for name in aliases(module):
        cells = [f"`{name}`", bounds_of(_shape(getattr(module, name))), texts.get(name, "")]
        lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    return "\n".join(lines) if len(lines) > 2 else ""


def _shape(alias: Any) -> shapes.Type:
    # msgspec sorts the values of a literal, but their order may mean something.
    return shapes.LiteralType(get_args(alias)) if get_origin(alias) is Literal else shapes.type_info(alias)


def _bounds() -> Iterator[str]:
    yield f"## bounds\n\n{inspect.cleandoc(bounds.__doc__ or '')}"
    yield _aliases(bounds)
    texts = notes(bounds)
    limits = [(name, value) for name, value in vars(bounds).items() if isinstance(value, int)]
    yield "\n".join([f"- `{name}` = {value:,}: {texts[name]}" for name, value in limits])


def _errors() -> str:
    lines = ["| code | exception | again? | when | what to do |", "|---|---|---|---|---|"]
    for code, error in errors.ERRORS.items():
        cells = [f"`{code}`", f"`{error.__name__}`", "yes" if error.retry else "no", inspect.getdoc(error) or "", error.advice]
        lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    return f"## errors\n\n{inspect.cleandoc(errors.__doc__ or '')}\n\n" + "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
