"""The only way in: decode, identify, authorise, charge, dispatch. Default deny.

A message passes these steps in this order and a failure at any of them is a typed error to its sender and nothing to anybody else. No
handler can be reached but through here. Who may do what is asked of `authority.py`, where labels may go of `flows.py`, and what a call with
an idempotency key was answered before is kept by `core/repeats.py`.
"""

import hashlib
import logging
from collections.abc import Sequence
from typing import Any

import msgspec

from kernos.syscalls.bounds import MAX_FRAMES, MAX_MESSAGE_BYTES
from kernos.syscalls.call import Call
from kernos.syscalls.errors import (
    AbiMismatchError,
    BadRequestError,
    BusyError,
    CancelledError,
    ConflictError,
    CutOffError,
    DeadlineError,
    InternalError,
    KernelRestartedError,
    KernosError,
    NotYoursError,
    RefusedError,
    StoppingError,
    UnknownCallError,
)
from kernos.syscalls.model import Generate
from kernos.syscalls.table import NAMES, ROWS, Cost, Row, request_decoder
from kernos.syscalls.version import MAJOR, MINOR
from kernos.syscalls.wire import Kind, ReplyHeader, RequestHeader, decode_request_header, encode

from .core.processes import Life, Process
from .core.repeats import Repeats
from .handlers import HANDLERS
from .host import Client, Delivery
from .limits import CALLS_IN_FLIGHT, CUT_OFF_RETRY_S
from .memory.records import Request
from .outflows import OUTFLOWS
from .system import System
from .tickets import LATER, Ticket

log = logging.getLogger(__name__)


class _Tag(msgspec.Struct):
    """Just the name of a call, to tell an unknown call from a bad one."""

    call: str = ""


