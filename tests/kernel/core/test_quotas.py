"""The books: exact, bounded, and all or nothing, on a clock that moves by hand."""

import random
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kernos.kernel.core import quotas as module
from kernos.kernel.core.quotas import NAMES, Bill, Limits, Quotas
from kernos.kernel.limits import LATELY_S
from kernos.syscalls.errors import LimitError
from tests.kernel.fakes import examples

NOW = 1_000.0
SHOP, ANNA = "app:shop", "user:anna"
BOTH = (SHOP, ANNA)


def limits(**changed: int) -> Limits:
    return {**dict.fromkeys(NAMES, 10), "tokens_per_minute": 600, **changed}  # type: ignore[dict-item]


def books(**of: Limits) -> Quotas:
    """Limits by the name behind the kind; the others have those of `limits`."""
    return Quotas(lambda principal: of.get(principal.partition(":")[2], limits()))


def used(quotas: Quotas, principal: str, name: str, now: float = NOW) -> int:
    return next(meter.used for meter in quotas.usage(principal, now) if meter.limit == name)


def refused(act: Any, *arguments: Any, **options: Any) -> LimitError:
    with pytest.raises(LimitError) as caught:
        act(*arguments, **options)
    return caught.value


class TestTokens:
    def test_a_turn_is_refused_at_its_start_alone(self) -> None:
        quotas = books()
        bill = quotas.begin(BOTH, 500, 1, NOW)
        bill.charge(700, NOW)
        assert used(quotas, SHOP, "tokens_per_minute") == 1_200
        error = refused(quotas.begin, BOTH, 100, 1, NOW)
        assert error.details == {"principal": SHOP, "limit": "tokens_per_minute", "allowed": "600", "used": "1200"}
        assert error.retry_after == pytest.approx(70.0, abs=1e-5), "600 in debt and 100 more, at 10 a second"
        assert "app:shop has used up its limit `tokens_per_minute`: 1200 of 600. Come back later" in error.message

    def test_a_prompt_larger_than_the_bucket_waits_for_a_full_one(self) -> None:
        quotas = books()
        quotas.begin((SHOP,), 1, 1, NOW)
        error = refused(quotas.begin, (SHOP,), 5_000, 1, NOW)
        assert error.retry_after == pytest.approx(0.1, abs=1e-5)
        quotas.begin((SHOP,), 5_000, 1, NOW + 0.2)
        assert refused(quotas.begin, (SHOP,), 1, 1, NOW + 0.2).retry_after == pytest.approx(440.1, abs=1e-5)

    def test_nothing_at_all_has_no_time_to_come_back(self) -> None:
        error = refused(books(shop=limits(tokens_per_minute=0)).begin, (SHOP,), 1, 1, NOW)
        assert error.retry_after is None

    def test_a_clock_that_steps_back_takes_nothing_away(self) -> None:
        quotas = books()
        quotas.begin((SHOP,), 600, 1, NOW)
        quotas.pour((SHOP,), 0, NOW - 500)
        assert used(quotas, SHOP, "tokens_per_minute", NOW + 30) == 300

    def test_a_failed_turn_costs_nothing(self) -> None:
        quotas = books()
        bill = quotas.begin(BOTH, 100, 1, NOW)
        bill.charge(50, NOW)
        bill.refund(NOW)
        bill.close()
        bill.refund(NOW)
        bill.charge(7, NOW)
        bill.close()
        assert [used(quotas, payer, name) for payer in BOTH for name in NAMES] == [0] * 2 * len(NAMES)

    def test_a_turn_holds_its_pages_until_it_ends(self) -> None:
        quotas = books()
        bill = quotas.begin((SHOP,), 1, 8, NOW)
        error = refused(quotas.begin, (SHOP,), 1, 3, NOW)
        assert (error.details["limit"], error.details["used"], error.retry_after) == ("kv_pages", "8", 1.0)
        assert refused(quotas.begin, (SHOP,), 1, 11, NOW).retry_after is None, "more than it may ever have"
        bill.close()
        quotas.begin((SHOP,), 1, 10, NOW)

    def test_a_new_limit_holds_at_once(self) -> None:
        quotas = books()
        quotas.begin((SHOP,), 600, 1, NOW)
        refused(quotas.begin, (SHOP,), 100, 1, NOW)
        quotas.set_limits(SHOP, {"tokens_per_minute": 700})
        quotas.begin((SHOP,), 100, 1, NOW)
        quotas.set_limits(SHOP, {"tokens_per_minute": 60})
        assert refused(quotas.begin, (SHOP,), 10, 1, NOW).retry_after == pytest.approx(10.0, abs=1e-5)
        quotas.set_limits(SHOP, {})
        assert quotas.limits(SHOP) == limits()

    @examples(200)
    @given(
        rate=st.integers(1, 5_000),
        moves=st.lists(st.tuples(st.floats(0, 90), st.integers(0, 3_000), st.integers(0, 500)), min_size=1, max_size=40),
    )
    def test_never_more_is_admitted_than_burst_and_rate_times_time(self, rate: int, moves: list[tuple[float, int, int]]) -> None:
        quotas, now, charged = books(shop=limits(tokens_per_minute=rate, turns=100, kv_pages=100)), NOW, 0
        for pause, prompt, answer in moves:
            now += pause
            try:
                bill = quotas.begin((SHOP,), prompt, 1, now)
            except LimitError as error:
                assert error.retry_after is not None
                early = now + error.retry_after - 1e-4
                if early > now:
                    assert isinstance(refused(quotas.begin, (SHOP,), prompt, 1, early), LimitError)
                now += error.retry_after
                bill = quotas.begin((SHOP,), prompt, 1, now)
            overdraft = max(0, prompt - rate)
            charged += prompt
            assert charged <= rate + rate * (now - NOW) / 60 + overdraft + 1e-3
            bill.charge(answer, now)
            charged += answer

    @examples(200)
    @given(data=st.data())
    def test_the_account_is_exact(self, data: st.DataObject) -> None:
        """While the bucket has room, its level is what flowed in less what was charged and not refunded, to the last part."""
        rate, now, net = 6_000, NOW, 0
        quotas = books(shop=limits(tokens_per_minute=rate, turns=1_000))
        quotas.pour((SHOP,), -1_000_000, now)  # deep in debt, so that nothing spills
        bills = [Bill(quotas, (SHOP,), 0, {}) for _ in range(3)]
        for _ in range(data.draw(st.integers(1, 30))):
            now += data.draw(st.integers(0, 1_000_000)) / 1_000_000
            bill = data.draw(st.sampled_from(bills))
            if data.draw(st.booleans()):
                tokens = data.draw(st.integers(0, 1_000))
                bill.charge(tokens, now)
                net += tokens
            else:
                net -= bill.tokens
                bill.refund(now)
        bucket = quotas.books[SHOP].bucket
        bucket.settle(rate, now)
        flown = (int(now * 1e6) - int(NOW * 1e6)) * rate
        assert bucket.level == (rate - 1_000_000 - net) * module._TOKEN + flown


