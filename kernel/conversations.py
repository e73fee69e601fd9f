"""Turns in a context: what the model sees of it, and how question and answer are kept.

Before a turn the window is read; if it has grown too full its oldest messages leave, durably and without any model; what has left and has
to do with the new message is recalled. Each step waits for threads or the encoder, never in the loop.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from kernos.syscalls.context import ExplainContext, Prompt, PromptPart
from kernos.syscalls.model import Generate, Generation, Message

from . import excerpts, prompts
from .limits import EXPLAINED, INLINE_TEXT, NOTICE_S, NOTICE_WATER, RECALL_LEAST, RECALL_PAGES
from .memory import recall, transcripts, window
from .memory.connection import Connection
from .memory.recall import Found
from .memory.transcripts import ContextRow, NewMessage
from .memory.window import Made
from .models import Entry
from .prompts import Line
from .recalls import points_of
from .text import Tokenizer
from .tickets import Ticket

if TYPE_CHECKING:
    from .system import System

BYTES_PER_TOKEN: Final = 4
"""A guess for contexts that no model can count."""


@dataclass(frozen=True)
class Draft:
    """A prompt in the making: for whom, of which context, for which model, and its lines so far."""

    ticket: Ticket
    id: str
    actor: str
    model: Entry
    new: Sequence[Message]
    lines: Sequence[Line] = ()
    paged_out: int = 0
    seen: bool = False
    patience: float | None = None
    """Until when it waits for agents that were told of what leaves, on the kernel's clock; `None`: it has not had to."""

    @property
    def window(self) -> int:
        """Tokens that the model sees."""
        return self.model.window or self.model.manifest.window