class Gate:
    """Checks every message and keeps the tickets of the calls in flight."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.in_flight: dict[tuple[str, int], Ticket] = {}
        self._decoder = request_decoder()
        self._tag = msgspec.msgpack.Decoder(_Tag)
        self.repeats = Repeats[Ticket]()
        system.gate = self

    # --- in -----------------------------------------------------------------------------------------------------------------------

    def receive(self, client: Client, frames: Sequence[bytes]) -> None:
        """Take in the frames of one message. What a client sends while it is cut off is not carried out: it could not be told."""
        if client.cut_off:
            return
        id_ = 0
        try:
            _check_size(frames)
            header = decode_request_header(frames[0])
            id_ = header.id
            call = self._decode(header, frames[1])
            self._admit(client, header, call, frames[1])
        except KernosError as error:
            self._refuse(client, id_, error)
        except Exception as error:
            log.exception("a message of %s broke the gate", client.principal)
            self._refuse(client, id_, InternalError(f"The kernel failed on this message: {error!r}. It goes on; see its log."))

    def turn_away(self, client: Client, frames: Sequence[bytes]) -> None:
        """Answer a message of a connection whose key counts no more. It is neither decoded nor carried out."""
        error = RefusedError(f"The key that this connection was made with does not stand for {client.principal} any more.")
        self.system.audit.turned_away(f"process:{client.os_pid}", f"{error.code}: a key that {client.principal} had")
        try:
            id_ = decode_request_header(frames[0]).id
        except (KernosError, IndexError):
            id_ = 0
        self._refuse(client, id_, error)

    def _decode(self, header: RequestHeader, body: bytes) -> Call[Any]:
        if header.major != MAJOR:
            raise AbiMismatchError(
                f"This kernel speaks ABI {MAJOR}.{MINOR}, the client {header.major}.{header.minor}. Install an SDK of {MAJOR}.x."
            )
        try:
            return self._decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise self._explain(body, error) from None

    def _explain(self, body: bytes, error: Exception) -> KernosError:
        try:
            name = self._tag.decode(body).call
        except Exception:
            return BadRequestError(f"The body frame is not a call: {error}. See docs/wire.md.")
        if name not in NAMES:
            return UnknownCallError(f"This kernel (ABI {MAJOR}.{MINOR}) has no call `{name[:64]}`. See docs/syscalls.md.")
        return BadRequestError(f"{name}: {error}. See docs/syscalls.md for its fields and bounds.")

    def _admit(self, client: Client, header: RequestHeader, call: Call[Any], body: bytes) -> None:
        row = ROWS[type(call)]
        if client.control and not row.control:
            raise BadRequestError(f"{row.name} is not a control call; send it on the other socket.")
        if self.system.draining and not row.control:
            raise StoppingError("The kernel is being stopped and takes no new calls. Try again when it is back.", retry_after=5.0)
        process, asked = self._judge(client, header, row, call)
        deadline = None if header.timeout_ms is None else self.system.host.now + header.timeout_ms / 1_000
        request = None
        if header.key and row.mutates:
            told = call.context if isinstance(call, Generate) else None
            request = Request(client.principal, header.key, hashlib.sha256(body).digest()[:8], told)
        ticket = Ticket(self, client, header.id, row, call, process, header.stream, deadline, request)
        ticket.asked = asked if self.system.audit.covers(row) else None
        if request is not None and self._repeated(ticket, request):
            return
        if process is not None and row.call in OUTFLOWS:
            self._let_out(ticket, call)
        else:
            self._dispatch(ticket, call)

    def _judge(self, client: Client, header: RequestHeader, row: Row, call: Call[Any]) -> tuple[Process | None, list[str]]:
        """For which agent a call is made, and what the policy was asked about it; raises if it is not to be carried out."""
        process = None
        try:
            process = self._identify(client, header.pid, row)
            asked = self.system.authority.check(client.principal, process, call)
            self.system.audit.check(row)
            self._charge(client, header, process, row)
        except KernosError as error:
            self.system.audit.refused(client, header.pid, process, row, error)
            raise
        return process, asked

    def _identify(self, client: Client, pid: int, row: Row) -> Process | None:
        if pid == 0:
            if row.agent:
                raise NotYoursError(f"{row.name} is made by an agent. Spawn one with `process.spawn` and name its pid.")
            return None
        process = self.system.processes.rows.get(pid)
        if process is not None and not process.badge and process.principal == client.principal:
            self.system.agents.adopt(process, client)
        if process is None or process.principal != client.principal or process.life is Life.EXITED:
            reason = f" It has ended: {process.reason}." if process and process.principal == client.principal else ""
            raise NotYoursError(f"{client.principal} has no living agent {pid}.{reason} Spawn one with `process.spawn`.")
        return process

    def _charge(self, client: Client, header: RequestHeader, process: Process | None, row: Row) -> None:
        if (client.principal, header.id) in self.in_flight:
            raise ConflictError(f"A call with the id {header.id} is in flight already. Number calls one by one.")
        if row.cost is not Cost.LIGHT:
            if len(self.in_flight) >= CALLS_IN_FLIGHT:
                raise BusyError(f"The kernel has {CALLS_IN_FLIGHT} calls in flight. Try again in a second.", retry_after=1.0)
            payers = process.payers if process is not None else (client.principal,)
            self.system.quotas.check_call(payers, self.system.host.now, computes=row.cost is Cost.DEVICE)
        self.system.calls += 1
        if process is not None:
            process.calls += 1
            self.system.agents.count(process)

    def _let_out(self, ticket: Ticket, call: Call[Any], *, new: bool = False) -> None:
        """Dispatch a call that takes something away, if what its agent carries may go there.

        One that takes somebody's consent, and carries a key, may have been carried out already, by a kernel before this one: unless it is
        known to be `new` the database is asked first, as nobody shall be asked to consent to what will not be done.
        """
        flows = self.system.flows
        try:
            needed = flows.check(ticket.agent, call)
            if needed and ticket.request is not None and not new:
                self.system.storage.fetch(ticket, lambda _: None, lambda _: self._let_out(ticket, call, new=True))
                self._park(ticket)
                return
            flows.use_consents(ticket.agent, needed, call)
        except KernosError as error:
            self._turn_back(ticket, error)
        else:
            self._dispatch(ticket, call)

    def _dispatch(self, ticket: Ticket, call: Call[Any]) -> None:
        try:
            result = HANDLERS[type(call)](self.system, ticket, call)
        except Exception as error:
            self.fault(ticket, error)
        else:
            if result is not LATER:
                ticket.reply(result)
            elif ticket.open:
                self._park(ticket)

    def _turn_back(self, ticket: Ticket, error: KernosError) -> None:
        """End a call because of labels. The audit log has the refusal, and its facts, as an entry of its own."""
        if not ticket.entry:
            ticket.asked = None
        self.system.audit.refused(ticket.client, ticket.agent.pid, ticket.process, ticket.row, error)
        self.fail(ticket, error)

    # --- calls in flight ----------------------------------------------------------------------------------------------------------

    def _park(self, ticket: Ticket) -> None:
        if self.in_flight.get((ticket.principal, ticket.id)) is ticket:
            return
        if ticket.asked is not None:
            self.system.audit.noted(ticket, "")
        self.in_flight[(ticket.principal, ticket.id)] = ticket
        self.system.quotas.hold(ticket.payers, {"calls": 1}, self.system.host.now)
        ticket.client.tickets[ticket.id] = ticket
        if ticket.deadline is not None:
            error = DeadlineError(f"{ticket.row.name} was not done in time. Allow more time, or ask for less.")
            ticket.timer = self.system.host.at(ticket.deadline, lambda: self.end(ticket, error))

    def _unpark(self, ticket: Ticket) -> None:
        if self.in_flight.pop((ticket.principal, ticket.id), None) is None:
            return
        self.system.quotas.give(ticket.payers, {"calls": 1})
        ticket.client.tickets.pop(ticket.id, None)
        if ticket.timer is not None:
            ticket.timer.cancel()
        self.system.stop_if_drained()

    def end(self, ticket: Ticket, error: KernosError) -> None:
        """End a call from outside its handler, which is told first."""
        if ticket.open:
            if ticket.on_end is not None:
                ticket.on_end()
            self.fail(ticket, error)

    def end_of(self, process: Process, error: KernosError) -> None:
        """End every call in flight of an agent."""
        for ticket in [ticket for ticket in self.in_flight.values() if ticket.process is process]:
            self.end(ticket, error)

    def cancel(self, principal: str, id_: int) -> None:
        """End one call of a principal, if it is in flight."""
        ticket = self.in_flight.get((principal, id_))
        if ticket is not None:
            self.end(ticket, CancelledError(f"{ticket.row.name} was cancelled by its caller."))

    def drop(self, client: Client) -> None:
        """A connection is gone: nobody waits for its calls any more, but perhaps for the same call made again."""
        client.cut_off = True  # nothing more is sent to it, not even that its calls have ended
        for ticket in list(client.tickets.values()):
            self.end(ticket, KernelRestartedError("The connection by which this call was first made is gone. Make it again."))

    # --- out ----------------------------------------------------------------------------------------------------------------------

    def finish(self, ticket: Ticket, value: Any) -> bool:
        """End a call with its reply; whether it could be sent."""
        return ticket.open and self.answer(ticket, encode(value))

    def answer(self, ticket: Ticket, body: bytes) -> bool:
        """End a call with its encoded reply; whether it could be sent."""
        if not ticket.open or not self._readable(ticket, body):
            return False
        self._close(ticket, "ok")
        if ticket.key is not None:
            for other in self.repeats.settle(ticket.principal, ticket.key, body):
                self._repeat(other, body)
        return self._send(ticket.client, ticket.id, Kind.REPLY, body)

    def _readable(self, ticket: Ticket, body: bytes) -> bool:
        """Let the agent carry the labels of its reply; if they may not reach it the call ends with that."""
        if ticket.row.reads:
            try:
                self.system.flows.receive(ticket, body)
            except KernosError as error:
                self._turn_back(ticket, error)
                return False
        return True

    def fail(self, ticket: Ticket, error: KernosError) -> None:
        """End a call with an error. Nothing was applied, so its idempotency key is free again."""
        if ticket.open:
            self._close(ticket, error.code)
            self._refuse(ticket.client, ticket.id, error)
            for other in self.repeats.free(ticket.principal, ticket.key) if ticket.key is not None else ():
                other.fail(error)

    def fault(self, ticket: Ticket, error: Exception) -> None:
        """End a call with whatever was raised in carrying it out."""
        if isinstance(error, KernosError):
            self.fail(ticket, error)
            return
        log.error("%s broke", ticket.row.name, exc_info=error)
        story = "; ".join(ticket.process.story) if ticket.process else ""
        self.fail(ticket, InternalError(f"{ticket.row.name} failed inside the kernel: {error!r}. It goes on; see its log.", story=story))

    def event(self, ticket: Ticket, value: Any) -> None:
        """Send one of a stream's events."""
        self._send(ticket.client, ticket.id, Kind.EVENT, encode(value))

    def _refuse(self, client: Client, id_: int, error: KernosError) -> None:
        self.system.refused += 1
        self._send(client, id_, Kind.ERROR, encode(error.body()))

    def _close(self, ticket: Ticket, outcome: str) -> None:
        ticket.open = False
        if ticket.asked is not None:
            self.system.audit.noted(ticket, outcome)
        self._unpark(ticket)

    def _send(self, client: Client, id_: int, kind: Kind, body: bytes) -> bool:
        if client.cut_off:
            return False
        delivery = self.system.host.send(client, (encode(ReplyHeader(id_, kind)), body))
        if delivery is Delivery.FULL:
            self._cut_off(client)
        elif delivery is Delivery.GONE:
            self.drop(client)
        return delivery is Delivery.SENT

    def _cut_off(self, client: Client) -> None:
        """The client does not read. End its calls, and tell it so when it reads again."""
        log.warning("%s (process %d) does not read its answers and is cut off", client.principal, client.os_pid)
        self.drop(client)
        self._tell_cut_off(client)

    def _tell_cut_off(self, client: Client) -> None:
        error = CutOffError("This client did not read its answers; its calls in flight were ended. Read answers as they come.")
        delivery = self.system.host.send(client, (encode(ReplyHeader(0, Kind.CUT_OFF)), encode(error.body())))
        if delivery is Delivery.FULL:
            self.system.host.at(self.system.host.now + CUT_OFF_RETRY_S, lambda: self._tell_cut_off(client))
        elif delivery is Delivery.SENT:
            client.cut_off = False

    # --- applied once -------------------------------------------------------------------------------------------------------------

    def _repeated(self, ticket: Ticket, request: Request) -> bool:
        """Whether a call with this key was made before; the one made again then gets the outcome of the first."""
        record = self.repeats.begin(ticket.principal, request.key, request.digest, self.system.host.now)
        if record is None:
            return False
        ticket.key = None  # what was recorded stays
        if record.digest != request.digest:
            ticket.fail(ConflictError(f"The key {request.key} was used for another call. Make a new key for each call."))
        elif record.answer is not None:
            self._repeat(ticket, record.answer)
        else:
            record.waiting.append(ticket)
            self._park(ticket)
        return True

    def _repeat(self, ticket: Ticket, body: bytes) -> None:
        """End a call with the outcome of one made before."""
        if ticket.open and self._readable(ticket, body):
            self._close(ticket, "repeated")
            self._send(ticket.client, ticket.id, Kind.REPLY, body)


def _check_size(frames: Sequence[bytes]) -> None:
    if len(frames) != MAX_FRAMES:
        raise BadRequestError(f"A message has {MAX_FRAMES} frames, header and body; this one has {len(frames)}. See docs/wire.md.")
    if len(frames[0]) + len(frames[1]) > MAX_MESSAGE_BYTES:
        raise BadRequestError(f"A message has at most {MAX_MESSAGE_BYTES} bytes. Split it.")
