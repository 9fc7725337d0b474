"""How an endpoint's rate is kept: what waits in its lane, what leaves, and when each has its turn."""

from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from millrace_core import limits
from millrace_dispatcher.rates import Place, Rates

KEY = ("acc", "we_1")
OTHER = ("acc", "we_2")


def place(n: int) -> Place:
    return ("deliveries", 0, n)


def read(rates: Rates, n: int, per_s: float, now_s: float = 0.0, *, is_back: bool = False) -> float | None:
    return rates.leaves_for_s(KEY, place(n), per_s, now_s, is_back=is_back)


def begins(rates: Rates, n: int, per_s: float, now_s: float) -> bool:
    return rates.hold_s(KEY, place(n), per_s, now_s) <= now_s


def test_a_burst_waits_in_the_lane_for_a_moment_and_the_rest_leaves_for_its_turn() -> None:
    rates = Rates()
    away = [read(rates, n, 10.0) for n in range(30)]
    assert away[:11] == [None] * 11
    assert [round(away_s or 0.0, 3) for away_s in away[11:]] == [round(n / 10, 3) for n in range(11, 30)]
    assert rates.waiting == 11


def test_calls_keep_their_distance() -> None:
    rates, calls, now_s = Rates(), list[float](), 0.0
    for n in range(20):
        while not begins(rates, n, 10.0, now_s):
            now_s += 0.001
        calls.append(now_s)
    assert 1.85 <= calls[-1] - calls[0] <= 1.95


def test_after_a_silence_hardly_more_than_one_goes_at_once() -> None:
    rates = Rates()
    assert begins(rates, 0, 100.0, 0.0)
    at_once = sum(begins(rates, n, 100.0, 50.0) for n in range(1, 50))
    assert at_once == 1 + limits.RATE_BURST_S * 100


def test_a_lane_is_held_back_no_longer_than_until_it_is_asked_again() -> None:
    rates = Rates()
    assert begins(rates, 0, 0.01, 0.0)
    assert rates.hold_s(KEY, place(1), 0.01, 1.0) == 1.0 + limits.RATE_WAIT_S


def test_what_is_new_goes_behind_what_has_left_and_what_comes_back_does_not() -> None:
    rates = Rates()
    assert read(rates, 0, 0.5) is None
    assert begins(rates, 0, 0.5, 0.0)
    assert read(rates, 1, 0.5) == 2.0 - limits.RATE_BURST_S
    assert read(rates, 2, 0.5) == 4.0 - limits.RATE_BURST_S
    assert read(rates, 1, 0.5, 2.0, is_back=True) is None
    assert begins(rates, 1, 0.5, 2.0)
    assert read(rates, 3, 0.5, 2.5) == 6.0 - limits.RATE_BURST_S - 2.5
    assert read(rates, 4, 0.5, 20.0) is None


def test_nothing_is_away_for_long_so_that_a_changed_rate_is_heard_of() -> None:
    rates = Rates()
    away = [read(rates, n, 1.0) or 0.0 for n in range(5_000)]
    assert max(away) == limits.RATE_AWAY_S_MAX
    rates.forget(KEY)
    assert read(rates, 9_999, 100.0) is None


def test_what_waits_is_counted_until_it_begins_or_goes_another_way() -> None:
    rates = Rates()
    for n in range(5):
        read(rates, n, 10.0)
    rates.over(KEY, place(4))
    rates.over(KEY, place(4))
    rates.over(OTHER, place(0))
    assert rates.waiting == 4
    assert begins(rates, 0, 10.0, 0.0)
    assert rates.waiting == 3
    rates.lost("deliveries", 1)
    assert rates.waiting == 3
    rates.lost("deliveries", 0)
    assert rates.waiting == 0


def test_one_account_s_endpoint_says_nothing_about_another_s() -> None:
    rates = Rates()
    assert begins(rates, 0, 0.01, 0.0)
    assert rates.hold_s(("other", KEY[1]), place(1), 0.01, 0.0) == 0.0


@given(
    per_s=st.floats(limits.ENDPOINT_RATE_MIN, 1_000.0),
    gaps=st.lists(st.floats(0.0, 3.0), min_size=1, max_size=60),
)
@settings(max_examples=200)
def test_whenever_it_is_asked_the_rate_is_kept(per_s: float, gaps: list[float]) -> None:
    rates, calls, now_s = Rates(), list[float](), 1.0
    for n, gap in enumerate(gaps):
        now_s += gap
        if begins(rates, n, per_s, now_s):
            calls.append(now_s)
    burst = 1 + limits.RATE_BURST_S * per_s
    for first, last in combinations(range(len(calls)), 2):
        assert last - first + 1 <= (calls[last] - calls[first]) * per_s + burst + 1e-6
