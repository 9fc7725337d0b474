"""The gauge `millrace_unaccounted`: what the read models themselves show to be missing, counted now and then.

Events of today and yesterday without an outcome, and children that facts name without a row of their own, both for at
least a minute. One projector counts, whichever holds the lock, while nothing is left to project; counting never takes
more than a twentieth of the time. The proof over everything, live places included, is `millrace verify`.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from millrace_core.clock import Clock
from millrace_core.errors import Retry
from millrace_core.ids import DAY_MS
from millrace_kafka.restart import pause
from millrace_store import queries
from millrace_store.pool import AWAY, Connection

EVERY_S = 10.0
SHARE_MAX = 0.05
KNOWN_FOR = timedelta(minutes=1)
_LOCK = 0x756E616363740001  # "unacct": any fixed number of its own
_SQL = queries.load("unaccounted")


class Reconciler:
    """Counts until told to stop. `is_behind` says whether the projector has something left to project."""

    def __init__(
        self,
        *,
        connect: Callable[[], Awaitable[Connection]],
        is_behind: Callable[[], bool],
        found: Callable[[int], None],
        clock: Clock,
        every_s: float = EVERY_S,
    ) -> None:
        self._connect = connect
        self._is_behind = is_behind
        self._found = found
        self._clock = clock
        self._every_s = every_s

    async def run(self, stop: asyncio.Event) -> None:
        """The worker. Postgres away only means that nothing is counted meanwhile."""
        while not stop.is_set():
            with contextlib.suppress(Retry, *AWAY):
                await self._count_on(stop)
            await pause(stop, self._every_s)

    async def _count_on(self, stop: asyncio.Event) -> None:
        connection = await self._connect()
        try:
            while not stop.is_set():
                pause_s = self._every_s
                if not self._is_behind() and await connection.fetchval(_SQL["take_lock"], _LOCK):
                    pause_s = max(pause_s, await self._count(connection) / SHARE_MAX)
                await pause(stop, pause_s)
        finally:
            connection.terminate()

    async def _count(self, connection: Connection) -> float:
        began, now_ms = self._clock.monotonic(), self._clock.now_ms()
        yesterday_ms = now_ms - now_ms % DAY_MS - DAY_MS
        known_before = datetime.fromtimestamp(now_ms / 1000, UTC) - KNOWN_FOR
        self._found(int(await connection.fetchval(_SQL["unaccounted"], f"{yesterday_ms << 80:032x}", known_before)))
        return self._clock.monotonic() - began
