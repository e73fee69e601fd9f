"""One table of errors: code, exception, whether the same call may be tried again, and what the caller can do.

A kernel answers with an `ErrorBody`; the SDK raises the exception of its code. Every message says what happened, to what, and what to
do next. Each class says when *you* get it, and which sibling it is not.
"""

from typing import ClassVar

import msgspec

from .bounds import Labels, ShortText


class ErrorBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error on the wire. `details` are facts by name; `retry_after` is in seconds."""

    code: ShortText
    message: ShortText
    details: Labels = {}
    retry_after: float | None = None


class KernosError(Exception):
    """The root of every error of this table; an unknown code of a newer kernel is raised as this class itself."""

    code: ClassVar[str] = "unknown"
    retry: ClassVar[bool] = False
    advice: ClassVar[str] = "See the message; a newer SDK may know this error by name."

    def __init__(self, message: str, *, retry_after: float | None = None, **details: str) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after
        self.details = details

    def body(self) -> ErrorBody:
        """The error as it crosses the wire, cut to its bounds."""
        details = {name[:64]: value[:1_024] for name, value in self.details.items()}
        return ErrorBody(self.code, self.message[:1_024], details, self.retry_after)


class BadRequestError(KernosError):
    """A field is missing, of the wrong type or out of its bounds, or the frames are not a message of this protocol."""

    code = "bad_request"
    advice = "Correct the field that the message names."


class UnknownCallError(KernosError):
    """The kernel has no call of this name; it may be older than the SDK."""

    code = "unknown_call"
    advice = "Compare the ABI versions (`kernos status`); use a call of the older one or update the kernel."


class AbiMismatchError(KernosError):
    """The client speaks another major version of the ABI."""

    code = "abi_mismatch"
    advice = "Install the SDK of the kernel's major ABI version."


class DeniedError(KernosError):
    """The policy does not allow this. Details: `subject`, `object`, `action`, `policy` (its hash), `rule` (empty: no rule allows it)."""

    code = "denied"
    advice = "Ask the administrator for a policy line that allows subject, object and action."


class ApprovalNeededError(KernosError):
    """The call may be made once somebody who has the right has approved it. Details: `approval` (its id), `labels`, `sink`.

    Not `DeniedError`: nothing is wrong with the policy. Nothing was done yet.
    """

    code = "approval_needed"
    advice = "Have it approved (`process.approve`), then make the very same call again."


class PolicyRefusedError(KernosError):
    """The policy was not taken: it has a mistake, fails its tests, locks its author out or gives away what its author lacks.

    The one in force stays. The message is the first finding; details: `errors` (their number), `policy` (the hash of the refused one).
    """

    code = "policy_refused"
    advice = "Run `kernos policy check`, which shows all that is wrong with it, and correct the lines that it names."


class NotYoursError(KernosError):
    """The call names an agent that does not exist or that this connection's principal did not spawn."""

    code = "not_yours"
    advice = "Spawn an agent with `process.spawn` and name its pid; an agent that has ended needs a successor."


class NotFoundError(KernosError):
    """The model, context, file, tool or process does not exist, or is not visible to the caller."""

    code = "not_found"
    advice = "Check the name; the family's list call shows what there is."


class ConflictError(KernosError):
    """The thing is not in the state that the call expects: a version has moved on, a tool is served already, a model is in use."""

    code = "conflict"
    advice = "Read the current state and decide again."


class WindowExceededError(KernosError):
    """The prompt is longer than the model can see. Not `LimitError`: no quota would help."""

    code = "window_exceeded"
    advice = "Send less, start a new context, or use a model with a larger window."


class LimitError(KernosError):
    """A limit of the principal or of the kernel is used up. Not `BusyError`: others may still be served.

    Details of a principal's limit: `principal`, `limit`, `allowed`, `used`; `retry_after` where waiting helps.
    """

    code = "limit"
    advice = "Come back after `retry_after` if it is given; else end something of your own, or ask the administrator for a higher limit."


