"""The table of errors is complete, and every error survives the wire."""

import re
from collections.abc import Iterator

import msgspec
import pytest

from kernos.syscalls import errors
from kernos.syscalls.errors import ERRORS, ErrorBody, KernosError, raised


def subclasses(root: type[KernosError]) -> Iterator[type[KernosError]]:
    for error in root.__subclasses__():
        yield error
        yield from subclasses(error)


def test_every_error_is_in_the_table_under_a_code_of_its_own() -> None:
    # Those of the agents' library are its own and never on the wire.
    found = [error for error in subclasses(KernosError) if error.__module__ == errors.__name__]
    assert sorted(ERRORS) == sorted({error.code for error in found})
    assert len(ERRORS) == len(found)


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_every_error_says_what_to_do(error: type[KernosError]) -> None:
    assert re.fullmatch(r"[a-z_]{3,32}", error.code)
    assert error.__name__.endswith("Error")
    assert error.__doc__
    assert error.advice != KernosError.advice
    assert error.advice.endswith(".")
    assert vars(errors)[error.__name__] is error


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_every_error_survives_the_wire(error: type[KernosError]) -> None:
    sent = error("It went wrong.", retry_after=1.5, subject="app:a")
    body = msgspec.msgpack.decode(msgspec.msgpack.encode(sent.body()), type=ErrorBody)
    back = raised(body)
    assert type(back) is error
    assert (back.message, back.retry_after, back.details) == ("It went wrong.", 1.5, {"subject": "app:a"})


def test_an_unknown_code_is_raised_as_the_root() -> None:
    assert type(raised(ErrorBody("of_tomorrow", "New."))) is KernosError


def test_a_body_is_cut_to_its_bounds() -> None:
    error = KernosError("m" * 5_000)
    error.details = {"d" * 100: "v" * 5_000}
    body = error.body()
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(body), type=ErrorBody) == body