class TestAhead:
    """600 tokens a minute are 10 a second."""

    def test_whoever_keeps_to_the_rate_is_not(self) -> None:
        quotas = books()
        for second in range(300):
            quotas.spend((SHOP,), 9, NOW + second)
            assert not quotas.ahead((SHOP,), NOW + second)

    def test_arrivals_by_chance_are_none(self) -> None:
        quotas, chance, now, taken = books(shop=limits(tokens_per_minute=6_000)), random.Random(3), NOW, 0.0
        while now < NOW + 10_000:
            quotas.pour((SHOP,), -40, now)
            gap = chance.expovariate(2.0)  # 80 tokens a second of 100
            taken += gap * quotas.ahead((SHOP,), now)
            now += gap
        assert taken < 100

    def test_a_flood_is_within_seconds_and_no_longer_soon_after(self) -> None:
        quotas = books(shop=limits(tokens_per_minute=6_000))
        for second in range(300):
            quotas.spend((SHOP,), 80, NOW + second)
        began = NOW + 300
        ahead = [second for second in range(40) if self._after(quotas, 800, began + second)]
        assert ahead[0] <= 2
        assert ahead == list(range(ahead[0], 40)), "as long as it lasts"
        back = [second for second in range(40, 140) if not self._after(quotas, 80, began + second)]
        assert back[0] <= 40 + 4 * LATELY_S
        assert back == list(range(back[0], 140))

    def test_it_stays_one_until_it_keeps_to_the_rate(self) -> None:
        quotas = books(shop=limits(tokens_per_minute=6_000))
        ahead = [second for second in range(100) if self._after(quotas, 200, NOW + second)]
        assert ahead == list(range(ahead[0], 100))
        assert all(self._after(quotas, 120, NOW + second) for second in range(100, 200)), "slower, and still faster than the rate"

    def test_a_flood_shows_however_few_of_its_calls_are_let_through(self) -> None:
        quotas = books(shop=limits(tokens_per_minute=6_000, calls=1))
        for second in range(300):
            quotas.spend((SHOP,), 80, NOW + second)
        quotas.take((SHOP,), {"calls": 1}, NOW)
        for tenth in range(20):  # ten calls a second, as large as those before
            refused(quotas.check_call, (SHOP,), NOW + 300 + tenth / 10, computes=True)
        assert quotas.ahead((SHOP,), NOW + 302)

    def test_calls_that_compute_nothing_are_none(self) -> None:
        quotas = books(shop=limits(tokens_per_minute=6_000, calls=1))
        quotas.spend((SHOP,), 80, NOW)
        quotas.take((SHOP,), {"calls": 1}, NOW)
        for _ in range(100):
            refused(quotas.check_call, (SHOP,), NOW, computes=False)
        assert not quotas.ahead((SHOP,), NOW)

    def test_only_the_payer_who_is_refused_asked_for_too_much(self) -> None:
        quotas = books(shop=limits(tokens_per_minute=6_000, calls=9), anna=limits(tokens_per_minute=6_000, calls=1))
        quotas.spend(BOTH, 80, NOW)
        quotas.take(BOTH, {"calls": 1}, NOW)
        for _ in range(100):
            refused(quotas.check_call, BOTH, NOW, computes=True)
        assert quotas.ahead((ANNA,), NOW)
        assert not quotas.ahead((SHOP,), NOW)

    def test_tokens_that_were_not_there_were_asked_for(self) -> None:
        quotas = books()
        quotas.spend((SHOP,), 600, NOW - 300)
        quotas.pour((SHOP,), -600, NOW)
        assert quotas.ahead((SHOP,), NOW)
        later = NOW + 20
        assert not quotas.ahead((SHOP,), later)
        refused(quotas.spend, (SHOP,), 500, later)
        assert quotas.ahead((SHOP,), later)

    @staticmethod
    def _after(quotas: Quotas, tokens: int, now: float) -> bool:
        quotas.pour((SHOP,), -tokens, now)
        return quotas.ahead((SHOP,), now)

    def test_one_payer_is_enough_and_others_are_not_touched(self) -> None:
        quotas = books(shop=limits(tokens_per_minute=60_000))
        quotas.begin(BOTH, 590, 1, NOW)
        assert quotas.ahead(BOTH, NOW)
        assert quotas.ahead((ANNA,), NOW)
        assert not quotas.ahead((SHOP, "user:bob"), NOW)
        assert set(quotas.books) == set(BOTH), "asking makes no book"

    def test_what_failed_was_not_used(self) -> None:
        quotas = books()
        quotas.begin((SHOP,), 590, 1, NOW).refund(NOW + 1)
        assert not quotas.ahead((SHOP,), NOW + 1)

    def test_a_higher_limit_is_a_higher_rate(self) -> None:
        quotas = books()
        quotas.spend((SHOP,), 300, NOW)
        assert quotas.ahead((SHOP,), NOW)
        quotas.set_limits(SHOP, {"tokens_per_minute": 2_000})
        assert not quotas.ahead((SHOP,), NOW)


