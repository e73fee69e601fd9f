"""What holds for every row of the table of system calls."""

import sys
from functools import cache
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import inspect as shapes

from kernos.syscalls import NAMES, ROWS, TABLE, Call, Row
from kernos.syscalls.table import fields_of, request_decoder
from kernos.syscalls.wire import RequestHeader

DECODER = request_decoder()
each_row = pytest.mark.parametrize("row", TABLE, ids=NAMES)
few = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@cache
def examples(kind: type) -> st.SearchStrategy[Any]:
    return values(shapes.type_info(kind))


def values(shape: shapes.Type) -> st.SearchStrategy[Any]:
    """Values of a type, within its bounds but small."""
    match shape:
        case shapes.StructType(cls, fields):
            made = {field.name: values(field.type) for field in fields}
            return st.fixed_dictionaries(made).map(lambda found: cls(**found))
        case shapes.UnionType(types):
            return st.one_of([values(kind) for kind in types])
        case shapes.ListType(item, low, high):
            return st.lists(values(item), min_size=low or 0, max_size=min(high or 3, (low or 0) + 3))
        case shapes.DictType(key, value):
            return st.dictionaries(values(key), values(value), max_size=3)
        case _:
            return scalars(shape)


def scalars(shape: shapes.Type) -> st.SearchStrategy[Any]:
    match shape:
        case shapes.StrType(low, high, None):
            return st.text(min_size=low or 0, max_size=min(high or 50, (low or 0) + 50))
        case shapes.StrType(_, high, str(pattern)):
            return st.from_regex(pattern, fullmatch=True).filter(lambda text: high is None or len(text) <= high)
        case shapes.BytesType(low, high):
            return st.binary(min_size=low or 0, max_size=min(high or 50, 50))
        case shapes.IntType():
            return st.integers(shape.ge if shape.ge is not None else -(1 << 62), shape.le if shape.le is not None else 1 << 62)
        case shapes.FloatType():
            return st.floats(shape.ge if shape.ge is not None else shape.gt, shape.le, exclude_min=shape.gt is not None, allow_nan=False)
        case shapes.LiteralType(allowed):
            return st.sampled_from(allowed)
        case shapes.BoolType():
            return st.booleans()
        case shapes.NoneType():
            return st.none()
    raise AssertionError(f"no values are known for {shape}")


def unbounded(shape: shapes.Type, at: str) -> list[str]:
    """The places in a type where a peer could send as much as it likes."""
    match shape:
        case shapes.StructType(fields=fields):
            return [place for field in fields for place in unbounded(field.type, f"{at}.{field.name}")]
        case shapes.UnionType(types):
            return [place for kind in types for place in unbounded(kind, at)]
        case shapes.ListType(item, max_length=high):
            return unbounded(item, f"{at}[]") + [at] * (high is None)
        case shapes.DictType(key, value, max_length=high):
            return unbounded(key, f"{at}{{}}") + unbounded(value, f"{at}{{}}") + [at] * (high is None)
        case shapes.StrType(max_length=high) | shapes.BytesType(max_length=high):
            return [at] * (high is None)
        case shapes.IntType() | shapes.FloatType() | shapes.BoolType() | shapes.NoneType() | shapes.LiteralType():
            return []
    return [f"{at} may be anything"]


def test_no_name_and_no_request_stands_twice() -> None:
    assert len(NAMES) == len(ROWS) == len(TABLE)


def test_every_call_of_the_families_is_in_the_table() -> None:
    modules = {sys.modules[row.call.__module__] for row in TABLE}
    calls = {
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Call) and value.__module__ == module.__name__
    }
    assert calls == set(ROWS)


@each_row
def test_the_tag_is_family_and_verb(row: Row) -> None:
    family, _, verb = row.name.partition(".")
    assert row.call.__module__ == f"kernos.syscalls.{family}"
    assert verb.replace("_", "").isalpha()
    assert row.call.__doc__


@each_row
def test_needs_are_made_of_fields_of_the_request(row: Row) -> None:
    for thing, action in row.needs:
        assert thing
        assert action.isalpha()
        assert set(fields_of(thing)) - {"whose", "raised"} <= set(row.call.__struct_fields__)


@each_row
def test_whose_stands_where_something_is_named(row: Row) -> None:
    asks = any({"whose", "raised"} & set(fields_of(thing)) for thing, _ in row.needs)
    assert not asks or {"pid", "context", "principal"} & set(row.call.__struct_fields__)


@each_row
def test_no_request_can_be_large_by_surprise(row: Row) -> None:
    assert unbounded(shapes.type_info(row.call), row.name) == []


def test_the_header_is_bounded() -> None:
    assert unbounded(shapes.type_info(RequestHeader), "header") == []


@pytest.mark.parametrize("kind", [str, bytes, list[int], dict[str, int], Any, tuple[str, ...]], ids=str)
def test_the_search_for_bounds_finds_their_absence(kind: Any) -> None:
    assert unbounded(shapes.type_info(kind), "here") != []


@each_row
@few
@given(data=st.data())
def test_requests_survive_the_wire(row: Row, data: st.DataObject) -> None:
    request = data.draw(examples(row.call))
    assert DECODER.decode(msgspec.msgpack.encode(request)) == request


@each_row
@few
@given(data=st.data())
def test_replies_survive_the_wire(row: Row, data: st.DataObject) -> None:
    reply = data.draw(examples(row.reply))
    assert row.reply_decoder.decode(msgspec.msgpack.encode(reply)) == reply


@pytest.mark.parametrize("row", [row for row in TABLE if row.event], ids=lambda row: row.name)
@few
@given(data=st.data())
def test_events_survive_the_wire(row: Row, data: st.DataObject) -> None:
    event = data.draw(examples(row.event))
    assert row.event_decoder.decode(msgspec.msgpack.encode(event)) == event


@each_row
@few
@given(data=st.data())
def test_a_request_of_tomorrow_is_read_by_a_kernel_of_today(row: Row, data: st.DataObject) -> None:
    request = data.draw(examples(row.call))
    fields = msgspec.to_builtins(request, builtin_types=(bytes,))
    assert DECODER.decode(msgspec.msgpack.encode(fields | {"field_of_tomorrow": [1]})) == request
