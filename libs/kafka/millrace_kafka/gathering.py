"""Batches that gather: at once while it is calm, and the further apart the thicker records come.

A request to the broker costs both sides 0.1 to 0.5 ms of CPU, whether it carries one record or fifty (docs/adr/0007).
So whoever asks often lets some time pass between two requests, in which records gather; whoever asks seldom waits for
nothing. Not here: how much a batch may hold.
"""

import asyncio
from math import exp

from millrace_core import limits

# How long a burst is remembered.
FADE_S = 0.1


class Gathering:
    """The pace of one loop. `gather_s` is the least time between two of its turns at `GATHER_FULL_PER_S` records a
    second and above, and so the most that a record waits here; it shrinks with the rate."""

    def __init__(self, gather_s: float) -> None:
        self._gather_s = gather_s
        self._began_at = float("-inf")
        self._asked_at = float("-inf")
        self._per_s = 0.0
        self._is_enough = False
        self._pause: asyncio.Future[None] | None = None

    async def turn(self, records: int) -> None:
        """Return when the next turn may begin: at once when the last one began long enough ago, or on `enough`.
        `records` have come since this was last asked."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._per_s = self._per_s * exp((self._asked_at - now) / FADE_S) + records / FADE_S
        self._asked_at = now
        due = self._began_at + self._gather_s * min(1.0, self._per_s / limits.GATHER_FULL_PER_S)
        if due > now and not self._is_enough:
            self._pause = loop.create_future()
            timer = loop.call_later(due - now, self._over)
            try:
                await self._pause
            finally:
                timer.cancel()
                self._pause = None
            now = loop.time()
        self._is_enough = False
        self._began_at = now

    def enough(self) -> None:
        """What has gathered is worth a turn now: the pause ends, or the next one is left out."""
        self._is_enough = True
        self._over()

    def _over(self) -> None:
        if self._pause is not None and not self._pause.done():
            self._pause.set_result(None)