class TestHeld:
    @pytest.mark.parametrize("name", [name for name in NAMES if name != "tokens_per_minute"])
    def test_up_to_the_limit(self, name: Any) -> None:
        quotas = books()
        quotas.take((SHOP,), {name: 10}, NOW)
        error = refused(quotas.take, (SHOP,), {name: 1}, NOW)
        assert (error.details["limit"], error.details["used"], error.details["allowed"]) == (name, "10", "10")
        assert (error.retry_after is not None) == (name in ("turns", "kv_pages", "calls"))
        quotas.give((SHOP,), {name: 1})
        quotas.take((SHOP,), {name: 1}, NOW)

    def test_shrinking_is_always_allowed(self) -> None:
        quotas = books()
        quotas.take((SHOP,), {"bytes": 10}, NOW)
        quotas.set_limits(SHOP, {"bytes": 2})
        quotas.take((SHOP,), {"bytes": -1}, NOW)
        refused(quotas.take, (SHOP,), {"bytes": 1}, NOW)

    @pytest.mark.parametrize("short", ["shop", "anna"])
    def test_both_pay_or_none(self, short: str) -> None:
        quotas = books(**{short: limits(turns=0)})
        assert refused(quotas.begin, BOTH, 5, 1, NOW).details["principal"].endswith(short)
        quotas = books(**{short: limits(tokens_per_minute=1)})
        assert refused(quotas.take, BOTH, {"files": 1, "bytes": 11}, NOW).details["limit"] == "bytes"
        quotas.begin(BOTH, 1, 1, NOW)
        before = [used(quotas, payer, name) for payer in BOTH for name in NAMES]
        assert refused(quotas.begin, BOTH, 1, 1, NOW).details["principal"].endswith(short)
        assert [used(quotas, payer, name) for payer in BOTH for name in NAMES] == before

    @examples(100)
    @given(st.lists(st.tuples(st.sampled_from([(SHOP,), (ANNA,), BOTH]), st.sampled_from(NAMES[1:]), st.integers(1, 4), st.booleans())))
    def test_what_is_held_is_what_was_taken_and_not_given_back(self, moves: list[tuple[Any, Any, int, bool]]) -> None:
        quotas = books()
        held: list[tuple[Any, Any]] = []
        for payers, name, amount, back in moves:
            if back and held:
                quotas.give(*held.pop())
                continue
            try:
                quotas.take(payers, {name: amount}, NOW)
            except LimitError:
                continue
            held.append((payers, {name: amount}))
        for payer in BOTH:
            for name in NAMES[1:]:
                expected = sum(wanted.get(name, 0) for payers, wanted in held if payer in payers)
                assert used(quotas, payer, name) == expected <= 10


