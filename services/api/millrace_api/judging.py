"""Looks for endpoints that are to be disabled, disables them, and writes the events about it.

Every replica looks: who comes second finds the endpoint changed, and an event written twice is one. A crash between a
change and its event leaves the row that says so, and the next look writes it. Not here: the rules
(`application.disabling`).
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime

from structlog.typing import FilteringBoundLogger

from millrace_api.application import disabling
from millrace_api.application.changes import Changes
from millrace_api.application.database import Database
from millrace_api.application.disabling import Judged, Reason
from millrace_api.application.looking import keep_looking
from millrace_api.application.runs import Log
from millrace_core import ids, limits
from millrace_core.clock import Clock, utc_now
from millrace_core.event import to_output

SURFACE = "platform"


class EndpointJudge:
    """A worker. A Postgres or log that is away only delays it."""

    def __init__(
        self, database: Database, changes: Changes, *, events: Log, clock: Clock, log: FilteringBoundLogger
    ) -> None:
        self._database = database
        self._changes = changes
        self._events = events
        self._clock = clock
        self._log = log
        self._failing_looked_at = float("-inf")

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`."""
        await keep_looking(
            self.look,
            stop,
            every_s=limits.ENDPOINTS_LOOKED_AT_EVERY_S,
            delayed=lambda reason: self._log.warning("webhook.disabling.delayed", reason=reason),
        )

    async def look(self) -> None:
        """One look, and what follows from it. Safe to repeat."""
        async with self._database.asking() as connection:
            gone = await disabling.gone(connection)
        await self._disable(gone, "gone")
        await self._tell()
        now_s = self._clock.monotonic()
        if now_s - self._failing_looked_at >= limits.FAILING_ENDPOINTS_LOOKED_AT_EVERY_S:
            self._failing_looked_at = now_s  # also if it fails: the question is a long one
            async with self._database.asking() as connection:
                failing = await disabling.failing(connection, self._now())
            await self._disable(failing, "failing")

    async def _disable(self, found: Sequence[Judged], reason: Reason) -> None:
        for one in found:
            async with self._changes.begin() as change:
                is_disabled = await disabling.disable(change, one, reason)
            if is_disabled:
                endpoint = ids.prefixed(ids.ENDPOINT, one.endpoint)
                self._log.info("webhook.disabled", account=one.account, endpoint=endpoint, reason=reason)

    async def _tell(self) -> None:
        async with self._database.asking() as connection:
            untold = await disabling.untold(connection)
        if not untold:
            return
        await self._events.write([to_output(disabling.event_of(one), surface=SURFACE) for one in untold])
        for one in untold:
            async with self._database.asking() as connection:
                await disabling.told(connection, one, self._now())

    def _now(self) -> datetime:
        return utc_now(self._clock)
