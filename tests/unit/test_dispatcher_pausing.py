"""When an endpoint that fails is spared, and when it is tried again."""

from hypothesis import given, settings
from hypothesis import strategies as st

from millrace_core import limits
from millrace_dispatcher.pausing import Breaker, Pace, Pausing

KEY = ("acc", "we_1")


def opened(now_ms: int = 0) -> Breaker:
    breaker = Breaker()
    for _ in range(limits.BREAKER_STREAK):
        assert breaker.admits(now_ms)
        breaker.failed(now_ms)
    return breaker


def test_it_opens_on_a_streak_and_not_before() -> None:
    breaker = Breaker()
    for _ in range(limits.BREAKER_STREAK - 1):
        breaker.failed(0)
    assert breaker.admits(0)
    breaker.succeeded()
    for _ in range(limits.BREAKER_STREAK - 1):
        breaker.failed(0)
    assert breaker.state(0) == "closed"
    breaker.failed(0)
    assert breaker.state(0) == "open"
    assert not breaker.admits(0)


def test_after_a_while_one_probe_goes_through() -> None:
    breaker = opened()
    at = limits.BREAKER_OPEN_MS
    assert breaker.state(at) == "half_open"
    assert breaker.admits(at)
    assert not breaker.admits(at)
    breaker.succeeded()
    assert breaker.state(at) == "closed"
    assert breaker.admits(at)


def test_a_failed_probe_opens_it_for_twice_as_long_up_to_a_bound() -> None:
    breaker, now = opened(), 0
    expected = limits.BREAKER_OPEN_MS
    for _ in range(10):
        assert breaker.open_until_ms == now + expected
        now = breaker.open_until_ms
        assert breaker.admits(now)
        breaker.failed(now)
        expected = min(expected * 2, limits.BREAKER_OPEN_MS_MAX)
    assert breaker.open_ms == limits.BREAKER_OPEN_MS_MAX


def test_what_was_in_flight_when_it_opened_does_not_open_it_longer() -> None:
    breaker = opened()
    until = breaker.open_until_ms
    breaker.failed(1)
    assert breaker.open_until_ms == until


def test_a_probe_that_never_reports_does_not_keep_it_open() -> None:
    breaker = opened()
    assert breaker.admits(limits.BREAKER_OPEN_MS)
    assert breaker.admits(limits.BREAKER_OPEN_MS + limits.BREAKER_OPEN_MS_MAX)


def test_the_pace_halves_and_recovers() -> None:
    pace = Pace()
    assert pace.allowed(32) == 32
    pace.slowed(32)
    assert pace.allowed(32) == 16
    for _ in range(10):
        pace.slowed(32)
    assert pace.allowed(32) == 1
    successes = 0
    while pace.share < 1.0:
        pace.succeeded(32)
        successes += 1
    # Additive increase: about the sum 1 + 2 + … + 32.
    assert 400 < successes < 700


def test_an_endpoint_that_is_well_is_forgotten() -> None:
    pausing = Pausing()
    pausing.failed(KEY, 8, 0, is_overload=True)
    assert pausing.allowed(KEY, 8) == 4
    for _ in range(100):
        pausing.succeeded(KEY, 8)
    assert list(pausing.states(0)) == []
    pausing.failed(KEY, 8, 0, is_overload=False)
    pausing.forget(KEY)
    assert list(pausing.states(0)) == []


def test_one_account_s_endpoint_says_nothing_about_another_s() -> None:
    pausing = Pausing()
    for _ in range(limits.BREAKER_STREAK):
        pausing.failed(KEY, 8, 0, is_overload=True)
    assert not pausing.admits(KEY, 0)
    assert pausing.admits(("other", KEY[1]), 0)
    assert pausing.allowed(("other", KEY[1]), 8) == 8


@given(st.lists(st.tuples(st.sampled_from(["ask", "ok", "fail"]), st.integers(0, 700_000)), max_size=60))
@settings(max_examples=200)
def test_whatever_happens_it_is_tried_again(steps: list[tuple[str, int]]) -> None:
    """From any history, an endpoint is asked again after the longest pause, and a success makes it whole."""
    breaker, now = Breaker(), 0
    for what, passed in steps:
        now += passed
        if what == "ask":
            breaker.admits(now)
        elif what == "ok":
            breaker.succeeded()
        else:
            breaker.failed(now)
        assert breaker.open_until_ms - now <= limits.BREAKER_OPEN_MS_MAX
    now += 2 * limits.BREAKER_OPEN_MS_MAX
    assert breaker.admits(now)
    breaker.succeeded()
    assert breaker.state(now) == "closed"
