"""Requests counted in this process: exactly within a minute, weighted over a day, each key for itself."""

import pytest

from millrace_core import limits
from millrace_core.clock import ManualClock
from millrace_web.rate_plans import Window
from millrace_web.sliding_windows import Counted, OwnWindows

MINUTE, DAY = Window("minute", 60, 5), Window("day", 86_400, 100)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


async def taken(windows: OwnWindows, *of: Window, key: str = "a", times: int = 1) -> list[Counted]:
    """The last window's word on each of so many requests."""
    return [(await windows.take(key, of))[-1] for _ in range(times)]


async def test_a_minute_is_any_minute(clock: ManualClock) -> None:
    windows = OwnWindows(clock)
    assert [one.is_allowed for one in await taken(windows, MINUTE, times=3)] == [True] * 3
    clock.advance(59)
    assert [one.is_allowed for one in await taken(windows, MINUTE, times=3)] == [True, True, False]
    clock.advance(1)  # the first three leave, the last two stay
    assert [one.is_allowed for one in await taken(windows, MINUTE, times=4)] == [True, True, True, False]


async def test_what_is_left_and_when_more_fits(clock: ManualClock) -> None:
    windows = OwnWindows(clock)
    first = await taken(windows, MINUTE)
    clock.advance(20)
    rest = await taken(windows, MINUTE, times=5)
    assert [one.remaining for one in first + rest] == [4, 3, 2, 1, 0, 0]
    assert first[0].reset_in_s == pytest.approx(60)
    assert rest[-1].reset_in_s == pytest.approx(40)
    clock.advance(40)
    assert (await taken(windows, MINUTE))[0].is_allowed


async def test_what_is_refused_takes_nothing(clock: ManualClock) -> None:
    windows = OwnWindows(clock)
    await taken(windows, MINUTE, DAY, times=50)
    assert (await taken(windows, DAY))[0].remaining == 100 - 5 - 1


async def test_a_day_moves_on(clock: ManualClock) -> None:
    windows = OwnWindows(clock)
    assert sum(one.is_allowed for one in await taken(windows, DAY, times=150)) == 100
    clock.advance(86_400)
    assert sum(one.is_allowed for one in await taken(windows, DAY, times=150)) == 0
    clock.advance(43_200)
    assert sum(one.is_allowed for one in await taken(windows, DAY, times=150)) == 50
    clock.advance(2 * 86_400)
    assert sum(one.is_allowed for one in await taken(windows, DAY, times=150)) == 100


async def test_who_waits_as_told_finds_room(clock: ManualClock) -> None:
    windows = OwnWindows(clock)
    await taken(windows, DAY, times=100)
    for _ in range(300):
        (refused,) = await taken(windows, DAY)
        if refused.is_allowed:
            return
        assert refused.reset_in_s > 0
        clock.advance(refused.reset_in_s + 0.001)
    pytest.fail("never room again")


async def test_keys_and_windows_are_counted_apart(clock: ManualClock) -> None:
    windows = OwnWindows(clock)
    await taken(windows, MINUTE, times=9)
    assert (await taken(windows, MINUTE, key="b"))[0].is_allowed
    assert (await taken(windows, Window("another", 60, 5)))[0].is_allowed


async def test_memory_is_bounded(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WINDOWS_COUNTED_MAX", 50)
    windows = OwnWindows(clock)
    for n in range(1_000):
        await taken(windows, MINUTE, key=f"k{n}")
        clock.advance(10)
    assert len(windows) <= 51