class Conversations:
    """Between contexts and turns."""

    def __init__(self, system: "System") -> None:
        self.system = system
        self.seen: OrderedDict[str, Draft] = OrderedDict()
        """What models saw last, by context."""

    # --- turns --------------------------------------------------------------------------------------------------------------------

    def start(self, ticket: Ticket, call: Generate, id_: str, model: Entry) -> None:
        """Make the prompt, then begin the turn."""
        draft = Draft(ticket, id_, self.system.contexts.actor(id_, ticket.agent), model, call.messages)

        def ready(draft: Draft) -> None:
            self.system.flows.begin_turn(ticket, call)  # once more: others may have written into it meanwhile
            self._remember(draft)
            entry = self.system.registry.need(model.name, "decoder")  # it may have failed meanwhile
            self.system.turns.start(ticket, call, entry, prompts.conversation(draft.lines))

        self._prepare(draft, ready)

    def keep(self, ticket: Ticket, call: Generate, id_: str, generation: Generation) -> None:
        """Append question and answer together; the reply leaves when they are durable."""
        messages = [*call.messages, Message("assistant", generation.text)]
        self.append(ticket, id_, messages, call.model, lambda _: generation)

    def append(self, ticket: Ticket, id_: str, messages: Sequence[Message], model: str, view: Callable[[ContextRow], Any]) -> None:
        """Count messages as a model does, on a thread if they are long, and put them at the end of a context."""
        registry, storage = self.system.registry, self.system.storage
        tokenizer = registry.get(model).tokenizer if model in registry.entries else None
        texts = [message.text for message in messages]

        def counted(tokens: list[int]) -> None:
            new = [
                NewMessage(
                    message.role,
                    message.text,
                    size,
                    self.system.flows.marked(ticket.agent, message.labels),
                    message.calls.encode(),
                    time=message.time,
                )
                for message, size in zip(messages, tokens, strict=True)
            ]
            labels = {label for message in new for label in message.labels}
            if self.system.contexts.whose(id_, ticket.agent) == "shared" and not labels <= {*self.system.contexts.labels([id_])}:
                # Nobody shall label what he may not write into.
                actor = ticket.agent.owner
                storage.fetch(ticket, lambda connection: transcripts.find(connection, actor, id_, "append"), lambda _: write(new, labels))
            else:
                write(new, labels)

        def write(new: list[NewMessage], labels: set[str]) -> None:
            actor, now = self.system.contexts.actor(id_, ticket.agent), storage.clock
            self.system.contexts.mark(id_, labels)  # before it is there, so that whoever reads it carries them
            storage.change(
                ticket,
                lambda connection: transcripts.append(connection, actor, id_, new, model, now),
                view,
                charge=(self.system.contexts.payers(id_), {"bytes": sum(transcripts.size_of(message) for message in new)}),
            )

        if sum(map(len, texts)) <= INLINE_TEXT:
            ticket.then(counted)(count(tokenizer, texts))
        else:
            self.system.host.offload(lambda: count(tokenizer, texts), ticket.then(counted))

    # --- prompts ------------------------------------------------------------------------------------------------------------------

    def explain(self, ticket: Ticket, call: ExplainContext, model: Entry) -> None:
        """Tell what the model saw last, or would see."""
        actor = self.system.contexts.actor(call.context, ticket.agent)

        def told(draft: Draft) -> None:
            parts = [
                PromptPart(line.why, line.role, line.text, line.tokens, line.seq, line.points, line.whole, line.source)
                for line in draft.lines
            ]
            messages, tokenizer = prompts.conversation(draft.lines), draft.model.tokenizer

            def tell(tokens: int) -> None:
                labels = self.system.contexts.labels([draft.id])
                ticket.reply(Prompt(draft.model.name, tokens, draft.window, parts, draft.paged_out, draft.seen, labels))

            self.system.host.offload(lambda: len(tokenizer.encode(tokenizer.render(messages))) if messages else 0, ticket.then(tell))

        last = self.seen.get(call.context)
        draft = Draft(ticket, call.context, actor, model, call.messages)

        def found(read: Draft) -> None:
            if last is not None and not call.messages:
                told(last)
            else:
                self._recall(_without(read, self._leaving(read)), told)

        self.system.storage.fetch(ticket, lambda connection: _read(connection, draft), found)

    def forget(self, id_: str) -> None:
        """A context was deleted."""
        self.seen.pop(id_, None)

    def _remember(self, draft: Draft) -> None:
        self.seen[draft.id] = replace(draft, seen=True)
        self.seen.move_to_end(draft.id)
        if len(self.seen) > EXPLAINED:
            self.seen.popitem(last=False)

    def _prepare(self, draft: Draft, then: Callable[[Draft], object]) -> None:
        """Read what is in the window, make room, and recall."""
        self.system.storage.fetch(draft.ticket, lambda connection: _read(connection, draft), lambda read: self._make_room(read, then))

    def _make_room(self, draft: Draft, then: Callable[[Draft], object]) -> None:
        """Let the oldest messages leave if there is no room, when those who want to know of it have had their time; then recall."""
        until = self._leaving(draft)
        if self._waits(draft, until, then):
            return
        if not until:
            self._recall(draft, then)
            return
        now = self.system.storage.clock

        def left(outcome: tuple[ContextRow, Made]) -> None:
            self.paged_out(outcome[1])
            if draft.ticket.open:
                self._recall(_without(draft, until), then)

        self.system.storage.write(lambda connection: _page_out(connection, draft, until, now), draft.ticket.then(left, anyway=True))

    def _leaving(self, draft: Draft) -> int:
        """How far messages must leave: only those that agents were told of already, if that makes room."""
        until, told = prompts.leaving(draft.lines, draft.window), self.system.notices.until(draft.id)
        enough = told < until and not prompts.leaving(prompts.staying(draft.lines, told), draft.window)
        return told if enough else until

    def _waits(self, draft: Draft, until: int, then: Callable[[Draft], object]) -> bool:
        """Give notice of what leaves now or soon; whether the turn waits, and is prepared anew afterwards, as others may have written."""
        notices = self.system.notices
        notices.give(draft.id, until or prompts.leaving(draft.lines, draft.window, NOTICE_WATER))
        if not until:
            return False
        patience = draft.patience or self.system.host.now + NOTICE_S
        again = replace(draft, patience=patience)
        return notices.wait(draft.ticket, draft.id, patience, lambda _: self._prepare(again, then))

    def paged_out(self, made: Made) -> None:
        """Pages were made: they are found by their words now, and by meaning soon."""
        self.system.storage.tell(lambda: self.system.embedder.memory.added(made))
        self.system.embedder.wake()

    def _recall(self, draft: Draft, then: Callable[[Draft], object]) -> None:
        """Fault in what the last message needs."""
        memory, tokenizer = self.system.embedder.memory, draft.model.tokenizer
        budget = prompts.room(draft.lines, draft.window, len(tokenizer.encode(prompts.HEADING + "\n\n")))
        question = prompts.question(draft.lines)
        if not budget or not question.strip():
            then(draft)
            return

        def tokens(page: Found) -> int:
            return len(tokenizer.encode(prompts.quoted(_line(page)) + "\n"))

        def rank(connection: Connection, vector: Any) -> list[tuple[Found, int]]:
            ranked = memory.rank(connection, draft.actor, draft.id, question, vector)
            found = recall.distinct(ranked, (line.text for line in draft.lines))
            return list(recall.fitting(found, tokens, budget, RECALL_PAGES, RECALL_LEAST))

        def ranked(found: list[tuple[Found, int]], _by_meaning: bool) -> None:
            recalled = [_line(page, size) for page, size in found]
            then(replace(draft, lines=prompts.with_recalled(draft.lines, recalled)))

        self.system.recalls.ask(draft.ticket, lambda connection: memory.topic(connection, draft.actor, draft.id, question), rank, ranked)


