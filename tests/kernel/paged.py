"""A decoder with KV pages, as strict as the real one: it refuses what that would refuse, and looks into every page it is given.

device = PagedDevice(world, "tiny")
device.obey(); device.step(); device.arrive()

The next token follows from all tokens before, so that a turn that went on with a wrong page would show.
"""

import zlib
from dataclasses import dataclass, field
from typing import Any

from kernos.kernel.devices.messages import (
    PAGE,
    Begin,
    Copied,
    Copy,
    Extend,
    Failed,
    Load,
    Loaded,
    Output,
    Save,
    Saved,
    Stepped,
    Stop,
    Tier,
)
from tests.kernel.fakes import World

Slot = tuple[Tier, int]


def next_token(tokens: list[int]) -> int:
    """A letter that depends on everything before."""
    return 65 + zlib.crc32(bytes(token % 251 for token in tokens)) % 26


def answer_to(prompt: list[int], count: int) -> list[int]:
    """What an undisturbed turn produces."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(next_token(tokens))
    return tokens[len(prompt) :]


@dataclass
class Row:
    begin: Begin
    tokens: list[int]
    held: int
    lease: int
    finished: bool = False


@dataclass
class PagedDevice:
    """The decoder server of a world; nothing happens but by its methods."""

    world: World
    model: str
    prefill: int = 100
    page_s: float = 0.003
    """Seconds in which a page is read or written."""
    rows: dict[int, Row] = field(default_factory=dict)
    slots: dict[Slot, list[int]] = field(default_factory=dict)
    """The tokens whose KV is in a slot, with all before them."""
    beside: list[Copy] = field(default_factory=list)
    seen: int = 0
    begun: int = 0
    computed: int = 0
    """Tokens of prompts."""

    def load(self) -> None:
        self.world.system.registry.load(self.world.system.registry.get(self.model))
        self.world.report("decoder", Loaded(self.model, "decoder", 0.1, 1, 8_192, 8, page_bytes=1_000))
        self.obey()

    def obey(self) -> None:
        """Carry out what has been ordered, and what follows from the reports."""
        while self.seen < len(self.world.host.commands):
            server, command = self.world.host.commands[self.seen]
            self.seen += 1
            if server == "decoder" and not isinstance(command, Load):
                getattr(self, f"_{type(command).__name__.lower()}")(command)

    def step(self) -> None:
        """Every leased row produces a token, or computes a piece of its prompt; then obey."""
        outputs = [self._advance(seq, row) for seq, row in self.rows.items() if row.lease > 0 and not row.finished]
        if outputs:
            self.world.report("decoder", Stepped(outputs, 0.3, len(outputs)))
        self.obey()

    def arrive(self, at: int = 0, *, well: bool = True) -> None:
        """A copy from or to disk ends."""
        if self.beside:
            order = self.beside.pop(at % len(self.beside))
            targets = [(order.target, target) for _, target in order.pairs]
            if well:
                for (source, _), target in zip(order.pairs, targets, strict=True):
                    self.slots[target] = self.slots[order.source, source]
                self.world.report("decoder", Copied(order.id, self.page_s * len(targets), 1))
            else:
                self.world.report("decoder", Failed("the disk is full, or the page damaged", copy=order.id))
            self.obey()

    def _advance(self, seq: int, row: Row) -> Output:
        before, prompt = row.held, len(row.begin.prompt)
        tokens: list[int] = []
        row.held = min(before + self.prefill, prompt) if before < prompt - 1 else before + 1
        prefilled = max(0, min(row.held, prompt) - before)
        self.computed += prefilled
        if row.held >= prompt:
            tokens = [next_token(row.tokens)]
            row.tokens += tokens
            row.lease -= 1
        row.finished = len(row.tokens) - prompt + row.begin.resumed >= row.begin.max_tokens
        return Output(seq, tokens, prefilled, "length" if row.finished else "", row.held)

    def _begin(self, begin: Begin) -> None:
        self.begun += 1
        assert len(self.rows) < self.world.system.config.slots, "no free slot"
        assert begin.cached < len(begin.prompt)
        assert len(begin.pages) == -(-begin.cached // PAGE)
        for place, slot in enumerate(begin.pages):
            end = min((place + 1) * PAGE, begin.cached)
            content = self._content("device", slot)
            if len(content) < end:
                self.world.report("decoder", Failed(f"slot {slot} holds {len(content)} tokens, not {end}", seq=begin.seq))
                return
            assert content[:end] == begin.prompt[:end], "the pages of something else"
        self.rows[begin.seq] = Row(begin, list(begin.prompt), begin.cached, begin.lease)

    def _extend(self, extend: Extend) -> None:
        if extend.seq in self.rows:
            self.rows[extend.seq].lease += extend.tokens

    def _stop(self, stop: Stop) -> None:
        self.rows.pop(stop.seq, None)

    def _save(self, save: Save) -> None:
        for slot in save.slots:
            self._content("device", slot)
            self.slots["device", slot] = []
        row = self.rows.get(save.seq)
        if row is None or save.first * PAGE >= row.held:
            self.world.report("decoder", Failed("not there", save=save.seq))
            return
        for place, slot in enumerate(save.slots, save.first):
            if place * PAGE < row.held:
                self.slots["device", slot] = row.tokens[: min((place + 1) * PAGE, row.held)]
        self.world.report("decoder", Saved(save.seq, save.first, row.held, 0.001))

    def _copy(self, order: Copy) -> None:
        assert {order.source, order.target} in ({"device", "host"}, {"host", "disk"})
        empty = [source for source, _ in order.pairs if not self._content(order.source, source)]
        for _, target in order.pairs:
            self._content(order.target, target)
            self.slots[order.target, target] = []
        if empty:
            self.world.report("decoder", Failed(f"slots {empty} hold nothing", copy=order.id))
        elif "disk" in (order.source, order.target):
            self.beside.append(order)
        else:
            for source, target in order.pairs:
                self.slots[order.target, target] = self.slots[order.source, source]
            self.world.report("decoder", Copied(order.id, 0.0001, 1))

    def _content(self, tier: Tier, slot: int) -> list[int]:
        """What is in a slot that a command names."""
        config = self.world.system.config
        assert 0 <= slot < {"device": config.kv_pages, "host": config.host_pages, "disk": config.disk_pages}[tier]
        used = {(order.source, source) for order in self.beside for source, _ in order.pairs}
        used |= {(order.target, target) for order in self.beside for _, target in order.pairs}
        assert (tier, slot) not in used, "a slot that a copy beside the steps uses"
        return self.slots.get((tier, slot), [])

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"no such command: {name}")
