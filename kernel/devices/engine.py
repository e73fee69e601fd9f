"""The step of a decoder: continuous batching with chunked prefill, under leases.

In each step every sequence that holds a lease takes part in one forward pass: those that lack but one token with that one (the last
produced, or the last of a prompt whose other tokens came with pages), the most urgent of the other prompts with as many as a short step
allows, first come first served. So a long prompt never stalls those that decode, short ones are computed together, and all share the
reading of the weights. Who decodes and is less urgent than a prompt sits out while that is computed. A sequence whose lease is used up
keeps its KV cache and sits out until it is extended. Few rows take along guesses of what they go on with (`lookup.py`), and advance by
more than one token where these were right. A pass with less urgent work in it is given up when somebody more urgent arrives: what it would
have done is done later. Whether a sequence sat out, with whom it shared a pass or where it was begun, with pages or without, and what was
guessed has no influence on its tokens (beyond rounding).
"""

import time
from dataclasses import dataclass
from itertools import islice
from math import inf
from pathlib import Path
from typing import Final, NamedTuple

import torch
from torch import Tensor

from .driver import GivenUpError, LanguageModel, Newcomer, RefusedError, Work, nobody
from .grammar import Grammar, Grammars
from .lookup import Lookup
from .messages import Begin, Copied, Copy, Failed, Finish, Output, Save, Saved, Stepped
from .modelstore import Manifest
from .pace import Pace
from .pages import PagePool
from .sampling import check, choose

PREFILL_URGENT: Final = 96
"""Prompt tokens per step of prompts more urgent than some that decode, who sit out, beside others who do not: most questions of people fit
in. In other steps it is for the device's pace to say (`pace.py`)."""

GUESSING: Final = 8
"""Tokens of a step with guesses at the most. So many take little longer than one where weights are what is waited for."""


@dataclass(slots=True)
class _Sequence:
    begin: Begin
    lease: int
    grammar: Grammar | None
    lookup: Lookup | None
    """None: nothing is guessed of it."""
    produced: int
    """Tokens of this turn so far, those of earlier places included."""
    held: int
    """Tokens in the KV cache."""
    token: int = -1
    """The last token produced here; not in the KV cache yet."""
    finish: Finish = ""

    @property
    def prompting(self) -> bool:
        return self.held < len(self.begin.prompt)

    @property
    def missing(self) -> int:
        """Tokens to compute before the next one can be chosen."""
        return max(1, len(self.begin.prompt) - self.held)

    @property
    def length(self) -> int:
        """Tokens in all, which is the position of the next one."""
        return len(self.begin.prompt) - self.begin.resumed + self.produced


class _Share(NamedTuple):
    """The part of a sequence in a step."""

    sequence: _Sequence
    size: int
    """Tokens to compute, without guesses."""
    guesses: list[int] = []

    def work(self) -> Work:
        begin, held = self.sequence.begin, self.sequence.held
        tokens = begin.prompt[held : held + self.size] if self.sequence.prompting else [self.sequence.token]
        wanted = 1 + len(self.guesses) if self.size == self.sequence.missing else 0
        return Work(begin.seq, tokens + self.guesses, wanted)


class _Ready(NamedTuple):
    """A sequence whose next token can be chosen, and those after its guesses."""

    sequence: _Sequence
    logits: Tensor
    """[1 + guesses, vocab]."""
    prefilled: int
    """Prompt tokens computed on the way here in this step."""
    guesses: list[int]


