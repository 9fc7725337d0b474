"""Keeps the scheduler's clock honest: reads the wall clock every second, and asks the broker when that is doubted.

The broker's time is what it stamps on a tick record (LogAppendTime), which asks for nothing. While the broker is away
a doubt stays, and time goes on by the monotonic clock. Not here: what is believed (`steady_clock`).
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from millrace_core import limits
from millrace_core.errors import Retry
from millrace_core.messages import Tick, encode
from millrace_core.record import ACCOUNT, ID, Output
from millrace_scheduler.steady_clock import SteadyClock

Stamp = Callable[[Output], Awaitable[int]]
"""Writes a record and gives the broker's time on it, or raises Retry."""

TICK = Output("timers", b"tick", encode(Tick()), ((ACCOUNT, b""), (ID, b"tick")))


class Ticker:
    """One per process. `first` must have returned before a timer may fire."""

    def __init__(self, clock: SteadyClock, stamp: Stamp, *, every_s: float = limits.CLOCK_READ_EVERY_S) -> None:
        self._clock = clock
        self._stamp = stamp
        self._every_s = every_s

    async def first(self, stop: asyncio.Event) -> None:
        """Return when the broker has confirmed the time once, or the process is told to stop."""
        while not stop.is_set():
            await self._settle()
            if not self._clock.is_doubted or await self._told_within(stop):
                return

    async def run(self, stop: asyncio.Event) -> None:
        """Read the clock until told to stop."""
        while not await self._told_within(stop):
            self._clock.read()
            await self._settle()

    async def _settle(self) -> None:
        if self._clock.is_doubted:
            with contextlib.suppress(Retry):
                self._clock.broker_said(await self._stamp(TICK))

    async def _told_within(self, stop: asyncio.Event) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._every_s):
                await stop.wait()
        return stop.is_set()
