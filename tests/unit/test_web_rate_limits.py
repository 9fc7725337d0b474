"""Rates: a burst of the whole window, then evenly; each account for itself; bounded memory."""

import pytest

from millrace_core.clock import ManualClock
from millrace_web import rate_limits
from millrace_web.rate_limits import RateLimits
from millrace_web.rate_plans import PLANS


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def allowed(rates: RateLimits, plan: str, count: int, account: str = "a") -> int:
    return sum(rates.take(account, plan).retry_after_s is None for _ in range(count))


def test_a_minutes_burst_then_one_by_one(clock: ManualClock) -> None:
    rates = RateLimits(clock)
    assert allowed(rates, "pro", 400) == 300
    clock.advance(0.2)
    assert allowed(rates, "pro", 5) == 1
    clock.advance(60)
    assert allowed(rates, "pro", 400) == 300


def test_headers_count_down(clock: ManualClock) -> None:
    rates = RateLimits(clock)
    verdicts = [rates.take("a", "free") for _ in range(61)]
    assert [v.remaining for v in verdicts] == [*range(59, -1, -1), 0]
    assert verdicts[0].retry_after_s is None
    assert verdicts[-1].retry_after_s == 1
    now_s = clock.now_ms() / 1000
    assert verdicts[0].reset_at == pytest.approx(now_s + 1, abs=1)
    assert verdicts[-1].reset_at == pytest.approx(now_s + 60, abs=1)
    assert dict(verdicts[0].headers())[b"x-ratelimit-limit"] == b"60"


def test_the_day_has_its_own_bound(clock: ManualClock) -> None:
    rates = RateLimits(clock)
    total = 0
    for _ in range(30):
        total += allowed(rates, "free", 60)
        clock.advance(60)
    assert 1_000 <= total < 1_000 + 30
    verdict = rates.take("a", "free")
    assert verdict.limit == 1_000
    assert verdict.retry_after_s is not None
    assert verdict.retry_after_s > 1


def test_accounts_do_not_share(clock: ManualClock) -> None:
    rates = RateLimits(clock)
    assert allowed(rates, "free", 100, "a") == 60
    assert allowed(rates, "free", 100, "b") == 60


def test_processes_share_evenly(clock: ManualClock) -> None:
    assert allowed(RateLimits(clock, share=1 / 4), "free", 100) == 15


def test_an_unknown_plan_is_the_smallest_and_enterprise_has_no_practical_limit(clock: ManualClock) -> None:
    rates = RateLimits(clock)
    assert allowed(rates, "gold", 100) == 60
    assert allowed(rates, "enterprise", 20_000, "b") == 20_000
    assert set(PLANS) == {"free", "starter", "pro", "business", "cloud", "team", "enterprise"}


def test_events_fired_have_a_rate_of_their_own(clock: ManualClock) -> None:
    rates = RateLimits(clock)
    assert sum(rates.take_fire("a", "free").retry_after_s is None for _ in range(1_100)) == 1_000
    assert allowed(rates, "free", 100) == 60
    assert all(rates.take_fire("b", "enterprise").retry_after_s is None for _ in range(1_100))


def test_looking_counts_nothing(clock: ManualClock) -> None:
    rates = RateLimits(clock)
    assert [rates.look("a", "free").remaining for _ in range(3)] == [60, 60, 60]
    rates.take("a", "free")
    assert rates.look("a", "free").remaining == 59


def test_a_reset_in_milliseconds_is_the_same_moment(clock: ManualClock) -> None:
    verdict = RateLimits(clock).take("a", "free")
    assert dict(verdict.headers(per_s=1_000))[b"x-ratelimit-reset"] == b"%d000" % verdict.reset_at


def test_a_plan_change_holds_at_once(clock: ManualClock) -> None:
    rates = RateLimits(clock)
    assert allowed(rates, "free", 100) == 60
    assert allowed(rates, "business", 10) == 10 or rates.take("a", "business").limit == 600


def test_memory_is_bounded(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "ACCOUNTS_MAX", 100)
    rates = RateLimits(clock)
    for n in range(1_000):
        rates.take(f"account{n}", "enterprise")
        clock.advance(0.01)
    assert len(rates) <= 101