class BusyError(KernosError):
    """A queue is full; nothing was done."""

    code = "busy"
    retry = True
    advice = "Try again after `retry_after` seconds."


class DeadlineError(KernosError):
    """The call's deadline passed before it was answered. What it did so far was undone or, for a generation, thrown away."""

    code = "deadline"
    advice = "Allow more time, or ask for less."


class CancelledError(KernosError):
    """The caller cancelled the call, its agent exited, or the agent was interrupted. Not `AgentKilledError`: the agent may go on."""

    code = "cancelled"
    advice = "Nothing to do: somebody on your side wanted this."


class AgentKilledError(KernosError):
    """The agent was terminated or killed while this call was in flight."""

    code = "agent_killed"
    advice = "Spawn a new agent if there is still work to do."


class ModelUnavailableError(KernosError):
    """The model is in the store but cannot be used: it failed to load, or its device has failed for good."""

    code = "model_unavailable"
    advice = "See `kernos models` and `kernos logs` for the reason."


class DeviceError(KernosError):
    """The device could not serve this one request, and would not serve it a second time either."""

    code = "device"
    advice = "See the message; other requests are not concerned."


class ToolError(KernosError):
    """The tool answered with an error, or the agent that serves it went away."""

    code = "tool"
    advice = "See the tool's own message; check the arguments against its schema."


class StorageFullError(KernosError):
    """The disk that holds the kernel's database is full; nothing of this call was kept. Not `LimitError`: no quota of yours is used up."""

    code = "storage_full"
    retry = True
    advice = "Delete something or have the administrator make room, then try again."


class StorageError(KernosError):
    """The disk or the database failed: it cannot be read, written or trusted. Details: `reason`, SQLite's name for it.

    The message says whether the call may still have been kept, and whether the kernel goes on writing.
    """

    code = "storage"
    advice = "Have the administrator look at the disk and at the kernel's log; `kernos restore` brings a backup back."


class StoppingError(KernosError):
    """The kernel is being stopped and takes no new calls, or ended this one."""

    code = "stopping"
    retry = True
    advice = "Try again when the kernel is back."


class KernelRestartedError(KernosError):
    """The connection was lost while the call was in flight, and nobody can say whether it was carried out.

    Mutating calls carry an idempotency key: made again with the same key they are applied once.
    """

    code = "kernel_restarted"
    retry = True
    advice = "Make the call again."


class CutOffError(KernosError):
    """The client did not read its answers, its queue in the kernel was full, and its calls in flight were ended."""

    code = "cut_off"
    retry = True
    advice = "Read answers as they come (or ask for fewer at once), then connect again."


class UnreachableError(KernosError):
    """There is no kernel to talk to, or it refused this key. Raised by the SDK; never on the wire."""

    code = "unreachable"
    retry = True
    advice = "Start a kernel with `kernos serve`; check the key."


class RefusedError(UnreachableError):
    """The kernel does not take this key: it is not enrolled, was revoked or replaced, or was lent to another process.

    Raised by the SDK at the handshake; on the wire for a connection whose key was revoked while it stood.
    """

    code = "refused"
    retry = False
    advice = "Ask the administrator for a key (`kernos principal add`), or start the app with `kernos run`."


class InternalError(KernosError):
    """A defect of the kernel. Details: `story`, what happened to the process before."""

    code = "internal"
    advice = "Please report it with the kernel's log."


ERRORS: dict[str, type[KernosError]] = {
    error.code: error for parent in KernosError.__subclasses__() for error in (parent, *parent.__subclasses__())
}
"""The whole table, by code."""


def raised(body: ErrorBody) -> KernosError:
    """The exception for an error from the wire."""
    error = ERRORS.get(body.code, KernosError)(body.message, retry_after=body.retry_after)
    error.details = dict(body.details)
    return error
