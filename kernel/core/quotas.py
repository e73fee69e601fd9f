"""Quotas: what each principal may use, and the books of what it uses.

Most limits are counts of what is held: taken, and given back. Tokens are a bucket that holds a minute's worth and fills at that rate. A
turn needs its prompt in the bucket to start (of a prompt larger than the bucket, a full bucket); what it generates is charged as it comes
and may leave the bucket in debt, and the next turn waits until that is paid.

An agent is charged to all its payers, its app and its user. Either every book takes a charge or none does.

Books are kept in whole numbers (tokens times `_TOKEN`, microseconds), so that no charge is lost by rounding. How fast tokens were asked
for lately is an estimate beside them: a minute's worth can be used at once, but not at the expense of those who keep to their rate.
"""

from collections.abc import Callable, Mapping
from math import exp
from typing import Final, get_args

from kernos.syscalls.errors import LimitError
from kernos.syscalls.process import LimitName, Meter

from ..limits import FLOOD_RATIO, IDLE_BOOKS, LATELY_S, QUOTA_RETRY_S

Limits = Mapping[LimitName, int]
"""Every limit of a principal."""

Payers = tuple[str, ...]
"""The principals that a charge is for, each once."""

NAMES: Final[tuple[LimitName, ...]] = get_args(LimitName)

WINDOW_S: Final = 60.0
"""The minute of `tokens_per_minute`: a bucket holds what flows into it in this time."""

_TOKEN: Final = 60_000_000
"""Microseconds of a minute: at one token a minute, this many parts of a token flow in, one each microsecond."""

_FEW: Final = 1e-3
"""Calls that are none: of what was so long ago no mean can be told."""

_ADVICE: Final[dict[LimitName, str]] = {
    "tokens_per_minute": "Come back later",
    "turns": "Wait for one to end",
    "kv_pages": "Wait for a turn to end, or ask for a shorter answer (a page is 64 tokens)",
    "calls": "Wait for some to end",
    "processes": "End some agents",
    "contexts": "Delete a context",
    "files": "Delete a file",
    "bytes": "Delete a context or a file",
}


class Bucket:
    """Tokens that are there, in parts of `_TOKEN`; it begins full. A changed rate takes effect when the bucket is next looked at."""

    __slots__ = ("at", "level", "rate")

    def __init__(self, rate: int, now: float) -> None:
        self.rate = rate
        self.level = rate * _TOKEN
        self.at = _micros(now)

    def settle(self, rate: int, now: float) -> None:
        """Let flow in what is due. A higher rate brings the room it adds, full; a lower one spills what has no room."""
        at = max(self.at, _micros(now))
        flown = min(self.level + (at - self.at) * self.rate, self.rate * _TOKEN)
        self.level = min(flown + max(0, rate - self.rate) * _TOKEN, rate * _TOKEN)
        self.rate, self.at = rate, at

    def missing(self, tokens: int) -> int:
        """Parts that are not there yet for a turn of so many tokens; 0: it may start."""
        return max(0, max(1, min(tokens, self.rate)) * _TOKEN - self.level)

    def used(self) -> int:
        """Tokens that are not back yet, begun ones included."""
        return self.rate - self.level // _TOKEN

    @property
    def full(self) -> bool:
        """Whether it remembers nothing."""
        return self.level == self.rate * _TOKEN


class Lately:
    """How fast tokens were asked for in about the last `LATELY_S`: a mean in which what is older counts exponentially less.

    What was refused counts as well. With what was used alone a flood shows the later the better it is held back: one of ten times the
    usual, of which a few calls at a time are let through, took eight seconds, in which the calls of others waited twice as long.
    """

    __slots__ = ("_ahead", "_at", "_calls", "_tokens")

    def __init__(self, now: float) -> None:
        self._tokens = self._calls = 0.0
        self._at, self._ahead = now, False

    def add(self, tokens: float, calls: int, limit: int, now: float) -> None:
        """So many calls asked for tokens, or those before used more, or (fewer than none) did not use them after all."""
        self.ahead(limit, now)
        left = self._left(now)
        self._tokens = max(0.0, self._tokens * left + tokens)
        self._calls = self._calls * left + calls
        self._at = now

    def refuse(self, limit: int, now: float) -> None:
        """A call was refused before it was known what it would use: as much as others of late did."""
        if self._calls > _FEW:
            self.add(self._tokens / self._calls, 1, limit, now)

    def ahead(self, limit: int, now: float) -> bool:
        """Whether it was faster than a limit per minute lets them flow: from `FLOOD_RATIO` times it on, until it is not at all.

        With one bound for both, arrivals by chance are taken for a flood, or a flood swings about the bound and is none half the time.
        """
        rate = self._tokens * self._left(now) * WINDOW_S / LATELY_S
        self._ahead = rate > (limit if self._ahead else FLOOD_RATIO * limit)
        return self._ahead

    def _left(self, now: float) -> float:
        """What part of it still counts."""
        return exp((self._at - now) / LATELY_S)


