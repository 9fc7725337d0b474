"""Keeps a steady clock honest: reads the wall clock every second, and asks the broker when that is doubted.

The broker's time is what it stamps on a tick record (LogAppendTime), which asks for nothing. While the broker is away
a doubt stays, and time goes on by the monotonic clock. Not here: what is believed (`millrace_core.steady_clock`).
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

from millrace_core import limits
from millrace_core.errors import Retry
from millrace_core.messages import Tick, encode
from millrace_core.record import ACCOUNT, ID, Output
from millrace_core.restart import pause
from millrace_core.steady_clock import SteadyClock
from millrace_kafka.routing import Metadata

Write = Callable[[Sequence[Output]], Awaitable[Sequence[Metadata]]]

TICK = Output("timers", b"tick", encode(Tick()), ((ACCOUNT, b""), (ID, b"tick")))


class Ticker:
    """One per process. `first` must have returned before a timer may be set or fire."""

    def __init__(self, clock: SteadyClock, write: Write, *, every_s: float = limits.CLOCK_READ_EVERY_S) -> None:
        """`write` is a plain producer's: it gives the places of what it wrote, or raises Retry."""
        self._clock = clock
        self._write = write
        self._every_s = every_s

    async def first(self, stop: asyncio.Event) -> None:
        """Return when the broker has confirmed the time once, or the process is told to stop."""
        while not stop.is_set():
            await self._settle()
            if not self._clock.is_doubted or await self._told_within(stop):
                return

    def ready(self) -> str | None:
        """None when the time can be believed, else why not."""
        return "the wall clock jumped, unconfirmed" if self._clock.is_doubted else None

    async def run(self, stop: asyncio.Event) -> None:
        """Read the clock until told to stop."""
        while not await self._told_within(stop):
            self._clock.read()
            await self._settle()

    async def _settle(self) -> None:
        if self._clock.is_doubted:
            with contextlib.suppress(Retry):
                (written,) = await self._write([TICK])
                self._clock.broker_said(written.timestamp)

    async def _told_within(self, stop: asyncio.Event) -> bool:
        await pause(stop, self._every_s)
        return stop.is_set()
