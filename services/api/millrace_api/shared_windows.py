"""Requests counted together with all other processes, in Valkey or Redis, by the library `limits`.

Each window is one script in the server, so what passes is exact however many processes ask. Whoever asks waits 50 ms
at most; a server that is slow or away is left alone for a second, in which `take` raises Retry at once. A minute's
requests carry the time of the process that took them: processes whose clocks differ by a second count a second's
requests differently.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from urllib.parse import urlsplit

from limits import RateLimitItemPerSecond
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter, RateLimiter, SlidingWindowCounterRateLimiter
from redis.asyncio import BlockingConnectionPool
from redis.asyncio.retry import Retry as Tries
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from millrace_core import limits as bounds
from millrace_core.clock import Clock
from millrace_core.errors import Fatal, Retry
from millrace_web.rate_plans import Window
from millrace_web.sliding_windows import Counted, is_exact

_SCHEMES = frozenset({"redis", "rediss", "unix"})
_AWAY = (RedisError, OSError, TimeoutError)


class SharedWindows:
    """Counting in the server behind `url` (`redis://[user:password@]host:port[/db]`, `rediss://…`)."""

    def __init__(self, url: str, clock: Clock, *, wait_s: float = bounds.WINDOWS_WAIT_S_MAX) -> None:
        """`wait_s` is how long an answer is waited for. Raises Fatal, without showing the URL, when it is none."""
        self._clock = clock
        self._wait_s = wait_s
        self._away_until = 0.0
        self._turn = asyncio.Semaphore(bounds.WINDOWS_ASKING_MAX)
        self._pool = _pool(url)
        # The library's own default is another client.
        storage = RedisStorage("async+redis://", implementation="redispy", connection_pool=self._pool)  # type: ignore[arg-type]
        self._exact = MovingWindowRateLimiter(storage)
        self._weighted = SlidingWindowCounterRateLimiter(storage)

    async def take(self, key: str, windows: Sequence[Window]) -> Sequence[Counted]:
        """As the port says."""
        async with self._turn:
            if self._clock.monotonic() < self._away_until:
                raise Retry("the store of rate limits did not answer just now")
            try:
                return await _soon(self._take(key, windows), self._wait_s)
            except _AWAY as error:
                self._away_until = self._clock.monotonic() + bounds.WINDOWS_AWAY_S
                raise Retry(f"the store of rate limits does not answer: {type(error).__name__}") from error

    async def stop(self) -> None:
        """Close. Safe to repeat."""
        await self._pool.disconnect()

    async def _take(self, key: str, windows: Sequence[Window]) -> Sequence[Counted]:
        taken: list[tuple[Window, bool]] = []
        for window in windows:
            is_allowed = await self._counter(window).hit(_item(window), window.name, key)
            taken.append((window, is_allowed))
            if not is_allowed:
                break
        return [await self._told(key, window, is_allowed) for window, is_allowed in taken]

    async def _told(self, key: str, window: Window, is_allowed: bool) -> Counted:
        reset_at, remaining = await self._counter(window).get_window_stats(_item(window), window.name, key)
        reset_in_s = max(reset_at - self._clock.now_ms() / 1000, 0.0)
        return Counted(window, is_allowed, max(remaining, 0) if is_allowed else 0, reset_in_s)

    def _counter(self, window: Window) -> RateLimiter:
        return self._exact if is_exact(window) else self._weighted


async def _soon(asking: Coroutine[None, None, Sequence[Counted]], wait_s: float) -> Sequence[Counted]:
    """What it gives, within the wait. Raises TimeoutError after as many looks as the wait has parts: the loop has
    turned that often, so an answer that was there has been seen, however busy this process is."""
    task = asyncio.ensure_future(asking)
    try:
        for _ in range(bounds.WINDOWS_WAIT_PARTS):
            await asyncio.wait({task}, timeout=wait_s / bounds.WINDOWS_WAIT_PARTS)
            if task.done():
                return task.result()
        raise TimeoutError
    finally:
        task.cancel()


def _item(window: Window) -> RateLimitItemPerSecond:
    return RateLimitItemPerSecond(window.allowed, window.seconds, namespace="millrace")


def _pool(url: str) -> BlockingConnectionPool:
    try:
        if urlsplit(url).scheme not in _SCHEMES:
            raise ValueError(url)
        return BlockingConnectionPool.from_url(
            url,
            max_connections=bounds.WINDOWS_ASKING_MAX,
            # How long is waited is `_soon`'s business: a clock alone takes our own lateness for the server's.
            timeout=None,
            socket_timeout=None,
            socket_connect_timeout=None,
            # The client would try again by itself, and wait in between.
            retry=Tries(NoBackoff(), 0),
            # And a new connection would first talk about itself: each word is a round trip within the wait.
            protocol=2,
            driver_info=None,
        )
    except ValueError:
        raise Fatal("MILLRACE_LIMITS cannot be read: write redis://[user:password@]host:port[/db]") from None
