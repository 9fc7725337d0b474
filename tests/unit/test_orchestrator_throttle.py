"""A throttle's arithmetic: exact for few, at most one part late for many, never over its limit."""

from random import Random

import pytest

from millrace_core import limits
from millrace_core.messages import Throttle
from millrace_orchestrator.throttle import Spent, free_at, over_at, spend

MINUTE = Throttle(limit=3, period_s=64.0)  # parts of a second


def spent_at(*times: int, throttle: Throttle = MINUTE) -> Spent:
    spent: Spent = ()
    for at in times:
        spent = spend(spent, throttle, at)
    return spent


def test_below_the_limit_the_next_may_begin_now() -> None:
    assert free_at(spent_at(0, 10), MINUTE, 20) == 20


def test_at_the_limit_the_next_waits_for_the_oldest() -> None:
    spent = spent_at(0, 2_000, 4_000)
    assert free_at(spent, MINUTE, 5_000) == 64_000
    assert free_at(spent, MINUTE, 64_000) == 64_000
    assert over_at(spent, MINUTE) == 68_000


def test_a_part_counts_until_its_latest_is_old() -> None:
    spent = spent_at(0, 999, 4_000)
    assert len(spent) == 2
    assert free_at(spent, MINUTE, 64_000) == 64_999


def test_a_lower_limit_holds_for_what_began_before() -> None:
    spent = spent_at(0, 2_000, 4_000)
    assert free_at(spent, Throttle(limit=1, period_s=64.0), 5_000) == 68_000


@pytest.mark.parametrize("limit", [1, 7, 500])
def test_however_many_begin_few_numbers_are_kept_and_no_window_holds_more(limit: int) -> None:
    chance, throttle = Random(limit), Throttle(limit=limit, period_s=10.0)
    now_ms, spent, began = 0, spent_at(), list[int]()
    for _ in range(3_000):
        now_ms = max(now_ms + chance.randrange(40), free_at(spent, throttle, now_ms))
        spent = spend(spent, throttle, now_ms)
        began.append(now_ms)
        assert len(spent) <= 2 * limits.FLOW_THROTTLE_PARTS
    for n in range(len(began) - limit):
        assert began[n + limit] - began[n] >= 10_000
