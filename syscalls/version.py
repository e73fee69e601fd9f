"""The version of the ABI, and what it promises.

The ABI has a version of its own, apart from the package. `MINOR` rises when something is added: a call, a field with a default, an
error code. `MAJOR` rises when something is taken away or changes its meaning.

The rule: a kernel serves every client of its own `MAJOR`, older or newer `MINOR`. A newer client that asks an older kernel for a call
it does not know gets `UnknownCallError`; a field that one side does not know is ignored by it. A client of another `MAJOR` gets
`AbiMismatchError` for every call.
"""

from typing import Final

MAJOR: Final = 1
MINOR: Final = 0
