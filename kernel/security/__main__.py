"""Answers `policy.*` calls about policies in files, without a kernel: for administrators before they apply one, and for CI.

python -m kernos.kernel.security [FOLDER] < call > reply

The call is encoded as on the wire, and so is the reply; with exit code 1 it is the body of an error. FOLDER is the policy that is asked.
"""

import sys
from pathlib import Path
from typing import Any

from kernos.syscalls.call import Call
from kernos.syscalls.errors import BadRequestError, KernosError, PolicyRefusedError
from kernos.syscalls.policy import CheckPolicy, ComparePolicies, ExplainDecision, ListHolders, ListRights, ScorePolicy
from kernos.syscalls.table import request_decoder
from kernos.syscalls.wire import encode

from .explain import can, who, why
from .policy import Policy, load_policy
from .review import compare, review
from .rules import PolicyError
from .score import score


def main() -> int:
    """Answer one call."""
    call = request_decoder().decode(sys.stdin.buffer.read())
    try:
        reply, code = answer(call, sys.argv[1:]), 0
    except PolicyError as error:
        reply, code = PolicyRefusedError(str(error)).body(), 1
    except KernosError as error:
        reply, code = error.body(), 1
    sys.stdout.buffer.write(encode(reply))
    return code


def answer(call: Call[Any], folders: list[str]) -> Any:
    """The reply; raises what the kernel would."""
    match call:
        case CheckPolicy():
            return review(call.files)[1]
        case ComparePolicies():
            return compare(call.old, call.new)
    if not folders:
        raise BadRequestError("This call is about a policy. Name its folder.")
    return _ask(load_policy(Path(folders[0])), call)


def _ask(policy: Policy, call: Call[Any]) -> Any:
    match call:
        case ExplainDecision():
            return why(policy, call.subject, call.object, call.action, call.labels)
        case ListRights():
            return can(policy, call.subject)
        case ListHolders():
            return who(policy, call.object, call.action)
        case ScorePolicy():
            return score(policy)
    raise BadRequestError("This call needs a kernel.")


if __name__ == "__main__":
    sys.exit(main())
