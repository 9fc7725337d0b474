"""Rate limits that replicas share, on a real server: exact however many ask, and never in the way when it is gone."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from millrace_api.shared_windows import SharedWindows
from millrace_core import limits
from millrace_core.clock import SystemClock
from millrace_core.errors import Fatal, Retry
from millrace_web.rate_plans import Window
from millrace_web.sliding_windows import OwnWindows, Windows
from tests.support.valkey import Valkey, valkey
from tests.support.waiting import eventually

MINUTE, DAY = Window("minute", 60, 100), Window("day", 86_400, 150)


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Valkey]:
    async with valkey() as made:
        yield made


@pytest.fixture
async def replicas(server: Valkey) -> AsyncIterator[list[SharedWindows]]:
    """Four processes' windows on one server, which they wait for however busy the machine is."""
    made = [SharedWindows(server.url, SystemClock(), wait_s=5.0) for _ in range(4)]
    await eventually(lambda: _answers(made), what="the store is there")
    yield made
    for one in made:
        await one.stop()


async def _answers(replicas: list[SharedWindows]) -> bool:
    try:
        for one in replicas:
            await one.take("probe", [Window("probe", 60, 1_000_000)])
    except Retry:
        return False
    return True


async def allowed(windows: Windows, key: str, *of: Window, times: int) -> int:
    count = 0
    for _ in range(times):
        counted = await windows.take(key, of)
        count += all(one.is_allowed for one in counted)
    return count


async def test_replicas_together_allow_exactly_the_limit(replicas: list[SharedWindows]) -> None:
    for key, window in (("exact", MINUTE), ("weighted", DAY)):
        counts = await asyncio.gather(*(allowed(one, key, window, times=60) for one in replicas))
        assert sum(counts) == window.allowed, counts


@pytest.mark.parametrize("kind", ["own", "shared"])
async def test_own_and_shared_count_alike(replicas: list[SharedWindows], kind: str) -> None:
    windows: Windows = OwnWindows(SystemClock()) if kind == "own" else replicas[0]
    minute, day = Window("m", 60, 3), Window("d", 86_400, 5)
    first = await windows.take(kind, [minute, day])
    assert [(one.is_allowed, one.remaining) for one in first] == [(True, 2), (True, 4)]
    assert 59 < first[0].reset_in_s < 60.1, "the server's clock is read a moment later than ours"
    assert 0 < first[1].reset_in_s <= 86_400
    assert await allowed(windows, kind, minute, day, times=5) == 2
    (refused,) = await windows.take(kind, [minute, day])
    assert (refused.is_allowed, refused.remaining) == (False, 0)
    assert 50 < refused.reset_in_s < 60.1
    (left,) = await windows.take(kind, [day])
    assert left.remaining == 1, "what the minute refused did not count in the day"
    (other,) = await windows.take(kind + "-other", [minute])
    assert other.remaining == 2


@pytest.mark.parametrize("kind", ["own", "shared"])
async def test_a_window_moves_on(replicas: list[SharedWindows], kind: str) -> None:
    windows: Windows = OwnWindows(SystemClock()) if kind == "own" else replicas[0]
    second = Window("second", 1, 2)
    assert await allowed(windows, f"{kind}-moving", second, times=4) == 2

    async def is_free() -> bool:
        return await allowed(windows, f"{kind}-moving", second, times=1) == 1

    assert await eventually(is_free, timeout_s=3)


async def test_a_server_that_is_frozen_costs_one_short_wait_and_then_none(server: Valkey) -> None:
    windows = SharedWindows(server.url, SystemClock())
    await eventually(lambda: _answers([windows]), what="the store is there")
    server.freeze()
    try:
        began = time.monotonic()
        with pytest.raises(Retry):
            await windows.take("frozen", [MINUTE])
        assert time.monotonic() - began < limits.WINDOWS_WAIT_S_MAX + 0.2
        began = time.monotonic()
        for _ in range(100):
            with pytest.raises(Retry):
                await windows.take("frozen", [MINUTE])
        assert time.monotonic() - began < limits.WINDOWS_WAIT_S_MAX
    finally:
        server.wake()
    assert await eventually(lambda: _answers([windows]), what="it is asked again")
    await windows.stop()


async def test_a_server_that_died_and_came_back_is_used_again(server: Valkey, replicas: list[SharedWindows]) -> None:
    await server.kill()
    with pytest.raises(Retry):
        await replicas[0].take("dead", [MINUTE])
    await server.start()
    assert await eventually(lambda: _answers(replicas[:1]), what="it is asked again")
    assert await allowed(replicas[0], "back", MINUTE, times=101) == 100


async def test_a_burst_is_not_taken_for_a_server_that_is_away(replicas: list[SharedWindows]) -> None:
    wide = Window("wide", 60, 1_000_000)
    counted = await asyncio.gather(*(replicas[0].take("burst", [wide]) for _ in range(300)), return_exceptions=True)
    assert not [one for one in counted if isinstance(one, BaseException)]


@pytest.mark.parametrize("url", ["127.0.0.1:6379", "http://h", "redis://h:port", "memcached://secret@h"])
def test_a_url_that_is_none_ends_the_process_without_showing_it(url: str) -> None:
    with pytest.raises(Fatal) as fatal:
        SharedWindows(url, SystemClock())
    assert url not in str(fatal.value)
    assert "secret" not in str(fatal.value)