class TestBooks:
    def test_asking_makes_no_book(self) -> None:
        quotas = books()
        assert [(meter.used, meter.allowed) for meter in quotas.usage(ANNA, NOW)] == [(0, limits()[name]) for name in NAMES]
        quotas.check(BOTH, {"calls": 1})
        assert not quotas.books

    def test_books_that_say_nothing_are_closed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "IDLE_BOOKS", 10)
        quotas = books()
        quotas.take((SHOP,), {"files": 1}, NOW)
        for number in range(1_000):
            quotas.spend((f"user:{number}",), 600, NOW + number * 60.0)
        assert len(quotas.books) <= 25
        assert used(quotas, SHOP, "files") == 1

    def test_the_window_is_that_of_the_tokens(self) -> None:
        assert [meter.window_s for meter in books().usage(SHOP, NOW)] == [60.0] + [0.0] * 7


@examples(100)
@given(level=st.integers(-5_000, 600), tokens=st.integers(1, 600))
def test_retry_after_is_exact_to_a_few_microseconds(level: int, tokens: int) -> None:
    quotas = books()
    quotas.pour((SHOP,), level - 600, NOW)
    assume(level < tokens)
    after = refused(quotas.spend, (SHOP,), tokens, NOW).retry_after or 0.0
    assert after == pytest.approx((tokens - level) / 10, abs=3e-6)
    refused(quotas.spend, (SHOP,), tokens, NOW + after - 1e-5)
    quotas.spend((SHOP,), tokens, NOW + after)
