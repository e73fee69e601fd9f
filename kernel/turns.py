"""Turns on their way: from messages to a prompt, from tokens to text, from a crash to the next device.

The scheduler decides when a turn computes; here its actions become commands to a device server and the device's steps become text for
the caller. The kernel holds every token of a turn, so a turn can leave a device at any moment and go on elsewhere: the prompt is then
what it was plus what was produced. Each start of a turn is a sequence of its own on the device; steps of an abandoned one are left out.
"""

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from kernos.syscalls.errors import BadRequestError, BusyError, DeviceError, KernosError, WindowExceededError
from kernos.syscalls.model import Chunk, Generate, Generation, Message, Timing, Usage

from .core import scheduler
from .core.pages import Page, Table
from .core.prefixes import Chain, PageHash
from .core.quotas import Bill
from .core.scheduler import Action
from .devices import messages
from .devices.messages import PAGE, Output, Sampling
from .limits import INLINE_TEXT, QUEUED_TURNS, RESUMES
from .models import Entry
from .stop import StopText
from .text import TextStream
from .tickets import Ticket

if TYPE_CHECKING:
    from .system import System


@dataclass
class Answer:
    """A turn and its answer so far."""

    id: int
    ticket: Ticket
    call: Generate
    model: Entry
    prompt: list[int]
    max_tokens: int
    sampling: Sampling
    text: TextStream
    stop: StopText
    bill: Bill
    rank: int
    """Of its class, as when it was asked for."""
    asked: float
    """When that was."""
    tokens: list[int] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    unsent: int = 0
    """Tokens whose text has not been sent yet."""
    seq: int = 0
    """Its sequence on the device, also for a while after it was stopped: reports may be on their way. 0: none."""
    running: bool = False
    """It has a slot."""
    over: bool = False
    """It is being ended: nothing of it need be kept."""
    resumed: int = 0
    chain: Chain = field(init=False)
    table: Table = field(default_factory=Table)
    """Its KV pages while it has no row on the device."""
    lent: tuple[Page, ...] = ()
    """The pages that its sequence began with."""
    cached: int = 0
    """Tokens that the sequence began with, from pages."""
    begun: int = 0
    """Tokens of the prompt that the sequence began with."""
    spared: int = 0
    """Of the prompt, when it was first begun."""
    held: int = 0
    """Tokens whose KV the sequence has, as last reported."""
    prefill: float = 0.0
    """Seconds in which its prompt was computed, before its first token."""
    timing: Timing = field(default_factory=Timing)

    def __post_init__(self) -> None:
        # Who may share pages: the agents of one app. It sees all their texts anyway, so how fast an answer comes tells it nothing new.
        self.chain = Chain(self.ticket.principal, PAGE)

    @property
    def context(self) -> list[int]:
        """All its tokens."""
        return self.prompt + self.tokens

    def names(self, count: int) -> list[PageHash]:
        """The names of the full pages of its first `count` tokens."""
        return self.chain.of(self.context, count)

    def add(self, tokens: list[int], now: float) -> None:
        """Take in produced tokens, and send the text they complete."""
        if not self.tokens:
            self.timing = Timing(max(0.0, now - self.asked - self.prefill), self.prefill)
        self.tokens += tokens
        self.unsent += len(tokens)
        self.ticket.agent.generated_tokens += len(tokens)
        self.show(self.stop.push(self.text.push(tokens)))

    def show(self, text: str) -> None:
        """Send a piece of text, if there is one."""
        if text:
            self.pieces.append(text)
            self.ticket.event(Chunk(text, self.unsent))
            self.unsent = 0

    def begin(self, lease: int, *, keep: bool) -> messages.Begin:
        """The command that starts it, or lets it go on, on a device; with what its pages hold, but for the last token."""
        context = self.context
        self.begun, self.cached = len(context), min(self.table.tokens, len(context) - 1)
        self.held = self.cached
        return messages.Begin(
            self.seq,
            self.model.name,
            context,
            self.max_tokens,
            lease,
            self.sampling,
            resumed=len(self.tokens),
            schema=self.call.schema,
            pages=[page.slot for page in self.table.pages[: -(-self.cached // PAGE)]],
            cached=self.cached,
            keep=keep,
            rank=self.rank,
        )


class Turns:
    """All turns by id, and by sequence where they run."""

    def __init__(self, system: "System") -> None:
        self.system = system
        self.answers: dict[int, Answer] = {}
        self.by_seq: dict[int, Answer] = {}
        self._last_id = 0
        self._last_seq = 0

    # --- from a call to a turn ----------------------------------------------------------------------------------------------------

    def start(self, ticket: Ticket, call: Generate, model: Entry, conversation: list[Message]) -> None:
        """Make the prompt, on a thread if it is long, and hand the turn to the scheduler."""
        if self.system.scheduler.queued >= QUEUED_TURNS:
            raise BusyError(f"{QUEUED_TURNS} turns are waiting for {model.name}. Try again in a few seconds.", retry_after=5.0)
        if not conversation:
            raise BadRequestError("model.generate: there is nothing to answer. Send messages, or name a context that has some.")
        tokenizer = model.tokenizer
        if sum(len(message.text) for message in conversation) <= INLINE_TEXT:
            self._submit(ticket, call, model, tokenizer.encode(tokenizer.render(conversation)))
        else:
            self.system.host.offload(
                lambda: tokenizer.encode(tokenizer.render(conversation)), lambda prompt: self._encoded(ticket, call, model, prompt)
            )

    def _encoded(self, ticket: Ticket, call: Generate, model: Entry, prompt: list[int] | Exception) -> None:
        try:
            if isinstance(prompt, KernosError):
                raise prompt
            if isinstance(prompt, Exception):
                raise DeviceError(f"{model.name} could not tokenize these messages: {prompt!r}.")
            if ticket.open:  # and the model may have failed meanwhile
                self._submit(ticket, call, self.system.registry.need(model.name, "decoder"), prompt)
        except KernosError as error:
            ticket.fail(error)

    def _submit(self, ticket: Ticket, call: Generate, model: Entry, prompt: list[int]) -> None:
        window = model.window or model.manifest.window
        if len(prompt) >= window:
            raise WindowExceededError(
                f"The prompt has {len(prompt)} tokens and {model.name} sees {window}. Send less, or start a new context.",
                prompt_tokens=str(len(prompt)),
                window=str(window),
            )
        self._last_id += 1
        seed = secrets.randbits(62) if call.seed is None else call.seed
        sampling = Sampling(call.temperature, call.top_p, seed, call.ignore_eos)
        limit = min(call.max_tokens, window - len(prompt))
        stop = StopText(call.stop)
        pages = -(-(len(prompt) + limit) // PAGE)
        rank, now = self.system.agents.rank(ticket.agent), self.system.host.now  # as it is without this turn
        bill = self.system.quotas.begin(ticket.payers, len(prompt), pages, now)
        answer = Answer(self._last_id, ticket, call, model, prompt, limit, sampling, model.tokenizer.decoder(), stop, bill, rank, now)
        self.answers[answer.id] = answer
        ticket.on_end = lambda: self._withdraw(answer)
        ticket.agent.prompt_tokens += len(prompt)
        self.system.agents.count(ticket.agent)
        if not self.system.paging.beginnings.expects(answer):
            self.submit(answer)

    def submit(self, answer: Answer) -> None:
        """Hand a turn to the scheduler, unless it has been withdrawn meanwhile."""
        if answer.id in self.answers:
            agent, deadline = answer.ticket.agent, answer.ticket.deadline
            until = float("inf") if deadline is None else deadline
            self.system.paging.arrived(answer)
            turn = scheduler.Turn(answer.id, agent.pid, answer.model.name, answer.rank, answer.max_tokens, len(answer.prompt), until)
            self._handle(scheduler.Submitted(turn))

    # --- the scheduler's actions --------------------------------------------------------------------------------------------------

    def apply(self, actions: list[Action]) -> None:
        """Turn actions into commands."""
        moved: dict[str, None] = {}
        for action in actions:
            answer = self.answers.get(action.turn)
            if answer is None:
                continue
            match action:
                case scheduler.Start():
                    answer.running = True
                    moved[answer.model.name] = None
                    if self.system.paging.bring(answer):
                        self.begin(answer)
                case scheduler.Extend(_, tokens):
                    self._command(answer, messages.Extend(answer.seq, tokens))
                case scheduler.Stop():
                    self._stop(answer)
        # Last, as it submits turns: what they do must not come between these commands.
        for action in actions:
            if isinstance(action, scheduler.Stop) and action.turn in self.answers:
                self.system.paging.beginnings.settle(self.answers[action.turn])
        for model in moved:
            self.system.paging.balance(model)

    def begin(self, answer: Answer) -> None:
        """Begin a turn that has a slot, with the pages it has on the device."""
        self._last_seq += 1
        self.by_seq.pop(answer.seq, None)
        answer.seq = self._last_seq
        self.by_seq[answer.seq] = answer
        paged = answer.model.name in self.system.paging.lanes
        self._command(answer, answer.begin(self.system.scheduler.turns[answer.id].lease, keep=paged))
        self.system.paging.began(answer)
        if not answer.tokens:
            answer.spared = answer.cached

    def _stop(self, answer: Answer) -> None:
        """Take a turn out of its slot; it may have got it just now and wait for its pages there."""
        if not answer.over:
            self.system.paging.park(answer)
        self._command(answer, messages.Stop(answer.seq))
        answer.running = False

    def _handle(self, event: scheduler.Event) -> None:
        self.apply(self.system.scheduler.handle(event, self.system.host.now))

    def _command(self, answer: Answer, command: messages.AnyCommand) -> None:
        self.system.host.command(answer.model.server, command)

    def _unseat(self, answer: Answer) -> None:
        self.by_seq.pop(answer.seq, None)
        answer.seq, answer.running = 0, False

    # --- the device's reports -----------------------------------------------------------------------------------------------------

    def stepped(self, report: messages.Stepped) -> None:
        """A device has made a step."""
        prefilled = sum(output.prefilled for output in report.outputs)
        first = self.by_seq.get(report.outputs[0].seq) if report.outputs else None
        if first is not None:
            self.system.paging.computed(first.model.name, prefilled, report.seconds)
        token_s = report.seconds / max(1, prefilled + report.rows)
        for output in report.outputs:
            answer = self.by_seq.get(output.seq)
            if answer is not None:
                answer.prefill += token_s * output.prefilled
                self._advance(answer, output)

    def _advance(self, answer: Answer, output: Output) -> None:
        answer.held = output.held
        began = bool(output.prefilled and output.tokens)
        if output.tokens:
            answer.bill.charge(len(output.tokens), self.system.host.now)
            self.system.agents.count(answer.ticket.agent)
            answer.add(output.tokens, self.system.host.now)
        if answer.id not in self.answers:
            return  # its client is gone, as sending the text has shown
        if answer.stop.hit:
            self._finish(answer, "stop", scheduler.Withdrawn(answer.id, len(output.tokens), output.prefilled))
        elif output.finish:
            self._finish(answer, output.finish, scheduler.Ended(answer.id, len(output.tokens), output.prefilled))
        else:
            # Once its whole prompt is computed, others may begin like it.
            if began and answer.running and not self.system.paging.share(answer):
                self.system.paging.beginnings.settle(answer)
            self._handle(scheduler.Produced(answer.id, len(output.tokens), output.prefilled))

    def _finish(self, answer: Answer, finish: Literal["stop", "length"], event: scheduler.Event) -> None:
        answer.show(answer.stop.push(answer.text.flush()) + answer.stop.flush())
        if answer.id not in self.answers:
            return
        self.system.paging.keep(answer)
        if isinstance(event, scheduler.Ended) and answer.running:
            self._command(answer, messages.Stop(answer.seq))  # its row was kept to be saved
        self._forget(answer, event)
        usage, labels = Usage(len(answer.prompt), len(answer.tokens), answer.spared), sorted(answer.ticket.agent.labels)
        generation = Generation("".join(answer.pieces), finish, usage, answer.tokens, answer.resumed, labels, answer.timing)
        if answer.call.context is None:
            answer.ticket.reply(generation)
        else:
            self.system.conversations.keep(answer.ticket, answer.call, answer.call.context, generation)

    def failed(self, seq: int, reason: str) -> None:
        """The device could not serve a sequence."""
        answer = self.by_seq.get(seq)
        if answer is not None and answer.cached:
            # What was in its pages could not be used; without them it may well go on.
            self.system.paging.refused(answer)
            if answer.running:
                self.begin(answer)
        elif answer is not None:
            answer.bill.refund(self.system.host.now)
            self._forget(answer, scheduler.Ended(answer.id))
            answer.ticket.fail(DeviceError(f"{answer.model.name} could not answer: {reason}."))

    def server_down(self, server: str) -> None:
        """A device server has died: what ran there waits for its successor."""
        there = [answer for answer in self.answers.values() if answer.model.server == server]
        lost = [answer for answer in there if answer.running]
        for entry in self.system.registry.on(server):
            self._handle(scheduler.LaneDown(entry.name))
            self.system.paging.down(entry.name)
        for answer in there:
            self._unseat(answer)
            self.system.paging.drop(answer)
        for answer in lost:
            answer.resumed += 1
            answer.ticket.agent.tell(self.system.host.now, f"turn {answer.id} lost its device after {len(answer.tokens)} tokens")
            if answer.resumed > RESUMES:
                self._forget(answer, scheduler.Withdrawn(answer.id))
                answer.ticket.fail(DeviceError(f"The device died {answer.resumed} times under this turn; it may be the cause."))

    def fail_all(self, model: str, error: KernosError) -> None:
        """The model will not be ready."""
        for answer in [answer for answer in self.answers.values() if answer.model.name == model]:
            answer.bill.refund(self.system.host.now)
            self._forget(answer, scheduler.Withdrawn(answer.id))
            answer.ticket.fail(error)

    def _withdraw(self, answer: Answer) -> None:
        if answer.id in self.answers:
            self._forget(answer, scheduler.Withdrawn(answer.id))

    def _forget(self, answer: Answer, event: scheduler.Event) -> None:
        # The scheduler first: its Stop, if any, still needs the sequence.
        answer.over = True
        self._handle(event)
        self._unseat(answer)
        self.system.paging.drop(answer)
        answer.bill.close()
        self.answers.pop(answer.id, None)