def count(tokenizer: Tokenizer | None, texts: list[str]) -> list[int]:
    """Tokens of messages with these texts."""
    return [tokens_of(None, text) for text in texts] if tokenizer is None else tokenizer.count(texts)


def tokens_of(tokenizer: Tokenizer | None, text: str) -> int:
    """Tokens of a text by itself."""
    return len(text.encode()) // BYTES_PER_TOKEN + 1 if tokenizer is None else len(tokenizer.encode(text))


def _read(connection: Connection, draft: Draft) -> Draft:
    """The draft with what is in the window and what is new; messages that another model has counted are counted again."""
    row = transcripts.find(connection, draft.actor, draft.id, "read")
    pinned = set(window.pins(connection, row))
    messages = window.resident(connection, draft.actor, draft.id)
    foreign = [message.text for message in messages if message.tokenizer != draft.model.name]
    counted = iter(count(draft.model.tokenizer, foreign + [message.text for message in draft.new]))
    old = [
        Line(
            "pinned" if message.seq in pinned else "resident",
            message.role,
            message.text,
            message.tokens if message.tokenizer == draft.model.name else next(counted),
            message.seq,
        )
        for message in messages
    ]
    new = [Line("new", message.role, message.text, next(counted)) for message in draft.new]
    tokenizer = draft.model.tokenizer
    return replace(draft, lines=excerpts.fitted([*old, *new], draft.window, lambda text: tokens_of(tokenizer, text)))


def _line(page: Found, tokens: int = 0) -> Line:
    return Line("recalled", page.role, page.text, tokens, page.seq, points_of(page), source=page.source)


def _without(draft: Draft, until: int) -> Draft:
    """The draft without what leaves: the messages before `until`."""
    lines = prompts.staying(draft.lines, until)
    return replace(draft, lines=lines, paged_out=len(draft.lines) - len(lines))


def _page_out(connection: Connection, draft: Draft, until: int, now: float) -> tuple[ContextRow, Made]:
    row = transcripts.find(connection, draft.actor, draft.id, "append")
    # Another turn of this context may have been quicker.
    return window.page_out(connection, draft.actor, draft.id, min(max(until, row.resident), row.length), now)