class Book:
    """What one principal uses."""

    __slots__ = ("bucket", "held", "lately")

    def __init__(self, bucket: Bucket, now: float) -> None:
        self.bucket = bucket
        self.lately = Lately(now)
        self.held: dict[LimitName, int] = dict.fromkeys(NAMES, 0)


class Bill:
    """What a turn was charged. It is closed once, and what comes after that is left out."""

    __slots__ = ("_held", "_open", "_payers", "_quotas", "tokens")

    def __init__(self, quotas: "Quotas", payers: Payers, tokens: int, held: Limits) -> None:
        self._quotas = quotas
        self._payers = payers
        self._held = held
        self._open = True
        self.tokens = tokens

    def charge(self, tokens: int, now: float) -> None:
        """It has generated."""
        if self._open:
            self.tokens += tokens
            self._quotas.pour(self._payers, -tokens, now)

    def refund(self, now: float) -> None:
        """It failed, and not by its caller's doing: its tokens come back."""
        if self._open:
            self._quotas.pour(self._payers, self.tokens, now)
            self.tokens = 0

    def close(self) -> None:
        """It has ended."""
        if self._open:
            self._open = False
            self._quotas.give(self._payers, self._held)


class Quotas:
    """The books of all principals. `law` says what a principal's limits are; `set_limits` goes before it."""

    def __init__(self, law: Callable[[str], Limits]) -> None:
        self.books: dict[str, Book] = {}
        self.poured: set[str] = set()
        """Whose buckets were changed by others than time; whoever writes them down empties this."""
        self._law = law
        self._set: dict[str, dict[LimitName, int]] = {}
        self._sweep_at = IDLE_BOOKS

    def limits(self, principal: str) -> Limits:
        """The limits in force."""
        changed = self._set.get(principal)
        return {**self._law(principal), **changed} if changed else self._law(principal)

    def set_limits(self, principal: str, limits: Limits) -> None:
        """Change some limits of a principal; none: go back to the law."""
        if limits:
            self._set.setdefault(principal, {}).update(limits)
        else:
            self._set.pop(principal, None)

    # --- what is held -------------------------------------------------------------------------------------------------------------

    def check(self, payers: Payers, wanted: Limits) -> None:
        """Raise `LimitError` if one of the payers cannot hold that much more."""
        for payer in payers:
            held, limits = self._held(payer), self.limits(payer)
            for name, amount in wanted.items():
                if amount > 0 and held[name] + amount > limits[name]:
                    retry = name in ("turns", "kv_pages", "calls") and amount <= limits[name]
                    raise _refusal(payer, name, limits[name], held[name], QUOTA_RETRY_S if retry else None)

    def check_call(self, payers: Payers, now: float, *, computes: bool) -> None:
        """Raise `LimitError` if one of the payers has as many calls in flight as it may; of one that `computes`, this is remembered."""
        try:
            self.check(payers, {"calls": 1})
        except LimitError as error:
            book = self.books.get(error.details["principal"])
            if computes and book is not None:
                book.lately.refuse(book.bucket.rate, now)
            raise

    def take(self, payers: Payers, wanted: Limits, now: float) -> None:
        """Let all payers hold that much more, or raise `LimitError` and change nothing."""
        self.check(payers, wanted)
        self.hold(payers, wanted, now)

    def hold(self, payers: Payers, wanted: Limits, now: float) -> None:
        """As `take`, of what was checked before."""
        for payer in payers:
            held = self._book(payer, now).held
            for name, amount in wanted.items():
                held[name] += amount

    def give(self, payers: Payers, returned: Limits) -> None:
        """They hold that much less."""
        for payer in payers:
            held = self.books[payer].held
            for name, amount in returned.items():
                held[name] -= amount
                assert held[name] >= 0, f"{payer} gave back more {name} than it took"

    # --- tokens -------------------------------------------------------------------------------------------------------------------

    def spend(self, payers: Payers, tokens: int, now: float) -> None:
        """Charge tokens that must be there before the work begins, or raise `LimitError` and charge nothing."""
        for payer in payers:
            bucket = self._bucket(payer, now)
            if missing := bucket.missing(tokens):
                self.books[payer].lately.add(tokens, 1, bucket.rate, now)  # asked for all the same
                # One microsecond more than needed, as the caller's clock may be a part of one behind.
                wait = (-(-missing // bucket.rate) + 1) / 1e6 if bucket.rate else None
                raise _refusal(payer, "tokens_per_minute", bucket.rate, bucket.used(), wait)
        self.pour(payers, -tokens, now, calls=1)

    def pour(self, payers: Payers, tokens: int, now: float, *, calls: int = 0) -> None:
        """Put tokens back, or (fewer than none) take them whether they are there or not; `calls` new ones asked for them."""
        for payer in payers:
            bucket = self._bucket(payer, now)
            bucket.level = min(bucket.level + tokens * _TOKEN, bucket.rate * _TOKEN)
            self.books[payer].lately.add(-tokens, calls, bucket.rate, now)
            self.poured.add(payer)

    def ahead(self, payers: Payers, now: float) -> bool:
        """Whether one of the payers lately asked for tokens faster than its limit lets them flow, see `Lately`; asking makes no book."""
        books = ((self.books.get(payer), self.limits(payer)["tokens_per_minute"]) for payer in payers)
        return any(book is not None and book.lately.ahead(rate, now) for book, rate in books)

    def begin(self, payers: Payers, prompt: int, pages: int, now: float) -> Bill:
        """Charge the start of a turn that may fill so many KV pages, or raise `LimitError` and change nothing."""
        held: Limits = {"turns": 1, "kv_pages": pages}
        self.check(payers, held)
        self.spend(payers, prompt, now)
        self.take(payers, held, now)
        return Bill(self, payers, prompt, held)

    def bucket(self, payer: str, now: float) -> tuple[int, int] | None:
        """The rate of a bucket and what is in it, in parts of a token; `None` if it is full, and so remembers nothing."""
        bucket = self._bucket(payer, now)
        return None if bucket.full else (bucket.rate, bucket.level)

    def restore(self, payer: str, rate: int, level: int, now: float, age_s: float) -> None:
        """Take over a bucket as it was some seconds ago."""
        bucket = self._book(payer, now).bucket
        bucket.rate, bucket.level, bucket.at = rate, level, _micros(now - age_s)

    # --- the books ----------------------------------------------------------------------------------------------------------------

    def usage(self, principal: str, now: float) -> list[Meter]:
        """Every limit of a principal; asking makes no book."""
        limits, held = self.limits(principal), dict(self._held(principal))
        if principal in self.books:
            held["tokens_per_minute"] = self._bucket(principal, now).used()
        return [Meter(name, held[name], limits[name], WINDOW_S if name == "tokens_per_minute" else 0.0) for name in NAMES]

    def _held(self, payer: str) -> dict[LimitName, int]:
        book = self.books.get(payer)
        return book.held if book is not None else _NOTHING

    def _bucket(self, payer: str, now: float) -> Bucket:
        bucket = self._book(payer, now).bucket
        bucket.settle(self.limits(payer)["tokens_per_minute"], now)
        return bucket

    def _book(self, payer: str, now: float) -> Book:
        book = self.books.get(payer)
        if book is None:
            if len(self.books) >= self._sweep_at:
                self._sweep(now)
            book = self.books[payer] = Book(Bucket(self.limits(payer)["tokens_per_minute"], now), now)
        return book

    def _sweep(self, now: float) -> None:
        """Close the books that say nothing: apps choose the names of users, so books must not grow with them."""
        for payer, book in list(self.books.items()):
            if self._bucket(payer, now).full and not any(book.held.values()):
                del self.books[payer]
        self._sweep_at = max(IDLE_BOOKS, 2 * len(self.books))


_NOTHING: Final[dict[LimitName, int]] = dict.fromkeys(NAMES, 0)


def _micros(now: float) -> int:
    return int(now * 1e6)


def _refusal(payer: str, name: LimitName, allowed: int, used: int, retry_after: float | None) -> LimitError:
    return LimitError(
        f"{payer} has used up its limit `{name}`: {used} of {allowed}. {_ADVICE[name]}, or ask the administrator for more.",
        retry_after=retry_after,
        principal=payer,
        limit=name,
        allowed=str(allowed),
        used=str(used),
    )