class Engine:
    """Runs the sequences of one decoder."""

    def __init__(self, model: LanguageModel, manifest: Manifest, folder: Path, slots: int, pool: PagePool | None) -> None:
        self._model = model
        self._window, self._vocab, self._eos = manifest.window, manifest.vocab, frozenset(manifest.eos)
        self._grammars = Grammars(folder, manifest.vocab, manifest.eos)
        self._slots = slots
        self._pace = Pace()
        self.pool = pool
        """None: the model has no pages."""
        self._sequences: dict[int, _Sequence] = {}  # in order of arrival

    def __contains__(self, seq: int) -> bool:
        return seq in self._sequences

    @property
    def busy(self) -> bool:
        """Whether some sequence holds a lease."""
        return bool(self._leased())

    @property
    def empty(self) -> bool:
        """Whether no sequence is there, leased or not."""
        return not self._sequences

    def begin(self, begin: Begin) -> None:
        """Admit a sequence. Raises RefusedError, or RuntimeError when memory is short for so long a row; nothing of it remains then."""
        self._check(begin)
        grammar = None
        if begin.schema is not None:
            grammar = self._grammars.start(begin.schema, begin.prompt[len(begin.prompt) - begin.resumed :])
        self._model.open(begin.seq, len(begin.prompt))
        if begin.cached and self.pool is not None:
            self.pool.restore(self._model.adopt(begin.seq, begin.cached), begin.pages, begin.cached)
        guesses = grammar is None and bool(self._model.page_shape)  # what has no pages cannot forget those that were wrong
        lookup = Lookup(begin.prompt) if guesses else None
        self._sequences[begin.seq] = _Sequence(begin, begin.lease, grammar, lookup, begin.resumed, begin.cached)

    def extend(self, seq: int, tokens: int) -> None:
        """Add to the lease of a sequence."""
        self._sequences[seq].lease += tokens

    def save(self, save: Save) -> Saved:
        """Copy pages of a sequence into the pool; raises RefusedError, and then the slots hold nothing."""
        if self.pool is None:
            raise RefusedError(f"{save.model!r} has no pages")
        sequence = self._sequences.get(save.seq)
        if sequence is None:
            self.pool.forget("device", save.slots)
            raise RefusedError(f"sequence {save.seq} is not there (any more)")
        began = time.perf_counter()
        self.pool.save(self._model.row(save.seq), sequence.held, save.first, save.slots)
        return Saved(save.seq, save.first, sequence.held, time.perf_counter() - began)

    def copy(self, copy: Copy) -> Copied | None:
        """See `PagePool.copy`."""
        if self.pool is None:
            raise RefusedError(f"{copy.model!r} has no pages")
        return self.pool.copy(copy)

    def stop(self, seq: int) -> None:
        """Forget a sequence and free its KV cache."""
        del self._sequences[seq]
        self._model.close(seq)

    def step(self, newcomer: Newcomer = nobody) -> list[Stepped | Failed]:
        """Advance every sequence that holds a lease, unless the step is given up for a newcomer; pre: `busy`."""
        began = time.perf_counter()
        shares = self._shares()
        rows = sum(not share.sequence.prompting for share in shares)
        least = max(share.sequence.begin.rank for share in shares)
        try:
            logits = self._model.forward(
                [share.work() for share in shares], lambda: newcomer() < least and self._pace.can_waste(time.perf_counter() - began)
            )
        except GivenUpError:
            self._pace.waste(time.perf_counter() - began)
            return []
        results = self._account(shares, logits)
        outputs = [result for result in results if isinstance(result, Output)]
        failed = [result for result in results if isinstance(result, Failed)]
        seconds = time.perf_counter() - began
        guesses = sum(len(share.guesses) for share in shares)
        self._pace.learn(rows + guesses, sum(share.size for share in shares) - rows, seconds)
        return [Stepped(outputs, seconds, rows), *failed]

    def _shares(self) -> list[_Share]:
        """Who takes part in a step with how many tokens: all that lack one token only, and the most urgent prompts, within a limit."""
        leased = self._leased()
        rows = [sequence for sequence in leased if sequence.missing == 1]
        prompts = [sequence for sequence in leased if sequence.missing > 1]
        # What is left of the limit does not go to less urgent prompts: the urgent would wait for them.
        rank = min((sequence.begin.rank for sequence in prompts), default=inf)
        prompts = [sequence for sequence in prompts if sequence.begin.rank == rank]
        behind = any(row.begin.rank < rank for row in rows)
        most = self._pace.beside(len(rows), behind=behind) if rows else self._pace.alone()
        if any(rank < row.begin.rank for row in rows):  # those who decode and are less urgent sit out, so that the step is shorter
            rows = [row for row in rows if row.begin.rank <= rank]
            most = PREFILL_URGENT if rows else self._pace.alone()
        shares = [_Share(row, 1) for row in rows]
        if not prompts:
            shares = [_Share(row, 1, self._guesses(row, len(rows))) for row in rows]
        for sequence in prompts:
            count = min(sequence.missing, most)
            most -= count
            if count:
                shares.append(_Share(sequence, count))
        return shares

    def _guesses(self, sequence: _Sequence, rows: int) -> list[int]:
        """What one of so many rows may go on with, as far as it could be used and is worth computing."""
        lookup, left = sequence.lookup, sequence.begin.max_tokens - sequence.produced
        most = min(GUESSING // rows, sequence.lease, left, self._window - sequence.length) - 1
        if lookup is None or most < 1:
            return []
        guesses = lookup.guess(most)
        return guesses[: self._pace.guesses(rows, lookup.likely, len(guesses))]

    def _leased(self) -> list[_Sequence]:
        return [sequence for sequence in self._sequences.values() if sequence.lease > 0 and not sequence.finish]

    def _check(self, begin: Begin) -> None:
        prompt, resumed = begin.prompt, begin.resumed
        check(begin.sampling)
        rules = {
            f"all {self._slots} slots are taken": len(self._sequences) >= self._slots,
            "the prompt is empty": not prompt,
            f"the prompt has {len(prompt)} tokens, the window of the model is {self._window}": len(prompt) >= self._window,
            f"the prompt has token ids outside 0 to {self._vocab - 1}": any(not 0 <= t < self._vocab for t in prompt),
            f"resumed is {resumed}, not within the prompt and below max_tokens": not (0 <= resumed < min(len(prompt), begin.max_tokens)),
        }
        for reason, broken in rules.items():
            if broken:
                raise RefusedError(reason)
        self._check_pages(begin)

    def _check_pages(self, begin: Begin) -> None:
        if not 0 <= begin.cached < len(begin.prompt):
            raise RefusedError(f"{begin.cached} tokens are cached of a prompt of {len(begin.prompt)}, whose last one must be computed")
        if self.pool is not None:
            self.pool.check(begin.pages, begin.cached)
        elif begin.pages or begin.cached:
            raise RefusedError(f"{begin.model!r} has no pages")

    def _account(self, shares: list[_Share], logits: list[Tensor | RuntimeError | None]) -> list[Output | Failed]:
        """Take what was computed into the sequences; those with logits produce a token."""
        results: list[Output | Failed] = []
        ready: list[_Ready] = []
        for (sequence, count, guesses), row in zip(shares, logits, strict=True):
            if isinstance(row, RuntimeError):  # out of memory: this one is too long for what is left
                results.append(self._fail(sequence, row))
                continue
            prefilled = count if sequence.prompting else 0
            sequence.held += count
            if row is None:
                results.append(Output(sequence.begin.seq, [], prefilled, "", sequence.held))
            else:
                ready.append(_Ready(sequence, row, prefilled, guesses))
        return results + self._produce(ready)

    def _produce(self, ready: list[_Ready]) -> list[Output | Failed]:
        """Choose and account a token for each ready sequence, and more where it was guessed."""
        if not ready:
            return []
        places = [(entry.sequence, ahead) for entry in ready for ahead in range(len(entry.logits))]
        logits = torch.cat([entry.logits for entry in ready])
        for (sequence, _), row in zip(places, logits, strict=True):
            if sequence.grammar is not None:
                sequence.grammar.mask(row)
        tokens = iter(choose(logits, [(sequence.begin.sampling, sequence.length + ahead) for sequence, ahead in places]))
        return [self._output(entry, list(islice(tokens, len(entry.logits)))) for entry in ready]

    def _output(self, entry: _Ready, chosen: list[int]) -> Output | Failed:
        """Take the first of the chosen tokens, and each further one as long as the guess that it was chosen after was right."""
        sequence, tokens, right = entry.sequence, list[int](), 0
        finish: Finish = ""
        try:
            for right, token in enumerate(chosen):
                accepted, finish = self._accept(sequence, token)
                tokens += accepted
                if finish or entry.guesses[right : right + 1] != [token]:
                    break
        except RefusedError as error:
            return self._fail(sequence, error)
        sequence.held += right
        if right < len(entry.guesses):
            self._model.cut(sequence.begin.seq, sequence.held)
        if sequence.lookup is not None:
            sequence.lookup.extend(tokens)
        sequence.finish = finish
        if finish and not sequence.begin.keep:
            self.stop(sequence.begin.seq)
        return Output(sequence.begin.seq, tokens, entry.prefilled, finish, sequence.held)

    def _accept(self, sequence: _Sequence, token: int) -> tuple[list[int], Finish]:
        """Take a token into the sequence: what of it goes out, and whether the turn ends with it."""
        begin, grammar = sequence.begin, sequence.grammar
        if grammar is not None:
            grammar.accept(token)
        if token in self._eos and (grammar is not None or not begin.sampling.ignore_eos):
            return [], "stop"
        sequence.token = token
        sequence.produced += 1
        sequence.lease -= 1
        if grammar is not None and grammar.complete:
            return [token], "stop"
        full = sequence.produced == begin.max_tokens or sequence.length == self._window
        return [token], "length" if full else ""

    def _fail(self, sequence: _Sequence, error: Exception) -> Failed:
        self.stop(sequence.begin.seq)
        return Failed(str(error), seq=sequence.begin.seq)
